"""What a launch enqueues on a device besides its own kernels, which is timed with them: nothing, or what `STATED` says.

The launches of our kernels are left out: a case takes milliseconds, and neither the interpreter's operations on tensors
nor the emulator's are counted. Where the suite treats a GPU differently from a CPU, the GPU is rehearsed: values are
not checked, and the counted launch is captured, on another stream than the launch before it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from boltzbench.harness import Case, Implementation, Operation
from boltzbench.kernels import numbers
from boltzbench.kernels.common import prepared
from boltzbench.kernels.common.triton_runtime import INTERPRETS
from boltzbench.kernels.cuda_module import CudaModule
from support import operations
from support.replay import Recorder
from support.small_operations import CPU
from torch import Tensor

MOST_ITEMS = 1 << 22
"""Of the cost of a case."""

TABLES = "tables of exponentials are how the operation reads its weights; torch makes them, and adds the blocks' sums"
ALIGNED = "units that are no multiple of 16 are copied to rows of such a multiple, and both layers copied back"

STATED: dict[tuple[str, str, str], tuple[int, str]] = {
    **{
        ("enumeration", backend, scenario): (count, TABLES)
        for backend in ("cupy", "triton")
        for scenario, count in (("", 91), ("digits", 91), ("machine", 79))
    },
    **{
        ("rbm_gibbs", backend, precision): (3, ALIGNED)
        for backend in ("cupy", "triton")
        for precision in ("bf16", "bf16x3", "int8x3")
    },
}
"""The most torch operations of a launch, by operation, backend and scenario, and why a launch has them."""


def timed_cases(operation: Operation) -> list[Case]:
    """The cases of the scenarios and dtypes that are timed, as far as they are small."""
    timed = {(case.scenario, case.dtype) for case in operation.cases if case.purpose != "check"}
    items = ((case, operation.cost(case).items) for case in operation.cases)
    return [case for case, size in items if (case.scenario, case.dtype) in timed and 0 < size <= MOST_ITEMS]


OWN = [
    pytest.param(implementation, id=f"{implementation.operation} {implementation.name}")
    for implementation in operations.inspectable()
]


@contextmanager
def without_kernels() -> Iterator[list[object]]:
    """Launches of kernels do nothing but enter the list."""
    launched: list[object] = []

    def note(kernel: object, *args: Any, **kwargs: Any) -> None:
        launched.append(kernel)

    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(CudaModule, "launch", note))
        if INTERPRETS:
            from triton.runtime.interpreter import GridExecutor

            patches.enter_context(mock.patch.object(GridExecutor, "__call__", note))
        yield launched


@contextmanager
def as_captured_on_a_gpu() -> Iterator[None]:
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(numbers, "CHECKED_ON", ()))
        patches.enter_context(mock.patch.object(prepared, "is_capturing", return_value=True))
        patches.enter_context(mock.patch.object(prepared, "stream_number", return_value=1))
        patches.enter_context(mock.patch.object(Tensor, "pin_memory", lambda tensor: tensor.clone()))
        yield


def enqueued(launch: Callable[[], object]) -> list[str]:
    """The names of the torch operations of ``launch``, and of its reads by the host."""
    with ExitStack() as patches, Recorder() as recorder:
        for name in ("tolist", "numpy"):  # they read memory past the dispatcher
            read = getattr(Tensor, name)

            def noted(self: Tensor, *args: Any, name: str = name, read: Any = read, **kwargs: Any) -> Any:
                recorder.operations.append(name)
                return read(self, *args, **kwargs)

            patches.enter_context(mock.patch.object(Tensor, name, noted))
        launch()
    return recorder.operations


def most_enqueued(implementation: Implementation, cases: list[Case]) -> list[str]:
    found: list[str] = []
    for case in cases:
        with without_kernels() as launched:
            _, launch = operations.prepared(implementation, case)
            launch()  # as before a capture
            launched.clear()
            with as_captured_on_a_gpu():
                names = enqueued(launch)
        assert launched, f"{case.label} launches no kernel"
        found = max(found, names, key=len)
    return found


@pytest.mark.parametrize("implementation", OWN)
def test_a_launch_enqueues_its_kernels_and_what_is_stated(implementation: Implementation) -> None:
    if reason := implementation.unavailable(CPU):
        pytest.skip(reason)
    cases = timed_cases(operations.registry().operations[implementation.operation])
    wrong = []
    for scenario in {case.scenario: None for case in cases}:
        names = most_enqueued(implementation, [case for case in cases if case.scenario == scenario])
        key = implementation.operation, implementation.name, scenario
        stated, _ = STATED.get(key, (0, ""))
        if len(names) != stated:
            wrong.append(f"{key}: {len(names)} instead of {stated}, namely {' '.join(names)}")
    assert not wrong, "a launch has other torch operations than STATED says:\n" + "\n".join(wrong)


def test_every_statement_is_about_a_case_that_is_timed() -> None:
    timed = {
        (implementation.operation, implementation.name, case.scenario)
        for implementation in operations.inspectable()
        for case in timed_cases(operations.registry().operations[implementation.operation])
    }
    assert STATED.keys() <= timed


X = torch.arange(6.0)
COUNTED = {
    "a fill": (lambda: X.new_zeros(3), ["new_zeros"]),
    "a table of Python's numbers": (lambda: torch.tensor([1.0, 2.0]), ["lift_fresh"]),
    "a copy": (lambda: X[::2].contiguous(), ["clone"]),
    "an operation in place": (lambda: X.view(2, 3).add_(1), ["add_"]),
    "a number read": (lambda: X[0].item(), ["_local_scalar_dense"]),
    "a truth value read": (lambda: bool((X > 9).any()), ["gt", "any", "_local_scalar_dense"]),
    "a list read": (lambda: X.tolist(), ["tolist"]),
    "an array read": (lambda: X.numpy(), ["numpy"]),
    "views and memory": (lambda: (X.view(2, 3).t()[1:], torch.empty(3), torch.empty_like(X), X.detach()), []),
}


@pytest.mark.parametrize("what", COUNTED)
def test_operations_and_reads_are_counted(what: str) -> None:
    body, names = COUNTED[what]
    assert enqueued(body) == names
