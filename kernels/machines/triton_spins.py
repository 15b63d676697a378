"""Multi-spin coding in Triton: comparing the random numbers of 32 spins with their thresholds, bit by bit."""

import triton.language as tl

from ..common.triton_runtime import helper
from .packed_spins import PARTS as _PARTS

PARTS = tl.constexpr(_PARTS)


@helper
def inverted(word):
    """``~word``, which Triton's interpreter does not support for unsigned numbers."""
    return word ^ 0xFFFFFFFF


@helper
def bit_mask(bit):
    """All bits of a word set if ``bit``, 0 or 1, is 1."""
    return (0 - bit).to(tl.uint32)


@helper
def any_bit(word):
    """Whether any word of the block has a bit set."""
    return tl.max((word != 0).to(tl.int32), axis=0) > 0


@helper
def compare_bit(flips, undecided, threshold, drawn):
    """Compare one bit of every number with that of its threshold, after all higher bits: ``(flips, undecided)``.

    A spin that is undecided flips if its bit is less, and stays undecided if it is equal.
    """
    return flips | (undecided & threshold & inverted(drawn)), undecided & inverted(threshold ^ drawn)
