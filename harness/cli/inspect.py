"""The command `inspect`: compile kernels without a GPU, analyse their machine code, and predict their speed."""

import json
import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..api.messages import describe_error
from ..api.operations import Implementation, Variant
from ..discovery.registry import PLUGINS_VARIABLE, Registry, load_registry
from ..execution.catalogue import read_catalogue
from ..execution.plan import matching
from ..inspection import inputs
from ..inspection.architectures import ARCHITECTURES, Architecture, architecture, device, measured
from ..inspection.gate import differences, identity, verdict
from ..inspection.inputs import GivenKernel, KernelInputError, Said
from ..inspection.inspect import KernelReport, inspect_variants
from ..inspection.prediction import SPREAD
from ..inspection.tables import calibration_table, kernel_table, note, side_by_side
from ..inspection.tools import ToolMissing, tool
from ..report.tables import counted, problem_lines
from ..report.terminal import outputs
from ..results.environment import describe, resolve_device
from ..results.file import SCHEMA, ResultsError, read_run
from .options import INTERRUPTED, Implementations, Json, Operations

if TYPE_CHECKING:  # slow to import
    from multiprocessing.connection import Connection

    from ..execution.child import Child

Arch = Annotated[
    list[str] | None,
    typer.Option("--arch", metavar="NAME", help="sm_80, sm_89, sm_90 (the default), sm_100; repeatable."),
]
DeviceName = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="Predict for it: A100, H100, H200, B200, L4, RTX 4090.")
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
Calibrate = Annotated[
    bool, typer.Option("--calibration", help="Only show how far the predictions are from published measurements.")
]
_GIVEN = "A kernel that is not the suite's"
Cubin = Annotated[Path | None, typer.Option("--cubin", metavar="FILE", help="A cubin.", rich_help_panel=_GIVEN)]
Ptx = Annotated[Path | None, typer.Option("--ptx", metavar="FILE", help="A PTX file.", rich_help_panel=_GIVEN)]
Cuda = Annotated[Path | None, typer.Option("--cuda", metavar="FILE", help="A CUDA C++ file.", rich_help_panel=_GIVEN)]
Triton = Annotated[
    str | None,
    typer.Option("--triton", metavar="MODULE:FUNCTION", help="A triton.jit function.", rich_help_panel=_GIVEN),
]
Signature = Annotated[
    str,
    typer.Option(
        "--signature", metavar="TEXT", help="Of --triton: x=*fp32:16,n=i32,BLOCK=1024", rich_help_panel=_GIVEN
    ),
]
KernelName = Annotated[
    str,
    typer.Option(
        "--kernel",
        metavar="NAME",
        help="Symbol, or a part of it; in CUDA C++ an expression such as add<float>.",
        rich_help_panel=_GIVEN,
    ),
]
Threads = Annotated[
    int,
    typer.Option(
        "--threads",
        min=0,
        max=1024,
        metavar="N",
        help="Threads of a block.",
        show_default=False,
        rich_help_panel=_GIVEN,
    ),
]
Items = Annotated[
    int,
    typer.Option(
        "--items",
        min=0,
        metavar="N",
        help="Items of a thread in a pass of its loop.",
        show_default=False,
        rich_help_panel=_GIVEN,
    ),
]
BytesPerItem = Annotated[
    float,
    typer.Option(
        "--bytes-per-item", min=0, metavar="N", help="Read and written.", show_default=False, rich_help_panel=_GIVEN
    ),
]
SharedBytes = Annotated[
    int,
    typer.Option(
        "--shared-bytes", min=0, metavar="N", help="Dynamic shared memory.", show_default=False, rich_help_panel=_GIVEN
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against", metavar="BASE", help="Compare with JSON of `inspect`, or with another kernel: FILE or FILE::NAME."
    ),
]
FailOver = Annotated[
    str, typer.Option("--fail-over", metavar="PERCENT", help="Of --against: how much worse is tolerated.")
]

VARIANT_SECONDS = 600.0
"""Time limit for compiling one variant."""

_SUFFIXES = {".cubin": "cubin", ".ptx": "ptx", ".cu": "cuda"}


