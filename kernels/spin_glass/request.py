"""What the backends are asked for: all sweeps of all walkers."""

from dataclasses import dataclass

from torch import Tensor

from .bonds import Bonds

PARTS = 8
"""Groups of four random words that a word of 32 walkers may draw: 32 bits for each."""


@dataclass(frozen=True)
class LaunchRequest:
    """``spins``: packed, contiguous, not empty, updated in place. ``table``: see `bonds.thresholds`, contiguous."""

    spins: Tensor
    bonds: Bonds
    table: Tensor
    seed: int
    first_sweep: int
    first_group: int
