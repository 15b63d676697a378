"""The command line: what to run, where the results go, and the exit status.

0: all agree; 1: something does not, or a plugin has a problem; 2: the command cannot be carried out as given;
130: interrupted, what was found out until then being kept.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import torch
import typer
from rich.console import Console

from . import tables
from .environment import cuda_unusable, describe, resolve_device
from .registry import Registry, load_registry
from .results import SCHEMA, ResultsError, ResultsFile, run_to_json
from .terminal import outputs, progress
from .types import PRESETS, Implementation, Record, Run, Status
from .wording import UnknownName, describe_error, unknown

if TYPE_CHECKING:
    from .session import Purpose, Step

USAGE = 2
INTERRUPTED = 130

CHECKED: "tuple[Purpose, ...]" = ("check", "real", "law")
TIMED: "tuple[Purpose, ...]" = ("bench", "real")
CHECK_DRAWS = 2
"""How many seeds `check` draws each case from; `bench` has larger cases and draws one."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Checks and times kernels for statistical-mechanics machine learning.",
)

Operations = Annotated[
    list[str] | None, typer.Option("-o", "--operation", metavar="NAME", help="Only this operation; repeatable.")
]
Implementations = Annotated[
    list[str] | None,
    typer.Option("-i", "--implementation", metavar="NAME", help="Only implementations of this name; repeatable."),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N.")]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, metavar="N", help="Seed of the data, in place of each case's own.")
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script. Never returns: exits with the status of the command."""
    try:
        app(args=arguments, prog_name="boltzbench")
    except (UnknownName, ResultsError) as error:
        print(f"boltzbench: {error}", file=sys.stderr)
        sys.exit(USAGE)
    sys.exit(0)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"boltzbench {version('boltzbench')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Checks and times kernels for statistical-mechanics machine learning."""


@app.command("list")
def list_(json_file: Json = None) -> None:
    """Show operations and implementations, where each comes from, and where it can run."""
    with outputs(json_file) as (console, write_json):
        _prepare_process_for(resolve_device("auto"))
        registry = load_registry()
        reasons = _reasons_by_device(registry)
        console.print(tables.operations_list(registry, reasons))
        console.print(tables.plugin_problems(registry.problems))
        write_json(json.dumps(_listing(registry, reasons), indent=1) + "\n")
    raise typer.Exit(1 if registry.problems else 0)


@app.command()
def check(
    operations: Operations = None,
    implementations: Implementations = None,
    device: Device = "auto",
    seed: Seed = None,
    json_file: Json = None,
) -> None:
    """Check every implementation against its operation's reference and exact laws."""
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        registry, steps = _plan(place, operations, implementations, CHECKED, PRESETS[-1], seed)
        run = Run(SCHEMA, "incomplete", describe(place), (), registry.problems)
        records: list[Record] = []
        complete = _carry_out(console, steps, place, draws=CHECK_DRAWS, timed=False, keep=records.append)
        run = replace(run, status="complete" if complete else "incomplete", records=tuple(records))
        console.print(tables.check_summary(records))
        status = _conclude(console, run, len(steps))
        write_json(run_to_json(run))
    raise typer.Exit(status)


@app.command()
def bench(
    operations: Operations = None,
    implementations: Implementations = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="smoke, quick or full; by default smoke on cpu, quick on cuda."),
    ] = None,
    device: Device = "auto",
    seed: Seed = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results file.")] = Path("runs"),
    json_file: Json = None,
) -> None:
    """Check the benchmark cases and real data, then time what agrees."""
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        preset = preset or ("quick" if place.type == "cuda" else "smoke")
        if preset not in PRESETS:
            raise unknown("preset", preset, PRESETS)
        registry, steps = _plan(place, operations, implementations, TIMED, preset, seed)
        file = ResultsFile(out, describe(place), registry.problems)
        if _carry_out(console, steps, place, draws=1, timed=True, keep=file.add):
            file.finish()
        console.print(tables.bench_tables(file.run.records))
        status = _conclude(console, file.run, len(steps))
        console.print(f"Results file: {file.path}", soft_wrap=True)
        write_json(run_to_json(file.run))
    raise typer.Exit(status)