@dataclass(frozen=True)
class Inspected:
    """An implementation with the report on one of its kernels, or with the error of its ``variants()``."""

    implementation: Implementation
    report: KernelReport

    @property
    def place(self) -> str:
        return f"{self.implementation.operation} {self.implementation.name}, {self.report.arch}, {self.report.variant}"

    def record(self) -> dict[str, Any]:
        """The JSON record."""
        fields = asdict(self.report)
        return {
            "operation": self.implementation.operation,
            "implementation": self.implementation.name,
            "backend": self.implementation.backend,
            "case": fields.pop("variant"),
            "plugin": self.implementation.plugin,
            **fields,
        }


def inspect(
    operations: Operations = None,
    implementations: Implementations = None,
    kernels: Kernels = None,
    archs: Arch = None,
    device_name: DeviceName = None,
    limits: Limits = None,
    calibration: Calibrate = False,
    json_file: Json = None,
    cubin: Cubin = None,
    ptx: Ptx = None,
    cuda: Cuda = None,
    triton: Triton = None,
    signature: Signature = "",
    kernel: KernelName = "",
    threads: Threads = 0,
    items: Items = 0,
    bytes_per_item: BytesPerItem = 0.0,
    shared_bytes: SharedBytes = 0,
    against: Against = None,
    fail_over: FailOver = "5%",
) -> None:
    """Compile kernels without a GPU, analyse their machine code and predict their rate with its error."""
    given = {name: each for name, each in (("cubin", cubin), ("ptx", ptx), ("cuda", cuda), ("triton", triton)) if each}
    said = Said(kernel, threads, items, bytes_per_item, shared_bytes)
    _refuse_contradictions(
        given, said, signature, operations or implementations or kernels, archs, device_name, against
    )
    bound = _bound(fail_over)
    with outputs(json_file) as (console, write_json):
        if calibration:
            write_json(_show_calibration(console))
            raise typer.Exit
        targets = [device(device_name)] if device_name else [architecture(name) for name in dict.fromkeys(archs or [])]
        with_limits = _limits_of(limits) if limits else lambda target: target
        for name in ("nvdisasm", "cuobjdump"):
            tool(name)
        os.environ["TRITON_INTERPRET"] = "0"  # before a plugin imports Triton, which cannot compile interpreted kernels
        base = _read_records(Path(against)) if against and against.endswith(".json") else None
        if given:
            session = _Session(console, with_limits)
            [(kind, path)] = given.items()
            session.add_given(_load(kind, str(path), said, signature, targets), targets)
        else:
            session = _Session(console, with_limits, read_catalogue("cpu"))
            names = operations or (), implementations or (), kernels or ()
            session.add_registered(targets or [architecture("sm_90")], *names)
        status = session.conclude()
        write_json(session.json())
        if against:
            if base is None:
                base = _inspect_base(against, said, signature, session)
            status = max(status, _compare(console, base, session.rows, bound))
    raise typer.Exit(status if session.complete else INTERRUPTED)


def _refuse_contradictions(
    given: Mapping[str, Any],
    said: Said,
    signature: str,
    chosen: Sequence[str] | None,
    archs: Sequence[str] | None,
    device_name: str | None,
    against: str | None,
) -> None:
    """Raise KernelInputError for options that exclude each other."""
    if len(given) > 1:
        raise KernelInputError(f"--{' and --'.join(given)} name one kernel each: give one of them")
    if given and chosen:
        raise KernelInputError(f"--{next(iter(given))} is inspected alone: leave out -o, -i and --case")
    if not given and (said != Said() or signature):
        raise KernelInputError(
            "--kernel, --threads, --items, ... describe a kernel: give --cubin, --ptx, --cuda or --triton"
        )
    if signature and "triton" not in given:
        raise KernelInputError("--signature belongs to --triton")
    if device_name and archs:
        raise KernelInputError("--device says the architecture: leave out --arch")
    if given and archs and len(archs) > 1:
        raise KernelInputError(f"--{next(iter(given))} is compiled for one architecture: give --arch once")
    if said.bytes_per_item and not said.items:
        raise KernelInputError("--bytes-per-item needs --items, the number that a thread handles in a pass of its loop")
    where = (against or "x.json").partition("::")[0]
    if Path(where).suffix not in (".json", *_SUFFIXES) and ":" not in where:
        raise KernelInputError(f"--against {against}: give a .json, .cubin, .ptx or .cu file, or MODULE:FUNCTION")
    if not given and not where.endswith(".json"):
        raise KernelInputError(f"--against {against}: the suite's kernels are compared with JSON that `inspect` wrote")


