"""The launch request of the backends: all sweeps of all walkers."""

from dataclasses import dataclass

from torch import Tensor

from .prepared import PreparedGlass, PreparedSchedule


@dataclass(frozen=True)
class LaunchRequest:
    """``spins`` and ``out``: packed int32 (n, walkers / 32), contiguous, not empty. ``energies``: float64 (walkers,).

    ``out`` and ``energies`` are written. Where the glass has bonds, the kernels add them in bit planes; otherwise they
    sum the links. ``rule`` is one of `bonds.RULES`, and ``first_walker`` a multiple of 32.
    """

    spins: Tensor
    out: Tensor
    energies: Tensor
    glass: PreparedGlass
    schedule: PreparedSchedule
    rule: str
    seed: int
    first_sweep: int
    first_walker: int
