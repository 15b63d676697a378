"""A half sweep of the Ising model in torch, spin by spin: the reference for the bit-sliced kernels."""

import torch
from torch import Tensor

from ..machines.packed_spins import random_numbers
from .request import STREAMS, LaunchRequest
from .states import pack_spins, unpack_spins


def draw_numbers(half: LaunchRequest) -> Tensor:
    """The 32-bit random number of each site of the colour: int64 (lattices, height, width / 2)."""
    lattices, _, height, words = half.spins.shape
    device = half.spins.device
    word = half.first_word + torch.arange(lattices * height * words, device=device).view(lattices, height, words)
    return random_numbers(word, half.seed, half.step, STREAMS[half.colour]).flatten(-2)[..., : half.width // 2]


def half_sweep(half: LaunchRequest) -> None:
    """Write the spins of the colour to ``half.spins``."""
    colours = (half.around, half.own) if half.colour else (half.own, half.around)
    spins = unpack_spins(torch.stack([words[:, k] for k, words in enumerate(colours)], 1), half.width)
    lattices, height, width = spins.shape
    neighbours = [spins.roll(1, 1), spins.roll(-1, 1), spins.roll(1, 2), spins.roll(-1, 2)]
    classes = half.thresholds.shape[1]
    if classes == 10:
        kind = torch.stack([each > 0 for each in neighbours]).sum(0) + 5 * (spins > 0)
    else:
        kind = torch.stack([each * spins * half.satisfied > 0 for each in neighbours]).sum(0)
    certain = torch.full((lattices, 3), 1 << 32, device=spins.device)
    table = torch.cat((certain, half.thresholds), 1) if classes == 2 else half.thresholds
    of = (kind - 2).abs() if classes == 3 else kind
    threshold = table.gather(1, of.view(lattices, -1)).view_as(kind)
    column = torch.arange(width, device=spins.device)
    mine = (torch.arange(height, device=spins.device)[:, None] + column) % 2 == half.colour
    numbers = draw_numbers(half).repeat_interleave(2, -1)  # site k of a row is in column 2 k or 2 k + 1
    flips = numbers < threshold
    if classes == 3:
        flips = flips ^ (kind <= 2)
    rows = slice(half.first_row, half.first_row + half.rows)
    half.spins[:, half.colour, rows] = pack_spins(torch.where(mine & flips, -spins, spins))[:, half.colour, rows]
