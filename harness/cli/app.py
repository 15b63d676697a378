"""The command line: what to run, where the results go, and the exit status.

0: all agree; 1: something does not, or a plugin has a problem; 2: the command cannot be carried out as given;
130: interrupted, what was found out until then being kept.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import torch
import typer
from rich.console import Console

from ..api.messages import UnknownName, unknown
from ..api.operations import PRESETS, Agreement, Cost, Status
from ..api.records import BenchOptions, Measurement, Record, Run
from ..discovery.registry import Registry, load_registry
from ..execution.plan import Mode, Purpose, Step, plan
from ..execution.process import prepare_process_for
from ..inspection.tools import ToolMissing
from ..report import tables
from ..report.terminal import outputs, plain_console
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA, ResultsError, ResultsFile, read_run, record_key, run_to_json
from . import inspect as cli_inspect
from . import list as cli_list
from . import results as cli_results
from . import validate as cli_validate
from .new import NewPackageError
from .progress import Display

if TYPE_CHECKING:
    from ..execution.trial import TrialProtocol
    from ..execution.worker import Workers

USAGE = 2
INTERRUPTED = 130

CHECKED: tuple[Purpose, ...] = ("check", "real", "law")
TIMED: tuple[Purpose, ...] = ("bench", "real")
MODES: dict[str, tuple[Mode, ...]] = {"cold": ("cold",), "hot": ("hot",), "both": ("cold", "hot")}
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
TimeLimit = Annotated[
    float,
    typer.Option("--time-limit", min=1.0, metavar="SECONDS", help="For one verdict, warm-up or block of samples."),
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script. Never returns: exits with the status of the command."""
    try:
        app(args=arguments, prog_name="boltzbench")
    except (NewPackageError, UnknownName, ResultsError, ToolMissing) as error:
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


@app.command()
def check(
    operations: Operations = None,
    implementations: Implementations = None,
    device: Device = "auto",
    seed: Seed = None,
    time_limit: TimeLimit = 600.0,
    json_file: Json = None,
) -> None:
    """Check every implementation against its operation's reference and exact laws."""
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        registry, steps = _plan(place, operations, implementations, CHECKED, PRESETS[-1], seed)
        run = Run(SCHEMA, "incomplete", describe(place), (), registry.problems)
        records: list[Record] = []
        complete = False
        with (
            Display(console, steps) as display,
            _place_of_trials(place, display, time_limit, registry) as trial_of,
            suppress(KeyboardInterrupt),
        ):
            _carry_out(steps, place, trial_of, display, draws=CHECK_DRAWS, keep=records.append)
            complete = True
        run = replace(run, status="complete" if complete else "incomplete", records=tuple(records))
        console.print(tables.check_summary(records))
        status = _conclude(console, run, len(steps))
        write_json(run_to_json(run))
    raise typer.Exit(status)


@app.command()
def bench(
    context: typer.Context,
    operations: Operations = None,
    implementations: Implementations = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", help="smoke, quick or full; by default smoke on cpu, quick on cuda."),
    ] = None,
    mode: Annotated[
        str, typer.Option("--mode", metavar="NAME", help="cold (inputs not in cache), hot, or both.")
    ] = "cold",
    device: Device = "auto",
    seed: Seed = None,
    time_limit: TimeLimit = 600.0,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the results file.")] = Path("runs"),
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Go on with this interrupted run, as it was asked for."),
    ] = None,
    json_file: Json = None,
) -> None:
    """Check the benchmark cases and real data, then time what agrees, each implementation in a process of its own."""
    with outputs(json_file) as (console, write_json):
        place = resolve_device(device)
        asked = BenchOptions(
            operations=tuple(operations or ()),
            implementations=tuple(implementations or ()),
            preset=preset or ("quick" if place.type == "cuda" else "smoke"),
            mode=mode,
            seed=seed,
        )
        if resume:
            asked = _asked_before(context, resume)
        for kind, name, valid in (("preset", asked.preset, PRESETS), ("mode", asked.mode, tuple(MODES))):
            if name not in valid:
                raise unknown(kind, name, valid)
        modes = MODES[asked.mode]
        registry, steps = _plan(place, asked.operations, asked.implementations, TIMED, asked.preset, asked.seed)
        environment = describe(place)
        if resume:
            file, left = _resumed(resume, steps, environment, modes, registry.problems, console)
        else:
            file, left = ResultsFile(out, environment, registry.problems), steps
        file.update(command=asked)
        complete = False
        with (
            Display(console, left) as display,
            _workers(place, display, time_limit, registry) as workers,
            suppress(KeyboardInterrupt),
        ):
            overheads, ceilings, problems = workers.limits()
            file.update(overheads=overheads, ceilings=ceilings, problems=(*registry.problems, *problems))
            share = _share_of(ceilings, environment)
            _carry_out(left, place, workers.trial, display, draws=1, modes=modes, share=share, keep=file.add)
            complete = True
        before = file.run.seconds  # of the part before it was resumed
        file.update(seconds={phase: before.get(phase, 0.0) + more for phase, more in display.seconds.items()})
        if complete:
            file.finish()
        else:
            file.close()
        console.print(tables.bench_tables(file.run.records))
        console.print(tables.limits(file.run))
        status = _conclude(console, file.run, len(steps))
        console.print(f"Results file: {file.path}", soft_wrap=True)
        if not complete:
            console.print(f"Go on with it: boltzbench bench --resume {file.path}", soft_wrap=True)
        write_json(run_to_json(file.run))
    raise typer.Exit(status)