def _bound(fail_over: str) -> float:
    from ..results.compare import parse_bound  # with scipy, which is slow to import

    try:
        return parse_bound(fail_over)
    except ValueError as error:
        raise KernelInputError(str(error)) from error


def _show_calibration(console: Console) -> str:
    from ..inspection.calibration import calibrate

    rows = calibrate()
    console.print(calibration_table(rows))
    return json.dumps([asdict(each) for each in rows], indent=1) + "\n"


def _load(kind: str, where: str, said: Said, signature: str, targets: Sequence[Architecture]) -> GivenKernel:
    """The kernel, for the architecture of ``targets`` or else its own (sm_90 where it has none)."""
    wanted = targets[0].name if targets else ""
    if kind == "cubin":
        return inputs.from_cubin(Path(where), said, wanted)
    if kind == "ptx":
        return inputs.from_ptx(Path(where), said, wanted)
    if kind == "cuda":
        return inputs.from_cuda(Path(where), said, wanted or "sm_90")
    return inputs.from_triton(where, signature, said, wanted or "sm_90")


def _inspect_base(against: str, said: Said, signature: str, session: "_Session") -> list[Mapping[str, Any]]:
    """The record of another kernel, compiled for the same architecture."""
    where, _, name = against.partition("::")
    target = session.targets[0]
    base = _Session(session.console, session.with_limits)
    kind = _SUFFIXES.get(Path(where).suffix, "triton")
    try:
        base.add_given(_load(kind, where, replace(said, kernel=name or said.kernel), signature, [target]), [target])
    except KernelInputError as error:
        raise KernelInputError(f"--against: {error}") from error
    return [row.record() for row in base.rows]


