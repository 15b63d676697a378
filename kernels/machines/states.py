"""Enumeration of all states of a small machine, and random spins as initial states."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..numbers import INT64_MAX, integer
from ..philox import Stream, random_words

SITES_OF_A_WORD = 64
"""In `boltzbench.kernels.ising` a word of 32 bits holds the sites of one colour among 64 neighbours in a row."""


def all_states(units: int, device: torch.device) -> Tensor:
    """All states of ``units`` units, float64 (2**units, units): unit i is bit i of the row number."""
    return states_between(0, 1 << units, units, device)


def states_between(first: int, end: int, units: int, device: torch.device) -> Tensor:
    """Rows ``first`` to ``end`` of `all_states`, float64 (end - first, units)."""
    return (torch.arange(first, end, device=device)[:, None] >> torch.arange(units, device=device) & 1).double()


def states_in_pieces(units: int, rows: int, device: torch.device) -> Iterator[Tensor]:
    """`all_states` in pieces of at most ``rows`` rows, to bound memory."""
    for first in range(0, 1 << units, rows):
        yield states_between(first, min(first + rows, 1 << units), units, device)


def random_spins(
    height: int,
    width: int,
    lattices: int,
    *,
    seed: int,
    first_lattice: int = 0,
    first_row: int = 0,
    rows: int | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Independent spins, each +1 with probability 1/2, packed as by `boltzbench.kernels.ising.pack_spins`.

    With ``rows``, these rows alone from ``first_row`` on: int32 (lattices, 2, rows, ceil(width / 64)).

    A word of spins is the first of the random words at step 0 of the stream ``INITIAL_SPINS``, with the colour's number
    in place of a tensor's. Raises ValueError unless both sides are even and at least 2.
    """
    height, width, lattices = integer("height", height, 2), integer("width", width, 2), integer("lattices", lattices)
    for name, side in (("height", height), ("width", width)):
        if side % 2:
            raise ValueError(f"{name} must be even, got {side}")
    first_row = integer("first_row", first_row, 0, height)
    rows = height - first_row if rows is None else integer("rows", rows, 0, height - first_row)
    words = -(-width // SITES_OF_A_WORD)
    first_lattice = integer("first_lattice", first_lattice, 0, INT64_MAX // (8 * height * words) - lattices)
    lattice = torch.arange(first_lattice, first_lattice + lattices, device=device)
    cell = torch.arange(first_row * words, (first_row + rows) * words, device=device)
    groups = 8 * (lattice[:, None] * (height * words) + cell)
    present = torch.full((words,), (1 << 32) - 1, device=device)
    present[-1] >>= 32 * words - width // 2
    drawn = [random_words(groups, seed, 0, Stream.INITIAL_SPINS, colour)[..., 0] for colour in (0, 1)]
    bits = torch.stack(drawn, dim=1).view(lattices, 2, rows, words)
    return (bits & present).to(torch.int32)
