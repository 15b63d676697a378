"""Couplings as tables for the kernels: the bonds of each spin, and the thresholds of its flips at a temperature."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..numbers import integer

RULES = ("heat_bath", "metropolis")
BONDS = (4, 7, 15, 31)
"""The most bonds of a spin for which there are kernels."""
CLASSES = {"heat_bath": (3, 4, 8, 16), "metropolis": (2, 4, 8, 16)}
"""For each of `BONDS`, the number of classes of each rule. A class is a cost of a flip: see `thresholds`."""
FEWEST = 4
"""The fewest bonds of a spin after padding."""
MOST_TOTAL = 31
"""The largest sum of the magnitudes of a spin's couplings."""


@dataclass(frozen=True)
class Bonds:
    """``couplings`` float64 (n, n). ``pairs`` int32 (n, m, 2): bonds of strength 1, each ``2 neighbour + (J > 0)``.

    A coupling of strength k makes k bonds. Rows are padded with bonds of a spin with itself, which are never satisfied.
    ``starts`` int32 (n,): ``2 (-1 - B // 2) + B % 2`` for a spin with B bonds. Adding the number of satisfied bonds to
    ``-1 - B // 2`` gives c: a flip costs ``4 (c + 1)``, or ``4 (c + 1) - 2`` if B is odd. It raises the energy if and
    only if c is not negative. ``size`` is the index of the fewest `BONDS` that suffice.
    """

    couplings: Tensor
    pairs: Tensor
    starts: Tensor
    size: int

    def on(self, device: torch.device) -> "Bonds":
        """The same bonds, with the tensors for the kernels on ``device``."""
        return replace(self, pairs=self.pairs.to(device), starts=self.starts.to(device))


def bonds_of(couplings: Tensor) -> Bonds:
    """The tables of couplings (n, n) of any dtype. Raises ValueError unless they are symmetric integers, 0 on the
    diagonal."""
    if couplings.ndim != 2 or couplings.shape[0] != couplings.shape[1] or not len(couplings):
        raise ValueError(f"couplings must be a square matrix of at least one spin, got shape {tuple(couplings.shape)}")
    exact = couplings.detach().to("cpu", torch.float64)
    if bool(exact.diagonal().any()):
        raise ValueError("couplings must be 0 on the diagonal: a spin has no bond with itself")
    if not torch.equal(exact, exact.t()):
        raise ValueError("couplings must be symmetric")
    whole = exact.round()
    if not torch.equal(whole, exact):
        raise ValueError("couplings must be whole numbers: scale couplings and temperatures, then round the couplings")
    totals = whole.abs().sum(1)
    if float(totals.max()) > MOST_TOTAL:
        spin = int(totals.argmax())
        raise ValueError(
            f"couplings of a spin must not add up to more than {MOST_TOTAL}, got {totals[spin]:.0f} for spin {spin}"
        )
    rows = [
        [2 * j + (row[j] > 0) for j in row.nonzero()[:, 0].tolist() for _ in range(int(row[j].abs()))]
        for row in whole.to(torch.int64)
    ]
    longest = max(FEWEST, *(len(row) + len(row) % 2 for row in rows))
    filled = [row + [2 * i] * (longest - len(row)) for i, row in enumerate(rows)]
    most = int(totals.max())
    size = next(index for index, bonds in enumerate(BONDS) if most <= bonds)
    pairs = torch.tensor(filled, dtype=torch.int32).view(len(rows), longest // 2, 2)
    return Bonds(whole, pairs, (2 * (-1 - totals // 2) + totals % 2).to(torch.int32), size)


def thresholds(temperatures: Tensor, size: int, rule: str) -> Tensor:
    """``2**32 p``, rounded, for the probability p of each class; the kernels compare it with a random 32-bit number.

    - Heat bath: ``p = 1 / (1 + exp(|dE| / T))`` that a spin ends against its field. Class k is ``|dE| = 4 k``, or
      ``4 k + 2`` for an odd number of bonds.
    - Metropolis: ``p = exp(-dE / T)`` of a flip that raises the energy. Class k is ``dE = 4 (k + 1)``, or
      ``4 (k + 1) - 2`` for an odd number of bonds.

    At most ``2**32 - 1``, as the uint32 bits in int32: (sweeps, 2, classes), for an even and an odd number of bonds.
    """
    k = torch.arange(CLASSES[rule][size], dtype=torch.float64, device=temperatures.device)
    heat = temperatures[:, None, None]
    if rule == "heat_bath":
        p = torch.sigmoid(-torch.stack((4 * k, 4 * k + 2)) / heat)
    else:
        p = torch.exp(-torch.stack((4 * (k + 1), 4 * (k + 1) - 2)) / heat)
    return (p * 2.0**32).round().clamp(max=2.0**32 - 1).to(torch.int64).to(torch.int32).contiguous()


def lattice_glass(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Random couplings -1 and +1 on a torus: float64 (n, n), site (i, j) at ``i * width + j``.

    On a side of 2 the two bonds between a pair of sites add up; a side of 1 has none.
    """
    height, width = integer("height", height), integer("width", width)
    site = torch.arange(height * width).view(height, width)
    couplings = torch.zeros((height * width,) * 2, dtype=torch.float64)
    for side, length in enumerate((height, width)):
        signs = 2.0 * torch.randint(0, 2, (height * width,), generator=generator).double() - 1
        if length > 1:
            couplings.index_put_((site.flatten(), site.roll(-1, side).flatten()), signs, accumulate=True)
    return couplings + couplings.t()
