"""Helpers of operation plugins: the pair of hooks, and a verdict that results do not depend on how work is split."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from boltzbench.harness import Agreement, Case, Implementation, Inputs, Launch, Operation, Status, Tensors, hookimpl
from boltzbench.kernels.common.dispatch import automatic, backends_of, build_all, unavailable
from boltzbench.kernels.common.variants import PackageVariants
from torch import Tensor

Prepare = Callable[[str, Inputs, Tensors], Launch]
"""``prepare(backend, inputs, outputs)``: `Implementation.prepare` with the backend as its first argument."""

Hook = Callable[[Callable[..., None]], None]


def operation_hooks(
    operation: Operation, prepare: Prepare, package: str, *kinds: str, note: str = ""
) -> tuple[Hook, Hook]:
    """``register_operations`` and ``register_implementations`` of a plugin with one operation.

    ``package`` holds the kernels, such as "boltzbench.kernels.sgld". ``kinds`` selects their variants; without it, all
    variants are meant. ``note`` describes the hand-written kernels in `boltzbench list`.
    """

    @hookimpl
    def register_operations(register: Callable[[Operation], None]) -> None:
        register(replace(operation, automatic=partial(automatic, package=package)))

    @hookimpl
    def register_implementations(register: Callable[[Implementation], None]) -> None:
        for implementation in implementations(operation.name, prepare, package, *kinds, note=note):
            register(implementation)

    return register_operations, register_implementations


def implementations(
    operation: str, prepare: Prepare, package: str, *kinds: str, note: str = ""
) -> Iterator[Implementation]:
    """An implementation for each backend; the arguments are those of `operation_hooks`."""
    for backend in backends_of(package):
        yield Implementation(
            operation,
            backend,
            backend,
            partial(prepare, backend),
            partial(unavailable, backend),
            variants=PackageVariants(backend, package, kinds),
            note="" if backend == "torch" else note,
            build=_build(package) if backend == "native" else None,
        )


@functools.cache
def _build(package: str) -> Callable[[], None]:
    """One object for all operations of a package, so that the harness builds it once."""
    return partial(build_all, package)


def moved(first: int, case: Case) -> int:
    """The number of the first step or sweep of a case: ``first``, moved on by the seed, so that each launch of a timing
    draws other random numbers."""
    return first + case.seed % (1 << 20)


def same_bits(whole: Tensors, split: Mapping[str, Tensors]) -> Agreement:
    """Whether each split run has the same bits as the whole run, in every tensor named in ``whole``.

    ``split`` maps a description of the split, such as "three calls of one sweep", to its results.
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
