"""The command `inspect`: compile every kernel without a GPU and analyse its machine code."""

import json
import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from ..api.messages import describe_error
from ..api.operations import Implementation, Variant
from ..discovery.registry import Registry, load_registry
from ..execution.catalogue import read_catalogue
from ..execution.plan import matching
from ..inspection.architectures import Architecture, architecture, measured
from ..inspection.inspect import KernelReport, inspect_variants
from ..inspection.tools import ToolMissing, tool
from ..report.tables import counted, indented, problem_lines
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA, ResultsError, read_run
from .options import INTERRUPTED, Implementations, Json, Operations

Arch = Annotated[
    list[str] | None, typer.Option("--arch", metavar="NAME", help="sm_80, sm_90 (the default), sm_100; repeatable.")
]
Kernels = Annotated[
    list[str] | None,
    typer.Option(
        "--case", metavar="KERNEL", help="Only this kernel, or those that match, such as 'row *'; repeatable."
    ),
]
Limits = Annotated[
    Path | None,
    typer.Option("--limits", metavar="RUN", help="Predict from the limits measured in this run."),
]

NAME = 34
"""Columns for the name of a variant."""


@dataclass(frozen=True)
class Inspected:
    """An implementation with the report on one of its kernels, or with the error of its ``variants()``."""

    implementation: Implementation
    report: KernelReport

    @property
    def place(self) -> str:
        return f"{self.implementation.operation} {self.implementation.name}, {self.report.arch}, {self.report.variant}"


def inspect(
    operations: Operations = None,
    implementations: Implementations = None,
    kernels: Kernels = None,
    archs: Arch = None,
    limits: Limits = None,
    json_file: Json = None,
) -> None:
    """Compile every kernel without a GPU and analyse its machine code: registers, spills, memory accesses, limits."""
    with outputs(json_file) as (console, write_json):
        targets = [architecture(name) for name in dict.fromkeys(archs or ["sm_90"])]
        if limits:
            targets = [_with_limits(target, limits) for target in targets]
        for name in ("nvdisasm", "cuobjdump"):
            tool(name)
        os.environ["TRITON_INTERPRET"] = "0"  # before a plugin imports Triton, which cannot compile interpreted kernels
        registry = _load_registry()
        chosen = [each for _, found in registry.select(operations or (), implementations or ()) for each in found]
        only = _named(chosen, kernels)
        rows: list[Inspected] = []
        complete = False
        try:
            for target in targets:
                for each in chosen:
                    found = _inspected(each, target, console, only)
                    if found:
                        console.print(_kernel_table(each, target, found))
                    rows += [Inspected(each, one) for one in found]
            complete = True
        except KeyboardInterrupt:
            console.print("Interrupted. The results above are kept.")
        status = _conclude(console, rows, chosen, targets, registry)
        write_json(_json(rows, targets, registry.problems, complete))
    raise typer.Exit(status if complete else INTERRUPTED)


def _load_registry() -> Registry:
    """The plugins, in this process: those that a child process could load before."""
    read = read_catalogue("cpu")
    broken = {
        each.name: "; ".join(problem.removeprefix(f"{each.label}: ") for problem in each.problems)
        for each in read.plugins
        if not each.loaded
    }
    return load_registry(broken=broken)


def _with_limits(target: Architecture, path: Path) -> Architecture:
    run = read_run(path)
    gpu = run.environment.get("gpu")
    if not run.ceilings or not gpu:
        raise ResultsError(f"--limits {path}: this run has no limits measured on a GPU; give a run of bench on one")
    return measured(target, run.ceilings, gpu, path.name)


def _named(chosen: Sequence[Implementation], kernels: Sequence[str] | None) -> set[str] | None:
    """The names of the kernels that ``--case`` names; None for all."""
    if not kernels:
        return None
    names = [variant.name for each in chosen for variant in _variants_of(each)]
    return {names[place] for place in matching("kernel", names, kernels)}


def _variants_of(implementation: Implementation) -> list[Variant]:
    """The kernels of an implementation, none if naming them fails: `_inspected` reports it."""
    try:
        return list(implementation.variants())
    except (Exception, SystemExit):
        return []


