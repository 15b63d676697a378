"""Every operation makes cases of other sizes (`--sizes`): the same as its own, and with references that hold."""

import itertools
from contextlib import suppress

import pytest
from boltzbench.harness import Case, Operation
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.api.messages import UsageError
from boltzbench.harness.discovery.axes import with_other_sizes
from boltzbench.harness.discovery.registry import OtherSizes, Registry
from support import operations
from support.devices import DEVICE


def made(operation: Operation, case: Case, **sizes: int) -> Case:
    """The case that ``--sizes`` makes like this one, with other sizes."""
    wanted = OtherSizes(({**case.sizes, **sizes},), (case.dtype,), (case.scenario,), (), "bench")
    (found,) = with_other_sizes(Registry({operation.name: operation}, (), ()), wanted).operations[operation.name].cases
    return found


@pytest.mark.parametrize("name", operations.names())
def test_cases_of_own_sizes_are_the_operations_own(name: str) -> None:
    operation = operations.registry().operations[name]
    own = [case for case in operation.cases if case.purpose == "bench"]
    assert [made(operation, case) for case in own if case.preset == "smoke"] == [
        case for case in own if case.preset == "smoke"
    ]
    assert [made(operation, case).label for case in own] == [case.label for case in own]


@pytest.mark.parametrize("name", operations.names())
def test_torch_agrees_in_cases_of_other_sizes(name: str) -> None:
    """Each axis of the first case by 1 or 2 larger, as far as the operation accepts it."""
    operation = operations.registry().operations[name]
    case, accepted = operation.cases[0], []
    for axis, more in itertools.product(case.sizes, (1, 2)):
        with suppress(UsageError):
            accepted.append(made(operation, case, **{axis: case.sizes[axis] + more}))
            assert accepted[-1].sizes == {**case.sizes, axis: case.sizes[axis] + more}
    for other in accepted:
        assert operation.cost(other).items
        found = check_case(operation, operations.implementation(name, "torch"), other, DEVICE, seeds=[other.seed])
        assert found.passed, f"{other.label}: {found.message}"
    assert accepted


def test_sizes_that_an_operation_refuses() -> None:
    found = {}
    for name, sizes in {
        "ising": {"height": 3},
        "spin_glass": {"spins": 8},
        "boltzmann_gibbs": {"units": 0},
        "parallel_tempering": {"rungs": 0},
        "annealed_langevin": {"steps": 0},
        "rbm_gibbs": {"sweeps": 0},
        "enumeration": {"visible": 30, "hidden": 30},
    }.items():
        operation = operations.registry().operations[name]
        with pytest.raises(UsageError) as caught:
            made(operation, operation.cases[0], **sizes)
        found[name] = str(caught.value)
    assert all("must be" in found[name] for name in found if name != "enumeration")
    assert "at most 2**22 states" in found["enumeration"]