def _asked_before(context: typer.Context, path: Path) -> BenchOptions:
    """What the run to resume was asked for. Any other wish is an error, and not overheard."""
    for name in ("operations", "implementations", "preset", "mode", "seed", "out"):
        if _given(context, name):
            option = name.removesuffix("s") if name in ("operations", "implementations") else name
            raise ResultsError(f"--{option} cannot be given with --resume: the run goes on as it was asked for")
    command = read_run(path).command
    if command is None:
        raise ResultsError(f"cannot resume {path}: it is no run of bench")
    return command


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _resumed(
    path: Path,
    steps: Sequence[Step],
    environment: Mapping[str, Any],
    modes: Sequence[Mode],
    problems: tuple[str, ...],
    console: Console,
) -> tuple[ResultsFile, list[Step]]:
    """The file to go on with, and the steps that it lacks."""
    from ..execution.trial import record_of, sources_of

    sources = {(step.operation.name, step.implementation.name): sources_of(step) for step in steps}
    file = ResultsFile.resume(path, environment, sources, modes=modes, problems=problems)
    left = [step for step in steps if record_key(record_of(step, Agreement(Status.PASSED))) not in file.kept]
    console.print(f"Resumed {path}: {len(steps) - len(left)} of {len(steps)} checks are kept.", soft_wrap=True)
    for reason, count in file.dropped.items():
        console.print(f"{count} done anew: {reason}")
    return file, left


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the package and its sampler.")],
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="What makes its proposals: torch, triton or cupy.")
    ] = "torch",
    into: Annotated[Path, typer.Option("--into", metavar="DIR", help="Folder to write it to.")] = Path("."),
) -> None:
    """Write the package of a sampler to start from, which works as written."""
    from .new import write_package

    console = plain_console()
    files = write_package(name, into, backend)
    for file in files:
        console.print(f"Written: {file}", soft_wrap=True)
    module = name.replace("-", "_")
    console.print(f"Next: pip install -e {files[0].parent} && boltzbench validate -s {module}", soft_wrap=True)


app.command("list")(cli_list.list_)
app.command()(cli_results.report)
app.command()(cli_results.compare)
app.command()(cli_validate.validate)
app.command()(cli_inspect.inspect)


@contextmanager
def _workers(device: torch.device, display: Display, time_limit: float, registry: Registry) -> "Iterator[Workers]":
    from ..execution.worker import Workers

    workers = Workers(device, display.phase, time_limit, registry.loaded)
    try:
        yield workers
    finally:
        workers.close()


@contextmanager
def _place_of_trials(
    device: torch.device, display: Display, time_limit: float, registry: Registry
) -> "Iterator[Callable[[Step], TrialProtocol]]":
    """Where `check` tries an implementation: here on a CPU; on a GPU, which a crash makes unusable, in a worker."""
    from ..execution.trial import Trial

    if device.type == "cpu":
        yield lambda step: Trial(step, device, display.phase)
    else:
        with _workers(device, display, time_limit, registry) as workers:
            yield workers.trial


def _carry_out(
    steps: Sequence[Step],
    device: torch.device,
    trial_of: "Callable[[Step], TrialProtocol]",
    display: Display,
    *,
    draws: int,
    keep: Callable[[Record], None],
    modes: Sequence[Mode] = (),
    share: Callable[[Measurement, Cost], Measurement] = lambda measurement, cost: measurement,
) -> None:
    from ..execution.session import carry_out  # here, as it takes scipy, which `list` and `--help` need not wait for

    carry_out(steps, device, trial_of, draws=draws, modes=modes, share=share, keep=keep, display=display)


def _plan(
    device: torch.device,
    operations: Sequence[str] | None,
    implementations: Sequence[str] | None,
    purposes: tuple[Purpose, ...],
    preset: str,
    seed: int | None,
) -> tuple[Registry, list[Step]]:
    prepare_process_for(device)
    registry = load_registry()
    selection = registry.select(operations or (), implementations or ())
    return registry, plan(selection, purposes, preset, seed)


def _share_of(
    ceilings: Mapping[str, float], environment: Mapping[str, Any]
) -> Callable[[Measurement, Cost], Measurement]:
    from ..timing.roofline import cache_bytes, with_share

    return partial(with_share, rates=ceilings, cache_bytes=cache_bytes(environment))


def _conclude(console: Console, run: Run, planned: int) -> int:
    """Print failures, plugin problems and the closing line; return the exit status."""
    console.print(tables.failures(run.records))
    console.print(tables.all_problems(run.problems))
    console.print(tables.verdict(run.records, run.problems), soft_wrap=True)
    if run.status == "incomplete":
        console.print(f"Interrupted after {len(run.records)} of {planned} checks; what is above is kept.")
        return INTERRUPTED
    agree = not tables.failed(run.records) and any(record.status is Status.PASSED for record in run.records)
    return 0 if agree and not run.problems else 1
