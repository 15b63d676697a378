"""What `check`, `bench` and `run` share: the plan, the place of the trials, and the end of a run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..api.messages import UsageError
from ..api.operations import Agreement, Case, Cost, Implementation, Operation, Status
from ..api.records import Control, LeftOut, Measurement, Record, Run, UsedDevice
from ..discovery.axes import parse_sizes
from ..discovery.registry import OtherSizes, Registry
from ..execution.catalogue import read_catalogue
from ..execution.plan import Mode, Purpose, Step, narrowed, plan
from ..execution.process import prepare_to_load_plugins
from ..report import tables
from ..results.earlier import timed_before
from ..results.environment import memory_bytes
from ..results.file import record_key
from .options import INTERRUPTED

if TYPE_CHECKING:  # slow to import, and `list` and `--help` do not need them
    import torch

    from ..execution.session import Display
    from ..execution.trial import TrialProtocol
    from ..execution.worker import Workers


@dataclass(frozen=True)
class Which:
    """The cases that a command is about: the words of its options, all empty for all."""

    sizes: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()


ALL = Which()
TIMED: tuple[Purpose, ...] = ("bench", "real")
DRAWS = 2
"""Number of seeds that `check` draws each case from. `bench`, with its larger cases, uses one."""


def default_preset(device: torch.device) -> str:
    """The preset of a benchmark if the user names none."""
    return "quick" if device.type == "cuda" else "smoke"


def roofline_share(
    ceilings: Mapping[str, float], environment: Mapping[str, Any]
) -> Callable[[Measurement, Cost], Measurement]:
    """Adds the share of the roofline to a measurement."""
    from ..timing.roofline import cache_bytes, with_share

    return partial(with_share, rates=ceilings, cache_bytes=cache_bytes(environment))


def plan_steps(
    device: torch.device,
    operations: Sequence[str] | None,
    implementations: Sequence[str] | None,
    purposes: tuple[Purpose, ...],
    preset: str,
    seed: int | None,
    which: Which = ALL,
    *,
    many: bool = False,
    pairs: bool = False,
) -> tuple[Registry, list[Step]]:
    """Read what the plugins register and plan the steps of the selected operations and implementations.

    ``many`` and ``pairs`` are as in `read_catalogue`. Raises UsageError if there are no such cases.
    """
    prepare_to_load_plugins(device)
    of = operations, implementations, purposes, preset, seed, which
    registry, steps = steps_of_plugins(str(device), *of, many=many, pairs=pairs)
    if which.sizes:
        _require_possible(steps, device)
    return registry, steps


def steps_of_plugins(
    device: str,
    operations: Sequence[str] | None,
    implementations: Sequence[str] | None,
    purposes: tuple[Purpose, ...],
    preset: str,
    seed: int | None,
    which: Which,
    *,
    many: bool = False,
    pairs: bool = False,
) -> tuple[Registry, list[Step]]:
    """What `plan_steps` returns, for any machine: whether its memory suffices is not asked."""
    other_sizes = None
    if which.sizes:
        of = which.dtypes, which.scenarios, tuple(operations or ())
        other_sizes = OtherSizes(parse_sizes(which.sizes), *of, "bench" if "bench" in purposes else "check")
    registry = read_catalogue(device, many=many, pairs=pairs, other_sizes=other_sizes)
    selection = registry.select(operations or (), implementations or ())
    steps = plan(selection, purposes, preset, seed)
    if other_sizes:
        return registry, narrowed(steps, which.cases)
    _require_cases_of(purposes, selection, steps, which.cases)
    return registry, narrowed(steps, which.cases, which.dtypes, which.scenarios)


def _require_cases_of(
    purposes: tuple[Purpose, ...],
    selection: Sequence[tuple[Operation, Sequence[Implementation]]],
    steps: Sequence[Step],
    labels: Sequence[str],
) -> None:
    """Raise UsageError for the label of a case that another command has, with the options that make one like it."""
    missing = {*labels} - {step.label for step in steps}
    this, other = ("bench", "check") if "bench" in purposes else ("check", "bench")
    for operation, _ in selection:
        for case in operation.cases:
            if case.label in missing:
                words = f"{case.label!r} of {operation.name} is a case of `{other}` alone"
                scenario = f" --scenario {shlex.quote(case.scenario)}" if case.scenario else ""
                sizes = ",".join(f"{name}={size}" for name, size in case.sizes.items())
                like = f"; `{this} -o {operation.name} --sizes {sizes} --dtype {case.dtype}{scenario}` has its sizes"
                raise UsageError(words + (like if operation.case else ""))


def _require_possible(steps: Sequence[Step], device: torch.device) -> None:
    """Raise UsageError for a case that is larger than the memory, or has nothing to time."""
    memory = memory_bytes(device)
    for step in steps:
        assert isinstance(step.subject, Case)
        try:
            cost = step.operation.cost(step.subject)
        except RuntimeError:  # its check says so
            continue
        place = f"--sizes: {step.operation.name}, {step.label}"
        needed = cost.bytes_read + cost.bytes_written
        if needed > memory:
            raise UsageError(
                f"{place} has {needed / 1e9:,.3g} GB of inputs and outputs, and {device} has {memory / 1e9:,.3g} GB "
                "of memory; choose smaller sizes"
            )
        if not cost.items and step.purpose == "bench":
            raise UsageError(f"{place} has no {cost.unit}, so nothing to time; choose sizes of at least 1")


def without_timed(
    steps: Sequence[Step], folder: Path, environment: Mapping[str, Any]
) -> tuple[list[Step], tuple[LeftOut, ...]]:
    """The steps without the cases that runs below ``folder`` have timed, all implementations; and what is left out.

    A case of which they have some is timed as a whole: its implementations take turns.
    """
    from ..execution.trial import record_of

    done = timed_before(folder, environment)
    left: list[Step] = []
    out: list[LeftOut] = []
    for _, group in groupby(steps, key=lambda step: (step.operation.name, step.purpose, step.label)):
        own = list(group)
        keys = [record_key(record_of(step, Agreement(Status.PASSED))) for step in own]
        if not all(key in done for key in keys):
            left += own
            continue
        out += [
            LeftOut("bench", each.operation.name, each.implementation.name, each.label, "unchanged", str(done[key]))
            for each, key in zip(own, keys, strict=True)
        ]
    return left, tuple(out)


@contextmanager
def turn_on(
    environment: Mapping[str, Any], console: Console, seconds: float | None = None, devices: Sequence[UsedDevice] = ()
) -> Iterator[None]:
    """The device, or several, for this run alone, after those that have it now; see `taking_turns`."""
    from ..timing.quiet import taking_turns

    gpus = [each.gpu for each in devices] or [environment.get("gpu")]
    names = {(gpu or {}).get("uuid") or "cpu" for gpu in gpus}
    with ExitStack() as stack:
        for name in sorted(names):  # in one order, so that no two runs wait for each other
            stack.enter_context(taking_turns(name, lambda words: console.print(words, soft_wrap=True), seconds))
        yield


@contextmanager
def workers_for(
    device: torch.device,
    announce: Callable[[Any], None],
    time_limit: float,
    registry: Registry,
    *,
    shared: bool = False,
    threads: int = 0,
) -> Iterator[Workers]:
    """Processes for trials, which end with the context."""
    from ..execution.worker import Workers

    workers = Workers(device, announce, time_limit, registry, shared=shared, threads=threads)
    try:
        yield workers
    finally:
        workers.close()


def carry_out(
    steps: Sequence[Step],
    device: torch.device,
    trial_of: Callable[[Step], TrialProtocol],
    display: Display,
    *,
    draws: int,
    keep: Callable[[Record], None],
    modes: Sequence[Mode] = (),
    share: Callable[[Measurement, Cost], Measurement] = lambda measurement, cost: measurement,
    keep_control: Callable[[Control], None] | None = None,
    controls: Sequence[Control] = (),
) -> None:
    """Run the session, and show its progress. ``controls`` are those that the run has already."""
    from ..execution import session  # imported late: scipy is slow to load

    session.carry_out(
        steps,
        device,
        trial_of,
        draws=draws,
        modes=modes,
        share=share,
        keep=keep,
        display=display,
        keep_control=keep_control,
        controlled={each.operation for each in controls},
    )


def conclude(console: Console, run: Run, planned: int) -> int:
    """Print failures, plugin problems and the closing line; return the exit status."""
    console.print(tables.failure_details(run.records))
    console.print(tables.problem_lines(run.problems))
    late = any(step.reason == "time" for step in run.left_out)
    console.print(tables.closing_line(run.records, run.problems, late), soft_wrap=True)
    if run.status == "incomplete":
        console.print(f"Interrupted after {len(run.records)} of {planned} checks. The results above are kept.")
        return INTERRUPTED
    agree = not tables.failed_records(run.records) and any(record.status is Status.PASSED for record in run.records)
    return 0 if agree and not run.problems else 1
