"""The figures of a measurement, computed from its samples and from nothing else."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ..api.noise import median_noise
from ..api.operations import Cost
from .stopwatch import TimingProtocol, at_plateau

__all__ = ["figures", "median_noise", "unfinished"]

Stopped = Literal["noise", "plateau", "limit"]


def figures(samples: Sequence[float], cost: Cost) -> dict[str, Any]:
    """Percentiles, noise and rates: fields of a `Measurement`."""
    p10, median, p90 = (float(p) for p in np.percentile(samples, (10, 50, 90)))
    return {
        "median": median,
        "p10": p10,
        "p90": p90,
        "noise": median_noise(samples),
        "items_per_second": _per_second(cost.items, median),
        "unit": cost.unit,
        "bytes_per_second": _per_second(cost.bytes_read + cost.bytes_written, median),
        "flops_per_second": _per_second(cost.flops, median),
    }


def unfinished(
    samples: Sequence[float], seconds: float, protocol: TimingProtocol
) -> tuple[Stopped | None, tuple[str, ...]]:
    """What ended the sampling of blocks that took so many ``seconds`` altogether, or a suspicion if nothing should."""
    if len(samples) >= protocol.fewest_samples:
        if median_noise(samples) < protocol.noise:
            return "noise", ()
        if seconds >= protocol.shortest_until_plateau and at_plateau(samples):
            return "plateau", ()
    if len(samples) >= protocol.most_samples or seconds * (1 + 1 / len(samples)) > 0.9 * protocol.longest_seconds:
        return "limit", ()
    return None, (f"the sampling ended early, after {len(samples)} samples in {seconds:.2g} s",)


def _per_second(amount: int, seconds: float) -> float:
    return amount / seconds if seconds else math.inf
