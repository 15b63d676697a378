"""The command `inspect`: compile every kernel without a GPU and analyse its machine code."""

import json
import os
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from ..api.messages import describe_error
from ..api.operations import Implementation, Variant
from ..discovery.registry import PLUGINS_VARIABLE, Registry, load_registry
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

if TYPE_CHECKING:  # slow to import
    from multiprocessing.connection import Connection

    from ..execution.child import Child

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

VARIANT_SECONDS = 600.0
"""Time limit for compiling one variant."""


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
        registry = read_catalogue("cpu")
        chosen = [each for _, found in registry.select(operations or (), implementations or ()) for each in found]
        rows: list[Inspected] = []
        complete = False
        compiler = _Compiler(registry.loaded, console)
        try:
            only = _named(compiler, chosen, kernels)
            for target in targets:
                for each in chosen:
                    found = compiler.reports(each, target, only)
                    if found:
                        console.print(_kernel_table(each, target, found))
                    rows += [Inspected(each, one) for one in found]
            complete = True
        except KeyboardInterrupt:
            console.print("Interrupted. The results above are kept.")
        finally:
            compiler.close()
        status = _conclude(console, rows, chosen, targets, registry)
        write_json(_json(rows, targets, registry.problems, complete))
    raise typer.Exit(status if complete else INTERRUPTED)


class _Compiler:
    """A child process that compiles variants. If a plugin ends it, that costs one report, and the next one starts."""

    def __init__(self, plugins: Sequence[str], console: Console) -> None:
        self._plugins, self._console = plugins, console
        self._child: Child | None = None
        self._note: Callable[[Any], None] = lambda phase: None
        self._death = ""

    def names(self, implementation: Implementation) -> list[str]:
        """The names of all variants; none if naming them fails, which `reports` says."""
        found = self._ask("names", implementation)
        return [] if found is None else found

    def reports(
        self, implementation: Implementation, target: Architecture, only: Container[str] | None = None
    ) -> list[KernelReport]:
        """The reports on all variants, or on those whose names are in ``only``."""
        name, variant = f"{implementation.operation} {implementation.name}, {target.name}", "variants()"
        with self._console.status(name) as status:  # shown on a terminal only

            def note(phase: Any) -> None:
                nonlocal variant
                if isinstance(phase, tuple):
                    variant = " ".join(map(str, phase))
                    status.update(f"{name}: {variant}")

            self._note = note
            found: list[KernelReport] | None = self._ask("reports", implementation, target, only)
            if found is None:
                return [KernelReport(variant, target.name, "error", self._death)]
            return found

    def _ask(self, question: str, implementation: Implementation, *more: Any) -> Any:
        """The child's answer; None if it died, and then ``_death`` says how."""
        from ..execution.child import Child, Died  # here, because `--help` needs no multiprocessing

        try:
            if self._child is None:
                environment = {**os.environ, PLUGINS_VARIABLE: ",".join(self._plugins)}
                self._child = Child(_compile_in_child, None, environment, lambda phase: self._note(phase))
            of = implementation.operation, implementation.name
            return self._child.ask(question, *of, *more, seconds=VARIANT_SECONDS, renew=True)
        except Died as death:
            self.close()
            self._death = str(death)
            return None

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.end()
            self._child = None


def _compile_in_child(connection: "Connection", argument: None) -> None:
    from ..execution.child import answer_all

    registry = load_registry()

    def answer(question: str, operation: str, name: str, *more: Any) -> list[str] | list[KernelReport]:
        (one,) = (each for each in registry.implementations_of(operation) if each.name == name)
        if question == "names":
            return _names_of(one)
        target, only = more
        return reports_on(one, target, only, lambda variant: connection.send(("phase", (str(variant.name),))))

    answer_all(connection, answer)


def _names_of(implementation: Implementation) -> list[str]:
    try:
        return [each.name for each in implementation.variants()]
    except (Exception, SystemExit):
        return []


def reports_on(
    implementation: Implementation,
    target: Architecture,
    only: Container[str] | None = None,
    announce: Callable[[Variant], None] = lambda variant: None,
) -> list[KernelReport]:
    """The reports on all variants (or those named in ``only``), or one on the error of ``variants()``.

    Compiles in this process.
    """
    try:
        variants = [each for each in implementation.variants() if only is None or each.name in only]
        return inspect_variants(variants, target, announce)
    except ToolMissing:
        raise
    except (Exception, SystemExit) as error:
        return [KernelReport("variants()", target.name, "error", describe_error(error))]


def _with_limits(target: Architecture, path: Path) -> Architecture:
    run = read_run(path)
    gpu = run.environment.get("gpu")
    if not run.ceilings or not gpu:
        raise ResultsError(f"--limits {path}: this run has no limits measured on a GPU; give a run of bench on one")
    return measured(target, run.ceilings, gpu, path.name)


def _named(compiler: "_Compiler", chosen: Sequence[Implementation], kernels: Sequence[str] | None) -> set[str] | None:
    """The names of the kernels that ``--case`` names; None for all."""
    if not kernels:
        return None
    names = [name for each in chosen for name in compiler.names(each)]
    return {names[place] for place in matching("kernel", names, kernels)}


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
