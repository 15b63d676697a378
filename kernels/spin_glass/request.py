"""The launch request of the backends: all sweeps of all walkers."""

from dataclasses import dataclass

from torch import Tensor

from .bonds import Bonds


@dataclass(frozen=True)
class LaunchRequest:
    """``spins``: packed, contiguous, not empty, updated in place. ``table``: see `bonds.thresholds`, contiguous.

    ``heat_bath``: the rule of the table; otherwise it is Metropolis.
    """

    spins: Tensor
    bonds: Bonds
    table: Tensor
    heat_bath: bool
    seed: int
    first_sweep: int
    first_group: int
