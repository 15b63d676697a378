"""Small integer couplings as bonds of strength 1: the tables of the kernels that add bonds in bit planes."""

from dataclasses import dataclass

import torch
from torch import Tensor

RULES = ("heat_bath", "metropolis")
BONDS = (4, 7, 15, 31)
"""The most bonds of a spin for which there are kernels."""
CLASSES = {"heat_bath": (3, 4, 8, 16), "metropolis": (2, 4, 8, 16)}
"""For each of `BONDS`, the number of classes of each rule. A class is a cost of a flip: see `thresholds`."""
MOST_CLASSES = 16
FEWEST = 4
"""The fewest bonds of a spin after padding."""
MOST_BONDS = 2**16
"""The kernels count the satisfied bonds of a glass, each for both of its spins, in 17 bit planes."""


@dataclass(frozen=True)
class Bonds:
    """``pairs`` int32 (n, m, 2): bonds of strength 1, each ``2 neighbour + (J > 0)``.

    A coupling of strength k makes k bonds. Rows are padded with bonds of a spin with itself, which are never satisfied.
    ``starts`` int32 (n,): ``2 (-1 - B // 2) + B % 2`` for a spin with B bonds. Adding the number of satisfied bonds to
    ``-1 - B // 2`` gives c: a flip costs ``4 (c + 1)``, or ``4 (c + 1) - 2`` if B is odd. It raises the energy if and
    only if c is not negative. ``size`` is the index of the fewest `BONDS` that suffice. ``total`` is the number of
    bonds of the glass.
    """

    pairs: Tensor
    starts: Tensor
    size: int
    total: int


def bonds_of(couplings: Tensor, device: torch.device) -> Bonds | None:
    """The tables of symmetric couplings, float64 (n, n) on the CPU, or None if they are no small integers.

    Small means at most 31 bonds of a spin, and fewer than `MOST_BONDS` in all.
    """
    strengths = couplings.abs()
    bonds_of_spins = strengths.sum(1)
    most = float(bonds_of_spins.max())
    longest = max(FEWEST, int(most) + int(most) % 2) if most <= BONDS[-1] else 0
    if not (longest and float(bonds_of_spins.sum()) < 2 * MOST_BONDS and torch.equal(couplings, couplings.round())):
        return None
    spin, neighbour = couplings.nonzero().unbind(1)
    strength = strengths[spin, neighbour].long()
    spin, bond = (each.repeat_interleave(strength) for each in (spin, 2 * neighbour + (couplings > 0)[spin, neighbour]))
    count = bonds_of_spins.long()
    place = torch.arange(len(spin), device="cpu") - (count.cumsum(0) - count)[spin]
    pairs = (2 * torch.arange(len(couplings), dtype=torch.int32, device="cpu"))[:, None].repeat(1, longest)
    pairs[spin, place] = bond.int()
    starts = (2 * (-1 - count // 2) + count % 2).int()
    size = next(index for index, bonds in enumerate(BONDS) if most <= bonds)
    return Bonds(pairs.view(len(count), -1, 2).to(device), starts.to(device), size, int(count.sum()) // 2)


def thresholds(temperatures: Tensor, rule: str) -> Tensor:
    """``2**32 p``, rounded, for the probability p of each class; the kernels compare it with a random 32-bit number.

    - Heat bath: ``p = 1 / (1 + exp(|dE| / T))`` that a spin ends against its field. Class k is ``|dE| = 4 k``, or
      ``4 k + 2`` for an odd number of bonds.
    - Metropolis: ``p = exp(-dE / T)`` of a flip that raises the energy. Class k is ``dE = 4 (k + 1)``, or
      ``4 (k + 1) - 2`` for an odd number of bonds.

    At most ``2**32 - 1``, as the uint32 bits in int32: (sweeps, 2, `MOST_CLASSES`), for an even and an odd number of
    bonds.
    """
    k = torch.arange(MOST_CLASSES, dtype=torch.float64, device=temperatures.device)
    heat = temperatures[:, None, None]
    if rule == "heat_bath":
        p = torch.sigmoid(-torch.stack((4 * k, 4 * k + 2)) / heat)
    else:
        p = torch.exp(-torch.stack((4 * (k + 1), 4 * (k + 1) - 2)) / heat)
    return (p * 2.0**32).round().clamp(max=2.0**32 - 1).to(torch.int64).to(torch.int32).contiguous()
