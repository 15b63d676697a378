"""Judges an attack on the benchmark as `check` does, then as `bench` does, in milliseconds."""

import sys
import threading
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.api.operations import Agreement, Case, Implementation, Operation, Status
from boltzbench.harness.timing import tampering
from boltzbench.harness.timing.clocks import Clock
from boltzbench.harness.timing.cpu_clock import CpuClock
from boltzbench.harness.timing.launch_audit import FailedWhileTimed, LaunchAudit
from boltzbench.harness.timing.stopwatch import STANDARD
from boltzbench.harness.timing.work import Work

from .small_operations import CPU, Body, case, implementation, measure, scale_rightly, scale_with

SCALE = scale_with()
QUICK = replace(STANDARD, warm_up_seconds=0.002, shortest_seconds=0.03, longest_seconds=0.1)
CHECKED = 4
"""Launches of the agreement check: two for each of two seeds."""


@dataclass
class Outcome:
    agreement: Agreement
    suspicions: tuple[str, ...] = ()


class QuietClock(CpuClock):
    """Does not flush: reading 100 MB for each sample would dominate the time of these tests. Says nothing of the load
    of the machine, which would have blocks taken again."""

    def state(self, first_sample: int) -> None:
        return None

    def _flush(self) -> None:
        pass


def outcome(
    candidate: Implementation,
    operation: Operation = SCALE,
    where: Case | None = None,
    *,
    clock: Clock | None = None,
    timed_only: bool = False,
    **keywords: Any,
) -> Outcome:
    """The result of a check as `check` does it, then of timing, by default on a clock that no load disturbs."""
    where, clock = where or case(), clock or SteadyClock()
    agreement = check_case(operation, candidate, where, CPU, (0, 1))
    if not agreement.passed:
        assert not timed_only, f"rejected by the check already: {agreement.message}"
        return Outcome(agreement)
    try:
        measurement = measure(operation, candidate, where, CPU, protocol=QUICK, clock=clock, **keywords)
    except FailedWhileTimed as lost:
        return Outcome(lost.agreement)
    return Outcome(agreement, measurement.suspicions)


def rejected_while_timed(body: Body, **keywords: Any) -> str:
    found = outcome(implementation(body), timed_only=True, **keywords)
    assert not found.agreement.passed
    assert found.agreement.status is Status.WRONG_VALUES
    return found.agreement.message


def honest_for(calls: int, then: Body, at_first: Body = scale_rightly) -> Body:
    """Behaves as ``at_first`` for this many launches, later as ``then``."""
    counter = count()
    return lambda inputs, outputs: (at_first if next(counter) < calls else then)(inputs, outputs)


class FakeTime:
    """A host's clock that advances only on request."""

    nanoseconds = 0

    def spend(self, seconds: float) -> None:
        self.nanoseconds += round(seconds * 1e9)

    def read(self) -> int:
        return self.nanoseconds

    def clock(self) -> QuietClock:
        return QuietClock(self.read, self.read)


class SteadyClock(QuietClock):
    """Says that each launch takes 0.1 ms and that nothing else takes time, for tests that do not judge times."""

    def __init__(self) -> None:
        self._host = FakeTime()
        super().__init__(self._host.read, self._host.read)

    def sample(self, work: Work, count: int) -> list[float]:
        def launch() -> None:
            work.launch()
            self._host.spend(1e-4)

        return super().sample(replace(work, launch=launch), count)


def ignore_present_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no thread of the test runner count as one that works between the launches."""
    present, seconds_of_threads = {each.native_id for each in threading.enumerate()}, tampering._seconds_of_threads

    def seconds_of_new_threads() -> dict[int, float]:
        return {number: seconds for number, seconds in seconds_of_threads().items() if number not in present}

    monkeypatch.setattr(tampering, "_seconds_of_threads", seconds_of_new_threads)


def audit_on_the_stack() -> LaunchAudit | None:
    """What a launch finds that walks the stack of its callers."""
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
        if isinstance(found := frame.f_locals.get("self"), LaunchAudit):
            return found
    return None