def _plan(
    device: torch.device,
    operations: list[str] | None,
    implementations: list[str] | None,
    purposes: "tuple[Purpose, ...]",
    preset: str,
    seed: int | None,
) -> "tuple[Registry, list[Step]]":
    _prepare_process_for(device)
    from .session import plan  # here, because it takes scipy, which `list` and `--help` need not wait for

    registry = load_registry()
    selection = registry.select(operations or (), implementations or ())
    return registry, plan(selection, purposes, preset, seed)


def _prepare_process_for(device: torch.device) -> None:
    """Settle, before any plugin can import Triton, whether its kernels are interpreted (CPU) or compiled (GPU)."""
    if device.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        # Left over in the user's environment it would give the interpreter's times as the GPU's.
        os.environ.pop("TRITON_INTERPRET", None)
        torch.cuda.set_device(device)


def _carry_out(
    console: Console,
    steps: "Sequence[Step]",
    device: torch.device,
    *,
    draws: int,
    timed: bool,
    keep: Callable[[Record], None],
) -> bool:
    """Run the steps, handing each record to ``keep`` as it ends. False if Ctrl-C cut the run short."""
    from .session import run_step

    try:
        with progress(console, steps) as announce:
            for step in steps:
                announce(step)
                keep(run_step(step, device, draws=draws, timed=timed))
    except KeyboardInterrupt:
        return False
    return True


def _conclude(console: Console, run: Run, planned: int) -> int:
    """Print failures, plugin problems and the closing line; return the exit status."""
    console.print(tables.failures(run.records))
    console.print(tables.plugin_problems(run.problems))
    console.print(tables.verdict(run.records, run.problems), soft_wrap=True)
    if run.status == "incomplete":
        console.print(f"Interrupted after {len(run.records)} of {planned} checks; what is above is kept.")
        return INTERRUPTED
    agree = not tables.failed(run.records) and any(record.status is Status.PASSED for record in run.records)
    return 0 if agree and not run.problems else 1


def _reasons_by_device(registry: Registry) -> dict[tuple[str, str], dict[str, str | None]]:
    """For each (operation, implementation), why it cannot run on the CPU and on the GPU of this machine."""
    no_cuda = cuda_unusable()
    reasons: dict[tuple[str, str], dict[str, str | None]] = {}
    for device in (torch.device("cpu"), torch.device("cuda", 0)):
        if device.type == "cpu" or no_cuda is None:
            _prepare_process_for(device)
        for each in registry.implementations:
            reason = no_cuda if device.type == "cuda" and no_cuda else _reason(each, device)
            reasons.setdefault((each.operation, each.name), {})[device.type] = reason
    return reasons


def _reason(implementation: Implementation, device: torch.device) -> str | None:
    try:
        return implementation.unavailable(device)
    except (Exception, SystemExit) as error:
        return f"unavailable() raised {describe_error(error)}"


def _listing(registry: Registry, reasons: tables.Reasons) -> dict[str, Any]:
    """What `list` writes as JSON."""
    device = resolve_device("auto")
    definers = {name: plugin.label for plugin in registry.plugins for name in plugin.operations}
    operations = [
        {
            "name": each.name,
            "summary": each.summary,
            "formula": each.formula,
            "source": each.source,
            "kind": each.kind,
            "plugin": definers[each.name],
            "cases": [{"label": case.label, "purpose": case.purpose} for case in each.cases],
            "laws": [{"name": law.name, "statement": law.statement} for law in each.laws],
        }
        for each in registry.operations.values()
    ]
    records = []
    for each in registry.implementations:
        unavailable = reasons[each.operation, each.name]
        here = unavailable[device.type]
        records.append(
            {
                "operation": each.operation,
                "implementation": each.name,
                "backend": each.backend,
                "case": "",
                "plugin": each.plugin,
                "status": "available" if here is None else "unavailable",
                "message": here or "",
                "unavailable": unavailable,
            }
        )
    return {
        "schema": SCHEMA,
        "status": "complete",
        "environment": describe(device),
        "operations": operations,
        "records": records,
        "plugins": [asdict(plugin) for plugin in registry.plugins],
        "problems": registry.problems,
    }
