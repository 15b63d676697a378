"""Algorithms over many processes, which `boltzbench distributed` compares with one process and times."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Ranks(Protocol):
    """This process among ``size`` that work together; ``rank`` is its number."""

    rank: int
    size: int

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks in their order, on every rank; each waits for the others."""
        ...


@dataclass(frozen=True)
class DistributedRun:
    """An algorithm in its first state.

    - ``advance(steps)``: go on by some steps.
    - ``result()``: what must have the same bits for every number of ranks, the same on each of them.
    - ``bytes_per_step``: the bytes that this rank sends in a step.
    - ``expected_seconds(alone)``: the seconds of a step on these ranks by a cost model, from those on one rank alone.
    """

    advance: Callable[[int], None]
    result: Callable[[], Tensor]
    bytes_per_step: float
    expected_seconds: Callable[[float], float]


@dataclass(frozen=True)
class DistributedAlgorithm:
    """An algorithm over the ranks of `torch.distributed`, at a size that takes milliseconds for each of ``steps``.

    - ``join(timeout=seconds)``: a context of ``(ranks, device)``, in which this process is one of the ranks, such as
      `boltzbench.kernels.distributed.join`. Algorithms with the same ``join`` share it.
    - ``start(ranks, device)``: a `DistributedRun` on these `Ranks`, or with None on this process alone.

    Both raise ValueError or RuntimeError with a sentence, on every rank, if something does not fit or a rank is lost.
    """

    name: str
    summary: str
    step: str
    steps: int
    join: Callable[..., AbstractContextManager[tuple[Any, torch.device]]]
    start: Callable[[Any, torch.device], DistributedRun]
    plugin: str = ""
