"""What the plugin of an operation would otherwise repeat: its two hooks, and the law that splitting changes nothing."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from boltzbench.harness import Agreement, Implementation, Inputs, Launch, Operation, Status, Tensors, hookimpl
from boltzbench.kernels.common.dispatch import BACKENDS, unavailable
from boltzbench.kernels.common.variants import variants_of
from torch import Tensor

Prepare = Callable[[str, Inputs, Tensors], Launch]
"""``prepare(backend, inputs, outputs)``: as `Implementation.prepare`, for any backend of the suite."""

Hook = Callable[[Callable[..., None]], None]


def operation_hooks(
    operation: Operation, prepare: Prepare, package: str, *kinds: str, note: str = ""
) -> tuple[Hook, Hook]:
    """``register_operations`` and ``register_implementations`` of a plugin with one operation.

    The kernels are those of ``package``, such as "boltzbench.kernels.sgld", with the variants of ``kinds`` (all if
    none is named). ``note`` describes the hand-written kernels in `boltzbench list`.
    """

    @hookimpl
    def register_operations(register: Callable[[Operation], None]) -> None:
        register(operation)

    @hookimpl
    def register_implementations(register: Callable[[Implementation], None]) -> None:
        for implementation in implementations(operation.name, prepare, package, *kinds, note=note):
            register(implementation)

    return register_operations, register_implementations


def implementations(
    operation: str, prepare: Prepare, package: str, *kinds: str, note: str = ""
) -> Iterator[Implementation]:
    """One for each backend: see `operation_hooks`."""
    for backend in BACKENDS:
        yield Implementation(
            operation,
            backend,
            backend,
            partial(prepare, backend),
            partial(unavailable, backend),
            variants=partial(variants_of, backend, package, *kinds),
            note="" if backend == "torch" else note,
        )


def same_bits(whole: Tensors, split: Mapping[str, Tensors]) -> Agreement:
    """The verdict of a law that the results do not depend on how the work is split over calls.

    ``split`` holds the results of each way to split it, by a description such as "three calls of one sweep"; of each
    the tensors named in ``whole`` are compared, and every bit must be the same.
    """
    for how, results in split.items():
        for name, expected in whole.items():
            wrong = _differing(expected, results[name])
            if wrong:
                message = f"{name}: {wrong} of {expected.numel()} elements differ after {how}"
                return Agreement(Status.WRONG_LAW, message, error=float(wrong), bound=0.0)
    return Agreement(Status.PASSED, error=0.0, bound=0.0)


def _differing(a: Tensor, b: Tensor) -> int:
    return int((a != b).sum()) if a.shape == b.shape else max(a.numel(), b.numel())
