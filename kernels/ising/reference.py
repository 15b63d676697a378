"""Half a sweep of the Ising model in torch, spin by spin: what the bit-sliced kernels are held to."""

import torch
from torch import Tensor

from ..philox import random_words
from .request import PARTS, STREAMS, LaunchRequest
from .states import WORD, pack_spins, unpack_spins


def draw_numbers(half: LaunchRequest) -> Tensor:
    """The 32-bit random number of each site of the colour: int64 (lattices, height, width / 2).

    Its bits are bit k of 32 successive random words, the most significant first, for the spin at bit k of its word.
    """
    lattices, _, height, words = half.spins.shape
    device = half.spins.device
    lattice = torch.arange(half.first_lattice, half.first_lattice + lattices, device=device)
    word = lattice[:, None, None] * (height * words) + torch.arange(height * words, device=device).view(height, words)
    site = torch.arange(half.width // 2, device=device)
    numbers = torch.zeros((lattices, height, len(site)), dtype=torch.int64, device=device)
    for part in range(PARTS):
        for drawn in random_words(word * PARTS + part, half.seed, half.step, STREAMS[half.colour]).unbind(-1):
            numbers = numbers << 1 | drawn[..., site // WORD] >> site % WORD & 1
    return numbers


def half_sweep(half: LaunchRequest) -> None:
    """Update ``half.spins`` in place."""
    spins = unpack_spins(half.spins, half.width)
    lattices, height, width = spins.shape
    neighbours = [spins.roll(1, 1), spins.roll(-1, 1), spins.roll(1, 2), spins.roll(-1, 2)]
    classes = half.thresholds.shape[1]
    if classes == 10:
        kind = torch.stack([each > 0 for each in neighbours]).sum(0) + 5 * (spins > 0)
    else:
        kind = torch.stack([each * spins * half.satisfied > 0 for each in neighbours]).sum(0)
    certain = torch.full((lattices, 3), 1 << 32, device=spins.device)
    table = torch.cat((certain, half.thresholds), 1) if classes == 2 else half.thresholds
    threshold = table.gather(1, kind.view(lattices, -1)).view_as(kind)
    column = torch.arange(width, device=spins.device)
    mine = (torch.arange(height, device=spins.device)[:, None] + column) % 2 == half.colour
    numbers = draw_numbers(half).repeat_interleave(2, -1)  # site k of a row stands at column 2 k or 2 k + 1
    half.spins.copy_(pack_spins(torch.where(mine & (numbers < threshold), -spins, spins)))
