"""A rehearsal of CUDA graphs on every implementation: capture, then write other values, replay, judge."""

import math
from dataclasses import replace

import pytest
from boltzbench.harness import Case, Implementation, Operation
from boltzbench.harness.api.records import Measurement
from boltzbench.harness.timing.stopwatch import STANDARD
from boltzbench.kernels.common.variants import PackageVariants
from support import operations
from support.replay import RehearsalClock
from support.small_operations import CPU, measure

ONCE = replace(
    STANDARD, warm_up_seconds=0.0, longest_warm_up_seconds=0.0, warm_up_calls=1, most_samples=1, samples_per_block=1
)
"""One sample, on other values than those of the capture, without time to prepare a second set of memory."""
ENOUGH = 1000
"""Products of sizes below this are left to other tests: one unit has no coupling to be out of date."""


def rehearsed(operation: Operation) -> list[Case]:
    """For each scenario and dtype that is timed, the smallest check case or smoke-sized bench case of `ENOUGH`."""
    timed = {(case.scenario, case.dtype) for case in operation.cases if case.purpose != "check"}
    chosen: dict[tuple[str, str], tuple[tuple[bool, int], Case]] = {}
    for case in operation.cases:
        key, size = (case.scenario, case.dtype), math.prod(case.sizes.values())
        if key in timed and size and case.purpose != "real" and case.preset == "smoke":
            rank = (size < ENOUGH, size if size >= ENOUGH else -size), case
            chosen[key] = min(chosen.get(key, rank), rank, key=lambda each: each[0])
    return [case for _, case in chosen.values()]


RUNS = [
    pytest.param(implementation, case, id=f"{implementation.operation} {implementation.name} {case.label}")
    for implementation in operations.registry().implementations
    if isinstance(implementation.variants, PackageVariants) and implementation.backend != "native"  # it has no graphs
    for case in rehearsed(operations.registry().operations[implementation.operation])
]


def rehearse(implementation: Implementation, case: Case) -> Measurement:
    """The measurement, or FailedWhileTimed."""
    if reason := implementation.unavailable(CPU):
        pytest.skip(reason)
    operation = operations.registry().operations[implementation.operation]
    on_gpu = replace(implementation, backend="rehearsed")  # a stopwatch refuses an emulated backend
    return measure(operation, on_gpu, case, CPU, protocol=ONCE, clock=RehearsalClock())


@pytest.mark.parametrize(("implementation", "case"), RUNS)
def test_graphs_give_the_results_of_new_values(implementation: Implementation, case: Case) -> None:
    measurement = rehearse(implementation, case)
    moves = operations.registry().operations[implementation.operation].moving
    assert (measurement.method, measurement.suspicions) == ("host" if moves else "graph", ())
