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
def chosen(mask, a, b):
    """The bits of ``a`` where ``mask`` is set, else those of ``b``."""
    return mask & a | inverted(mask) & b


@helper
def compare_bit(flips, undecided, threshold, drawn):
    """Compare one bit of every number with that of its threshold, after all higher bits: ``(flips, undecided)``.

    A spin flips if its number is less: the first bit that differs decides, and if it is the threshold's that is set,
    the spin flips. While a spin is undecided, its bit of ``flips`` means nothing.
    """
    return chosen(undecided, threshold, flips), undecided & inverted(threshold ^ drawn)
