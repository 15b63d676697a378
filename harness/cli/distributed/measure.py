"""Runs an algorithm on all ranks and on one, compares the bits of the results, and times both."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from ...api.distributed import DistributedAlgorithm, Ranks

REPETITIONS = 5
"""Blocks of steps that are timed."""


@dataclass(frozen=True)
class Row:
    """What `measure` found. Times are medians over blocks of steps, of the slowest rank, in seconds per step."""

    algorithm: str
    summary: str
    step: str
    ranks: int
    same_bits: bool
    bytes_per_step: float
    seconds_alone: float
    seconds: float
    expected_seconds: float

    @property
    def efficiency(self) -> float:
        return self.seconds_alone / (self.ranks * self.seconds)

    @property
    def expected_efficiency(self) -> float:
        return self.seconds_alone / (self.ranks * self.expected_seconds)


def measure(algorithm: DistributedAlgorithm, ranks: Ranks, device: torch.device) -> Row:
    """All ranks call it and get the same row. While rank 0 works alone, the others wait for it."""
    run = algorithm.start(ranks, device)
    run.advance(algorithm.steps)
    result = run.result()
    same, alone_seconds = True, 0.0
    if ranks.rank == 0:
        alone = algorithm.start(None, device)
        alone.advance(algorithm.steps)
        wanted = alone.result()
        same = wanted.dtype == result.dtype and torch.equal(_bits(wanted), _bits(result))
        alone_seconds = median(_timed(alone.advance, algorithm.steps, device) for _ in range(REPETITIONS))
    seconds = []
    for _ in range(REPETITIONS):
        ranks.gather(torch.zeros(1))  # all begin together
        taken = _timed(run.advance, algorithm.steps, device)
        seconds.append(float(ranks.gather(torch.tensor([taken], dtype=torch.float64)).max()))
    numbers = [float(same), alone_seconds, run.bytes_per_step, run.expected_seconds(alone_seconds)]
    every = ranks.gather(torch.tensor([numbers], dtype=torch.float64))
    same_bits, alone_seconds = bool(every[0, 0]), float(every[0, 1])
    return Row(
        algorithm.name, algorithm.summary, algorithm.step, ranks.size, same_bits, float(every[:, 2].max()),
        alone_seconds, median(seconds), float(every[0, 3]),
    )  # fmt: skip


def _bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().flatten().view(torch.uint8)


def _timed(advance: Callable[[int], None], steps: int, device: torch.device) -> float:
    """Seconds of a step."""
    begin = time.perf_counter()
    advance(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - begin) / steps
