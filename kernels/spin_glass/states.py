"""Spins of many walkers: -1 and +1, or 32 walkers to a word.

Packed spins are int32 (n, walkers / 32): walker ``k`` has bit ``k % 32`` of word ``k // 32`` in the row of each spin, 1
for +1. Walkers come in multiples of 32.
"""

import torch
from torch import Tensor

from ..machines.packed_spins import WORD, pack_bits, unpack_bits

CHUNK = 1 << 16
"""Walkers whose spins are unpacked at a time for their energies."""


def pack_walkers(spins: Tensor) -> Tensor:
    """The packed form of ``spins``, -1 or +1 of any dtype, (walkers, n)."""
    if spins.ndim != 2 or len(spins) % WORD:
        raise ValueError(f"spins must have shape (walkers, n), walkers a multiple of {WORD}; got {tuple(spins.shape)}")
    return pack_bits((spins > 0).t().reshape(spins.shape[1], len(spins) // WORD, WORD))


def unpack_walkers(words: Tensor) -> Tensor:
    """int8 spins -1 or +1, (walkers, n), of what `pack_walkers` packed."""
    return (2 * unpack_bits(words).flatten(1).t() - 1).to(torch.int8)


def random_walkers(spins: int, walkers: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Packed spins of infinite temperature, from a generator of ``device``."""
    if walkers % WORD:
        raise ValueError(f"walkers must be a multiple of {WORD}, got {walkers}")
    shape = (spins, walkers // WORD)
    low, high = -(1 << 31), 1 << 31
    return torch.randint(low, high, shape, generator=generator, device=device, dtype=torch.int64).to(torch.int32)


def energies(words: Tensor, couplings: Tensor) -> Tensor:
    """``-sum_{i<j} J_ij s_i s_j`` of each walker: int32 (walkers,), of packed spins and couplings of whole numbers.

    In float32, which holds these sums exactly: couplings that `bonds_of` takes are small.
    """
    each = couplings.to(words.device, torch.float32)
    found = torch.empty(words.shape[1] * WORD, dtype=torch.int32, device=words.device)
    for first in range(0, words.shape[1], CHUNK // WORD):
        s = unpack_walkers(words[:, first : first + CHUNK // WORD]).float()
        found[first * WORD : first * WORD + len(s)] = (-0.5 * ((s @ each) * s).sum(1)).to(torch.int32)
    return found
