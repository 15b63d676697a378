"""The smallest check case of every operation, with every implementation that runs on this machine."""

import math

import pytest
from boltzbench.harness import Case, Implementation, Operation, Status
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.kernels.common import dispatch
from support import operations
from support.devices import DEVICE


def smallest(operation: Operation) -> Case:
    """The check case with the fewest elements among those without an empty dimension."""
    cases = [case for case in operation.cases if case.purpose == "check" and all(case.sizes.values())]
    return min(cases, key=lambda case: (math.prod(case.sizes.values()), case.label))


@pytest.mark.parametrize(
    "implementation", operations.registry().implementations, ids=lambda each: f"{each.operation} {each.name}"
)
def test_agrees(implementation: Implementation) -> None:
    reason = implementation.unavailable(DEVICE)
    if reason is not None:
        pytest.skip(reason)
    operation = operations.registry().operations[implementation.operation]
    case = smallest(operation)
    agreement = check_case(operation, implementation, case, DEVICE, seeds=[case.seed])
    if agreement.status is Status.UNAVAILABLE and implementation.name not in dispatch.BACKENDS:  # a baseline may refuse
        pytest.skip(f"{case.label}: {agreement.message}")
    assert agreement.passed, f"{case.label}: {agreement.message}"
