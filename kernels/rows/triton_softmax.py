"""Softmax sums in Triton: a row's sum of exponentials, and the probability of an element.

Sums are ``(peak, total)``: the largest element, and the sum of weights ``2**((x - peak) scale)``.
"""

import triton.language as tl

from ..common.triton_runtime import INTERPRETS, helper
from .triton_rows import power_of_two, shift_of

_INTERPRETS = tl.constexpr(INTERPRETS)


@helper
def rescale(total, peak, new_peak, scale):
    """``total``, a sum of exponentials shifted by ``peak``, as a sum shifted by ``new_peak``."""
    factor = power_of_two((peak - shift_of(new_peak)) * scale)
    return total * tl.where(peak == new_peak, 1.0, tl.where(peak == -float("inf"), 0.0, factor))


@helper
def add(z, mask, sums, scale, MASKED: tl.constexpr):
    """Add the elements ``z``, (CHUNK, ROWS, LANES, WIDTH), to the sums of their lanes, (ROWS, LANES)."""
    peak, total = sums
    seen = tl.where(mask, z, -float("inf")) if MASKED else z
    new_peak = tl.maximum(peak, tl.max(tl.max(seen, axis=0), axis=2))
    terms = power_of_two((z - shift_of(new_peak)[None, :, :, None]) * scale)
    if MASKED:  # at beta = 0 the weight of an absent element would be 0 * -inf = NaN
        terms = tl.where(mask, terms, 0.0)
    return new_peak, rescale(total, peak, new_peak, scale) + tl.sum(tl.sum(terms, axis=0), axis=2)


@helper
def merge(sums, others, scale):
    """The sums of two sets of elements."""
    peak, total = sums
    other_peak, other_total = others
    new_peak = tl.maximum(peak, other_peak)
    return new_peak, rescale(total, peak, new_peak, scale) + rescale(other_total, other_peak, new_peak, scale)


@helper
def over_lanes(sums, scale):
    """The sums of all lanes of each row, (ROWS,)."""
    peak, total = sums
    row_peak = tl.max(peak, axis=1)
    return row_peak, tl.sum(rescale(total, peak, row_peak[:, None], scale), axis=1)


@helper
def probability(z, beta, half_scale, level, half_level):
    """``exp(beta z - level)``. Subnormal results are kept, since they may be multiplied by a large gradient.

    In float32 half the exponent of 2 is computed, because the whole may overflow where beta x does not. An FMA adds
    one rounding to those of ``beta log2(e)`` and ``level log2(e)``; the interpreter rounds an FMA twice, so it uses
    float64 here.
    """
    shape: tl.constexpr = z.shape
    if z.dtype == tl.float64:
        return tl.exp(z * beta - level[None, :, None, None])
    elif _INTERPRETS:
        half = z.to(tl.float64) * half_scale.to(tl.float64) - half_level.to(tl.float64)[None, :, None, None]
        return tl.exp2(2.0 * half.to(tl.float32))
    else:
        half_level = tl.broadcast_to(half_level[None, :, None, None], shape)
        half = tl.fma(z, tl.broadcast_to(half_scale, shape), -half_level)
        ex2: tl.constexpr = "ex2.approx.f32 $0, $1;"  # tl.exp2 flushes
        return tl.inline_asm_elementwise(ex2, "=f,f", [half + half], dtype=tl.float32, is_pure=True, pack=1)


@helper
def levels(lse, row):
    """The log-sum-exp of rows and log2(e) / 2 times it. Both are 0 where it is -inf: all elements are -inf there."""
    level = tl.load(lse + row)
    level = tl.where(level == -float("inf"), 0.0, level)
    return level, (level.to(tl.float64) * 0.72134752044448170).to(level.dtype)
