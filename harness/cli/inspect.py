"""The command `inspect`: what the machine code of each kernel says, without a GPU."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from ..api.messages import describe_error
from ..api.operations import Implementation
from ..discovery.registry import Registry, load_registry
from ..inspection.architectures import Architecture, architecture, measured
from ..inspection.inspect import KernelReport, inspect_variants
from ..inspection.tools import ToolMissing, tool
from ..report.tables import all_problems
from ..report.terminal import outputs
from ..results.environment import describe
from ..results.file import SCHEMA, ResultsError, read_run

Operations = Annotated[
    list[str] | None, typer.Option("-o", "--operation", metavar="NAME", help="Only this operation; repeatable.")
]
Implementations = Annotated[
    list[str] | None,
    typer.Option("-i", "--implementation", metavar="NAME", help="Only implementations of this name; repeatable."),
]
Arch = Annotated[
    list[str] | None, typer.Option("--arch", metavar="NAME", help="sm_80, sm_90 (the default), sm_100; repeatable.")
]
Limits = Annotated[
    Path | None,
    typer.Option("--limits", metavar="RUN", help="Predict from limits that this run measured."),
]
Json = Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE, or to - (stdout).")]

INTERRUPTED = 130


@dataclass(frozen=True)
class Inspected:
    """One variant of an implementation, or the one finding that its ``variants()`` failed."""

    implementation: Implementation
    findings: KernelReport


def inspect(
    operations: Operations = None,
    implementations: Implementations = None,
    archs: Arch = None,
    limits: Limits = None,
    json_file: Json = None,
) -> None:
    """Compile every kernel without a GPU and read its machine code: registers, spills, accesses, what limits it."""
    with outputs(json_file) as (console, write_json):
        targets = [architecture(name) for name in dict.fromkeys(archs or ["sm_90"])]
        if limits:
            targets = [_with_limits(target, limits) for target in targets]
        for name in ("nvdisasm", "cuobjdump"):
            tool(name)
        os.environ["TRITON_INTERPRET"] = "0"  # before a plugin imports Triton: interpreted kernels cannot be compiled
        registry = load_registry()
        chosen = [each for _, found in registry.select(operations or (), implementations or ()) for each in found]
        rows: list[Inspected] = []
        complete = False
        try:
            for target in targets:
                for each in chosen:
                    found = _inspected(each, target, console)
                    if found:
                        console.print(_figures(each, target, found), soft_wrap=True)
                    rows += [Inspected(each, one) for one in found]
            complete = True
        except KeyboardInterrupt:
            console.print("Interrupted; what is above is kept.")
        status = _conclude(console, rows, chosen, targets, registry)
        write_json(_json(rows, targets, registry.problems, complete))
    raise typer.Exit(status if complete else INTERRUPTED)


def _with_limits(target: Architecture, path: Path) -> Architecture:
    run = read_run(path)
    gpu = run.environment.get("gpu")
    if not run.ceilings or not gpu:
        raise ResultsError(f"{path} holds no limits measured on a GPU: bench measures them")
    return measured(target, run.ceilings, gpu, path.name)


def _inspected(implementation: Implementation, target: Architecture, console: Console) -> list[KernelReport]:
    name = f"{implementation.operation} {implementation.name}, {target.name}"
    try:
        variants = list(implementation.variants())
        with console.status(name) as status:  # nothing where it is not a terminal
            return inspect_variants(variants, target, lambda each: status.update(f"{name}: {each.name}"))
    except ToolMissing:
        raise
    except (Exception, SystemExit) as error:
        return [KernelReport("variants()", target.name, "error", describe_error(error))]


def _figures(implementation: Implementation, target: Architecture, found: Sequence[KernelReport]) -> RenderableType:
    """Two lines for each variant, within 80 columns unless its name is longer than 34."""
    head = f"{'':34}{'regs':>5}{'spill':>6}{'shared':>7}{'occ.':>5}{'B':>6}{'limit':>9}{'memory':>7}"
    lines = [Text(f"{implementation.operation} {implementation.name}, {target.name}"), Text(head, style="dim")]
    for each in found:
        name = Text(each.variant, style="green" if each.status == "passed" else "bold red")
        if each.status == "error":
            lines.append(name)
            continue
        spill = Text(f"{each.stack_bytes or each.local_accesses:>6}", style="red" * (each.status == "spills"))
        width = Text(f"{_accesses(each):>6}", style="red" * (each.status == "narrow"))
        share = "-" if each.memory_share is None else f"{each.memory_share:.0%}"
        shared = each.static_shared_bytes + each.dynamic_shared_bytes
        pad = " " * max(34 - len(name), 0)
        lines.append(
            Text.assemble(
                *(name, pad, f"{each.registers:>5}", spill, f"{shared:>7}", f"{each.occupancy:>5.0%}", width),
                *(f"{each.limit:>9}", f"{share:>7}"),
            )
        )
        lines.append(Text(f"  {_per_item(each)}", style="dim"))
    return Group(*lines, Text())


def _accesses(found: KernelReport) -> str:
    """``16/16``: the widest load and the widest store."""
    return "/".join(str(max(widths)) if widths else "-" for widths in (found.loads, found.stores))


def _per_item(found: KernelReport) -> str:
    total = sum(found.mix.values()) / found.items
    parts = [f"{kind} {count / found.items:.2g}" for kind, count in found.mix.items()]
    return f"{total:.3g} per {found.unit.removesuffix('s')}: {', '.join(parts)}"


def _note(target: Architecture) -> str:
    return (
        f"{target.name}: limit and memory are a prediction from {target.source}, nothing was run: the pipe that takes "
        f"longest, and the share of the memory limit at best. {target.device}, {target.multiprocessors} "
        f"multiprocessors at {target.clock / 1e9:.3g} GHz, {target.bandwidth / 1e12:.3g} TB/s."
    )


def _conclude(
    console: Console,
    rows: Sequence[Inspected],
    chosen: Sequence[Implementation],
    targets: Sequence[Architecture],
    registry: Registry,
) -> int:
    """Print what failed in full, what was not inspected and the closing line; return the exit status."""
    inspected = {(row.implementation.operation, row.implementation.name) for row in rows}
    for target in targets:
        console.print(Text(_note(target), style="dim"))
    left = [f"{each.operation} {each.name}" for each in chosen if (each.operation, each.name) not in inspected]
    if left:
        console.print(Text(f"without kernels of its own to inspect: {', '.join(left)}", style="yellow"), soft_wrap=True)
    failed = [row for row in rows if row.findings.status != "passed"]
    for row in failed:
        place = f"{row.implementation.operation} {row.implementation.name}, {row.findings.arch}, {row.findings.variant}"
        message = f"{row.findings.status}: {place}: {row.findings.message}"
        console.print(Text(message, style="bold red"), soft_wrap=True)
    console.print(all_problems(registry.problems))
    console.print(closing_line(rows), soft_wrap=True)
    return 1 if failed or registry.problems or not rows else 0


def closing_line(rows: Sequence[Inspected]) -> str:
    """The verdict in a sentence."""
    failed = sum(row.findings.status != "passed" for row in rows)
    if not rows:
        return "Nothing was inspected: none of these implementations names its kernels."
    if failed:
        return f"{failed} of {len(rows)} kernels spill, are narrower than they promise, or do not compile."
    return f"All {len(rows)} kernels compile, spill nothing and keep the widths that they promise."


def _json(rows: Iterable[Inspected], targets: Sequence[Architecture], problems: Sequence[str], complete: bool) -> str:
    records: list[dict[str, Any]] = []
    for row in rows:
        fields = asdict(row.findings)
        records.append(
            {
                "operation": row.implementation.operation,
                "implementation": row.implementation.name,
                "backend": row.implementation.backend,
                "case": fields.pop("variant"),
                "plugin": row.implementation.plugin,
                **fields,
            }
        )
    whole = {
        "schema": SCHEMA,
        "status": "complete" if complete else "incomplete",
        "environment": describe(torch.device("cpu")),
        "architectures": [{**asdict(each), "rates": dict(each.rates)} for each in targets],
        "records": records,
        "problems": list(problems),
    }
    return json.dumps(whole, indent=1) + "\n"
