"""What `check`, `bench` and `run` share: the plan, the place of the trials, and the end of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..api.operations import Cost, Implementation, Status
from ..api.records import Measurement, Record, Run
from ..discovery.registry import Registry, load_registry
from ..execution.plan import Mode, Purpose, Step, plan
from ..execution.process import prepare_to_load_plugins
from ..report import tables
from .options import INTERRUPTED
from .progress import Display

if TYPE_CHECKING:  # slow to import, and `list` and `--help` do not need them
    import torch

    from ..execution.trial import TrialProtocol
    from ..execution.worker import Workers

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
) -> tuple[Registry, list[Step]]:
    """Load the plugins and plan the steps of the selected operations and implementations."""
    prepare_to_load_plugins(device)
    registry = load_registry()
    selection = registry.select(operations or (), implementations or ())
    return registry, plan(selection, purposes, preset, seed)


def build_ahead(steps: Sequence[Step], device: torch.device, display: Display) -> None:
    """Compile at once, on all cores, what implementations of the steps would compile one after another."""
    implementations = {(step.operation.name, step.implementation.name): step.implementation for step in steps}
    builds = {each.build for each in implementations.values() if each.build and _is_available(each, device)}
    if builds:
        with display.building(len(builds)), ThreadPoolExecutor(os.cpu_count()) as pool:
            for build in builds:
                pool.submit(build)


def _is_available(implementation: Implementation, device: torch.device) -> bool:
    try:
        return implementation.unavailable(device) is None
    except (Exception, SystemExit):  # its check reports it
        return False


@contextmanager
def workers_for(
    device: torch.device, display: Display, time_limit: float, registry: Registry, *, shared: bool = False
) -> Iterator[Workers]:
    """Worker processes that end with the context; if ``shared``, one at a time for all implementations."""
    from ..execution.worker import Workers

    workers = Workers(device, display.phase, time_limit, registry.loaded, shared=shared)
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
) -> None:
    """Run the session, and show its progress."""
    from ..execution import session  # imported late: scipy is slow to load

    session.carry_out(steps, device, trial_of, draws=draws, modes=modes, share=share, keep=keep, display=display)


def conclude(console: Console, run: Run, planned: int) -> int:
    """Print failures, plugin problems and the closing line; return the exit status."""
    console.print(tables.failure_details(run.records))
    console.print(tables.problem_lines(run.problems))
    console.print(tables.closing_line(run.records, run.problems), soft_wrap=True)
    if run.status == "incomplete":
        console.print(f"Interrupted after {len(run.records)} of {planned} checks. The results above are kept.")
        return INTERRUPTED
    agree = not tables.failed_records(run.records) and any(record.status is Status.PASSED for record in run.records)
    return 0 if agree and not run.problems else 1
