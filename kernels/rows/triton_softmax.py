"""Softmax sums in Triton: a row's sum of exponentials, and the probability of an element.

Sums are ``(peak, total)``: the largest element, and the sum of weights ``2**((x - peak) scale)``.
"""

import triton.language as tl

from ..common.triton_math import from_bits
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
def probability(z, beta, scale, peak, level, scaled_level):
    """``exp(beta (z - peak) - level)``. Subnormal results are kept: they may be multiplied by a large gradient.

    Peak and level come apart: rounding their log-sum-exp would add an error that grows with the peak. In float32 an FMA
    adds one rounding to those of ``z - peak`` and ``scaled_level = level log2(e)``; ``scale = beta log2(e)`` comes in
    `two_parts`. The interpreter rounds an FMA twice, so it uses float64 here.
    """
    high, rest = scale
    shape: tl.constexpr = z.shape
    distance = z - peak[None, :, None, None]
    if z.dtype == tl.float64:
        return tl.exp(distance * beta - level[None, :, None, None])
    elif _INTERPRETS:
        exponent = distance.to(tl.float64) * (high.to(tl.float64) + rest.to(tl.float64))
        exponent = exponent - scaled_level.to(tl.float64)[None, :, None, None]
        return tl.exp2(exponent.to(tl.float32))
    else:
        scaled_level = tl.broadcast_to(scaled_level[None, :, None, None], shape)
        exponent = tl.fma(distance, tl.broadcast_to(rest, shape), -scaled_level)
        exponent = tl.fma(distance, tl.broadcast_to(high, shape), exponent)
        ex2: tl.constexpr = "ex2.approx.f32 $0, $1;"  # tl.exp2 flushes
        return tl.inline_asm_elementwise(ex2, "=f,f", [exponent], dtype=tl.float32, is_pure=True, pack=1)


@helper
def two_parts(scale_bits):
    """A double as the sum of two float32 numbers of its sign: infinities times them add up to no NaN."""
    whole = from_bits(scale_bits, tl.float64)
    high = (whole * (1 - 2.384185791015625e-07)).to(tl.float32)  # 1 - 2**-22: two ulp
    return high, (whole - high.to(tl.float64)).to(tl.float32)


@helper
def levels(log_total, row):
    """The logarithms of the totals of rows and log2(e) times them; 0 where they are -inf: all elements are -inf."""
    level = tl.load(log_total + row)
    level = tl.where(level == -float("inf"), 0.0, level)
    return level, (level.to(tl.float64) * 1.4426950408889634).to(level.dtype)