def _read_records(path: Path) -> list[Mapping[str, Any]]:
    try:
        records = json.loads(path.read_text())["records"]
        for each in records:
            differences(each, each)
            identity(each)
    except OSError as error:
        raise ResultsError(f"--against {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"--against {path}: this is no JSON that `inspect` wrote") from error
    return [*records]


def _compare(console: Console, base: Sequence[Mapping[str, Any]], rows: Sequence[Inspected], bound: float) -> int:
    """Print each pair of kernels and what is worse; return 1 if anything is, or if no kernel is in both."""
    new = [row.record() for row in rows]
    if len(base) == len(new) == 1:
        pairs = [(base[0], new[0])]
    else:
        known = {identity(each): each for each in base}
        pairs = [(known[identity(each)], each) for each in new if identity(each) in known]
    failures = []
    for was, is_now in pairs:
        name = f"{is_now['operation']} {is_now['implementation']}, {is_now['arch']}, {is_now['case']}"
        found = differences(was, is_now)
        worse = [each for each in found if each.fails(bound)]
        if worse or len(pairs) == 1:
            console.print(side_by_side(name, found, bound))
            if words := verdict(was, is_now):
                console.print(Text(words))
        failures += [f"worse: {name}: {each.what} {each.base} before, {each.new} now" for each in worse]
    missing = {identity(each) for each in base} - {identity(each) for each in new} if len(pairs) != 1 else set()
    if missing:
        console.print(Text(f"not inspected now: {counted(len(missing), 'kernel')} of the base", style="yellow"))
    for each in failures:
        console.print(Text(each, style="bold red"))
    if not pairs:
        console.print(Text("No kernel is in both: nothing was compared.", style="bold red"))
        return 1
    count = counted(len(pairs), "kernel")
    console.print(f"{count} compared: {len(failures) or 'nothing'} worse by more than {100 * bound:g}%.")
    return 1 if failures else 0


class _Session:
    """What one call inspects, and its output."""

    def __init__(
        self,
        console: Console,
        with_limits: Callable[[Architecture], Architecture],
        registry: Registry | None = None,
    ) -> None:
        self.console = console
        self.with_limits = with_limits
        self.problems: Sequence[str] = registry.problems if registry else ()
        self.registry = registry
        self.rows: list[Inspected] = []
        self.chosen: list[Implementation] = []
        self.targets: list[Architecture] = []
        self.given = False
        self.complete = False

    def add_registered(
        self,
        targets: Sequence[Architecture],
        operations: Sequence[str],
        implementations: Sequence[str],
        kernels: Sequence[str],
    ) -> None:
        """Inspect what the plugins registered; Ctrl-C ends it and keeps what there is."""
        assert self.registry is not None
        self.chosen = [each for _, found in self.registry.select(operations, implementations) for each in found]
        self.targets = [self.with_limits(each) for each in targets]
        compiler = _Compiler(self.registry.loaded, self.console)
        try:
            only = _named(compiler, self.chosen, kernels)
            for target in self.targets:
                for each in self.chosen:
                    self._show(each, target, compiler.reports(each, target, only))
            self.complete = True
        except KeyboardInterrupt:
            self.console.print("Interrupted. The results above are kept.")
        finally:
            compiler.close()

    def add_given(self, kernel: GivenKernel, targets: Sequence[Architecture]) -> None:
        """Inspect one kernel of the caller."""
        self.given = True
        target = targets[0] if targets else ARCHITECTURES.get(kernel.arch) or architecture(kernel.arch)
        self.targets = [self.with_limits(target)]
        implementation = Implementation("given", kernel.name, "given", lambda inputs, outputs: dict)
        found = inspect_variants([kernel], self.targets[0])
        self._show(implementation, self.targets[0], found)
        missing = [f"--{word}" for word, each in (("threads", kernel.threads), ("items", kernel.items)) if not each]
        if missing:
            words = (
                "without --threads there is no expected rate"
                if "--threads" in missing
                else "an item is a pass of a thread"
            )
            self.console.print(Text(f"not given: {', '.join(missing)}; {words}", style="yellow"))
        self.complete = True

    def _show(self, implementation: Implementation, target: Architecture, found: Sequence[KernelReport]) -> None:
        if found:
            title = f"{implementation.operation} {implementation.name}, {target.name}"
            self.console.print(kernel_table(title, found))
        self.rows += [Inspected(implementation, one) for one in found]

    def conclude(self) -> int:
        """Print failures in full, what was not inspected and the closing line; return the exit status."""
        inspected = {(row.implementation.operation, row.implementation.name) for row in self.rows}
        for target in self.targets:
            self.console.print(Text(note(target, SPREAD), style="dim"))
        left = [f"{each.operation} {each.name}" for each in self.chosen if (each.operation, each.name) not in inspected]
        if left:
            self.console.print(Text(f"no kernels to inspect: {', '.join(left)}", style="yellow"))
        failed = [row for row in self.rows if row.report.status != "passed"]
        for row in failed:
            self.console.print(Text(f"{row.report.status}: {row.place}: {row.report.message}", style="bold red"))
        self.console.print(problem_lines(self.problems))
        self.console.print(closing_line(self.rows))
        return 1 if failed or self.problems or not self.rows else 0

    def json(self) -> str:
        whole = {
            "schema": SCHEMA,
            "status": "complete" if self.complete else "incomplete",
            "environment": describe(resolve_device("cpu")),
            "architectures": [
                {**asdict(each), "rates": dict(each.rates), "matrix": dict(each.matrix)} for each in self.targets
            ],
            "records": [row.record() for row in self.rows],
            "problems": list(self.problems),
        }
        return json.dumps(whole, indent=1) + "\n"


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


def _limits_of(path: Path) -> Callable[[Architecture], Architecture]:
    """What replaces an architecture's documented rates by those that a run measured. Raises ResultsError."""
    run = read_run(path)
    gpu = run.environment.get("gpu")
    if not run.ceilings or not gpu:
        raise ResultsError(f"--limits {path}: this run has no limits measured on a GPU; give a run of bench on one")
    return lambda target: measured(target, run.ceilings, gpu, path.name)


def _named(compiler: "_Compiler", chosen: Sequence[Implementation], kernels: Sequence[str]) -> set[str] | None:
    """The names of the kernels that ``--case`` names; None for all."""
    if not kernels:
        return None
    names = [name for each in chosen for name in compiler.names(each)]
    return {names[place] for place in matching("kernel", names, kernels)}


def closing_line(rows: Sequence[Inspected]) -> str:
    """The result in one line."""
    failed = sum(row.report.status != "passed" for row in rows)
    kernels = counted(len(rows), "kernel")
    if not rows:
        return "Nothing was inspected: the selected implementations name no kernels."
    if failed:
        return f"{failed} of {kernels} failed: spills, accesses narrower than promised, or a compile error."
    return f"{kernels} compiled: no spills, and accesses as wide as promised."
