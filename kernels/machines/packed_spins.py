"""Multi-spin coding in torch: one bit for each spin, 32 spins to a word, and 32 random bits for each spin."""

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..philox import Stream, random_words

WORD = 32
"""Spins in a word."""
PARTS = 8
"""Groups of four random words for a word of spins: 32 bits for each spin."""

REAL_DTYPES = (
    torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8,
)  # fmt: skip
"""The dtypes of spins that are packed, and of couplings."""


def require_spins(spins: Tensor) -> None:
    """Raise TypeError unless ``spins`` is a dense tensor that may hold spins to be packed: those with a bit are > 0."""
    require_tensor("spins", spins, (*REAL_DTYPES, torch.bool), None)


def mean_groups(spins: int) -> float:
    """Mean groups of four bits that are drawn until the numbers of all ``spins`` are decided: 3.22 for a warp's 1024.

    After t bits a spin is undecided with probability ``2^-t``.
    """
    return 1 + sum(1 - (1 - 2.0 ** (-4 * drawn)) ** spins for drawn in range(1, PARTS))


def pack_bits(bits: Tensor) -> Tensor:
    """int32 words (...) of ``bits`` 0 and 1, (..., 32); bit k of a word is element k."""
    return (bits.to(torch.int64) << torch.arange(WORD, device=bits.device)).sum(-1).to(torch.int32)


def unpack_bits(words: Tensor) -> Tensor:
    """The bits of int32 ``words`` (...): int32 0 and 1, (..., 32)."""
    return words[..., None] >> torch.arange(WORD, dtype=torch.int32, device=words.device) & 1


def random_numbers(words: Tensor, seed: int, step: int, stream: Stream) -> Tensor:
    """A 32-bit random number for each spin of each word: int64 (..., 32), for the words' numbers in the stream (...).

    Bit k of 32 successive random words, the most significant first, makes the number of spin k.
    """
    spin = torch.arange(WORD, device=words.device)
    numbers = torch.zeros((*words.shape, WORD), dtype=torch.int64, device=words.device)
    for part in range(PARTS):
        for drawn in random_words(words * PARTS + part, seed, step, stream).unbind(-1):
            numbers = numbers << 1 | drawn[..., None] >> spin & 1
    return numbers