def _inspected(
    implementation: Implementation, target: Architecture, console: Console, only: Container[str] | None = None
) -> list[KernelReport]:
    name = f"{implementation.operation} {implementation.name}, {target.name}"
    try:
        variants = [each for each in implementation.variants() if only is None or each.name in only]
        with console.status(name) as status:  # shown on a terminal only
            return inspect_variants(variants, target, lambda each: status.update(f"{name}: {each.name}"))
    except ToolMissing:
        raise
    except (Exception, SystemExit) as error:
        return [KernelReport("variants()", target.name, "error", describe_error(error))]


def _kernel_table(
    implementation: Implementation, target: Architecture, found: Sequence[KernelReport]
) -> RenderableType:
    """Two lines for each variant, within 80 columns; a name longer than `NAME` columns gets a line of its own."""
    head = f"{'':{NAME}}{'regs':>5}{'spill':>6}{'shared':>7}{'occ.':>5}{'B':>6}{'limit':>9}{'memory':>7}"
    lines: list[RenderableType] = [
        Text(f"{implementation.operation} {implementation.name}, {target.name}"),
        Text(head, style="dim"),
    ]
    for each in found:
        name = Text(each.variant, style="green" if each.status == "passed" else "bold red")
        if each.status == "error":
            lines.append(name)
            continue
        spill = Text(f"{each.stack_bytes or each.local_accesses:>6}", style="red" * (each.status == "spills"))
        width = Text(f"{_accesses(each):>6}", style="red" * (each.status == "narrow"))
        share = "-" if each.memory_share is None else f"{each.memory_share:.0%}"
        shared = each.static_shared_bytes + each.dynamic_shared_bytes
        if len(name) > NAME:
            lines.append(name)
            name = Text()
        lines.append(
            Text.assemble(
                *(name, " " * (NAME - len(name)), f"{each.registers:>5}", spill, f"{shared:>7}"),
                *(f"{each.occupancy:>5.0%}", width, f"{each.limit:>9}", f"{share:>7}"),
            )
        )
        lines.append(indented(Text(_per_item(each), style="dim")))
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
        f"{target.name}: nothing was run. 'limit' is the pipe that takes longest and 'memory' the largest possible "
        f"share of the memory bandwidth: a prediction from {target.source} ({target.device}, {target.multiprocessors} "
        f"multiprocessors at {target.clock / 1e9:.3g} GHz, {target.bandwidth / 1e12:.3g} TB/s)."
    )


def _conclude(
    console: Console,
    rows: Sequence[Inspected],
    chosen: Sequence[Implementation],
    targets: Sequence[Architecture],
    registry: Registry,
) -> int:
    """Print failures in full, what was not inspected and the closing line; return the exit status."""
    inspected = {(row.implementation.operation, row.implementation.name) for row in rows}
    for target in targets:
        console.print(Text(_note(target), style="dim"))
    left = [f"{each.operation} {each.name}" for each in chosen if (each.operation, each.name) not in inspected]
    if left:
        console.print(Text(f"no kernels to inspect: {', '.join(left)}", style="yellow"))
    failed = [row for row in rows if row.report.status != "passed"]
    for row in failed:
        console.print(Text(f"{row.report.status}: {row.place}: {row.report.message}", style="bold red"))
    console.print(problem_lines(registry.problems))
    console.print(closing_line(rows))
    return 1 if failed or registry.problems or not rows else 0


def closing_line(rows: Sequence[Inspected]) -> str:
    """The result in one line."""
    failed = sum(row.report.status != "passed" for row in rows)
    kernels = counted(len(rows), "kernel")
    if not rows:
        return "Nothing was inspected: the selected implementations name no kernels."
    if failed:
        return f"{failed} of {kernels} failed: spills, accesses narrower than promised, or a compile error."
    return f"{kernels} compiled: no spills, and accesses as wide as promised."


def _json(rows: Iterable[Inspected], targets: Sequence[Architecture], problems: Sequence[str], complete: bool) -> str:
    records: list[dict[str, Any]] = []
    for row in rows:
        fields = asdict(row.report)
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
        "environment": describe(resolve_device("cpu")),
        "architectures": [{**asdict(each), "rates": dict(each.rates)} for each in targets],
        "records": records,
        "problems": list(problems),
    }
    return json.dumps(whole, indent=1) + "\n"
