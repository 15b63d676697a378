"""States of a machine: all of them in their order, and random spins to start from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..philox import Stream, random_words

SITES_OF_A_WORD = 64
"""Neighbouring sites of a row: 32 of either colour, in a word of the packed form of `boltzbench.kernels.ising`."""


def all_states(units: int, device: torch.device) -> Tensor:
    """All states of so many units, float64 (2**units, units): unit i is bit i of a state's number."""
    return states_between(0, 1 << units, units, device)


def states_between(first: int, end: int, units: int, device: torch.device) -> Tensor:
    """The states with the numbers from ``first`` to ``end``, float64 (end - first, units)."""
    return (torch.arange(first, end, device=device)[:, None] >> torch.arange(units, device=device) & 1).double()


def states_in_pieces(units: int, rows: int, device: torch.device) -> Iterator[Tensor]:
    """`all_states` in pieces of at most ``rows``, so that memory stays small."""
    for first in range(0, 1 << units, rows):
        yield states_between(first, min(first + rows, 1 << units), units, device)


def random_spins(
    height: int, width: int, lattices: int, *, seed: int, first_lattice: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Independent spins, each +1 with probability 1/2, packed as by `boltzbench.kernels.ising.pack_spins`.

    A word of spins is the first of the random words at step 0 of its colour's stream. Raises ValueError unless both
    sides are even and at least 2.
    """
    if height < 2 or width < 2 or height % 2 or width % 2:
        raise ValueError(f"height and width must be even and at least 2, got {height} x {width}")
    words = -(-width // SITES_OF_A_WORD)
    cells = height * words
    lattice = torch.arange(first_lattice, first_lattice + lattices, device=device)
    groups = 8 * (lattice[:, None] * cells + torch.arange(cells, device=device))
    present = torch.full((words,), (1 << 32) - 1, device=device)
    present[-1] >>= 32 * words - width // 2
    drawn = [random_words(groups, seed, 0, stream)[..., 0] for stream in (Stream.EVEN_SITES, Stream.ODD_SITES)]
    bits = torch.stack(drawn, dim=1).view(lattices, 2, height, words)
    return (bits & present).to(torch.int32)
