"""Thermodynamics in Triton: log Z, mean and variance of the energy from one read.

Bytes, operations and design are those of `thermodynamics.cu`; `rows/triton_rows.py` reads the rows. Each lane keeps the
moments ``(peak, total, mean, spread)``: the largest element (of ``-x`` if beta < 0), the sum of weights, the weighted
mean of distances from the peak, and the weighted sum of squares around this mean.
"""

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..common.triton_math import bits_of, from_bits
from ..common.triton_runtime import helper
from ..common.variants import KernelVariant
from ..rows.triton_rows import Sample, launch_reduction, power_of_two, reduce_rows, row_variants, shift_of


@helper
def finite(distance):
    """``distance``, at least the lowest finite number: an element of weight 0 may lie at -inf, and 0 * inf is NaN."""
    if distance.dtype == tl.float64:
        return tl.maximum(distance, -1.7976931348623157e308)
    else:
        return tl.maximum(distance, -3.4028234e38)


@helper
def per_weight(value, total):
    """``value / total``; 0 where the total is 0."""
    return tl.where(total == 0, 0.0, value / tl.where(total == 0, 1.0, total))


@helper
def raised(peak, total, mean, spread, new_peak, scale):
    """``total, mean, spread`` relative to ``new_peak``, which is at least ``peak``."""
    moved = peak - shift_of(new_peak)
    nothing = peak == -float("inf")
    factor = tl.where(peak == new_peak, 1.0, tl.where(nothing, 0.0, power_of_two(moved * scale)))
    mean = tl.where(peak == new_peak, mean, tl.where(nothing, 0.0, finite(mean + moved)))
    return total * factor, mean, spread * factor


@helper
def merge(moments, others, scale):
    """The moments of two sets of elements together."""
    peak, total, mean, spread = moments
    other_peak, other_total, other_mean, other_spread = others
    new_peak = tl.maximum(peak, other_peak)
    total, mean, spread = raised(peak, total, mean, spread, new_peak, scale)
    other_total, other_mean, other_spread = raised(other_peak, other_total, other_mean, other_spread, new_peak, scale)
    share = per_weight(other_total, total + other_total)
    difference = other_mean - mean
    # The distance is first multiplied by the smaller weight: if its square overflowed, 0 * inf would be NaN.
    spread += other_spread + (difference * (share * total)) * difference
    return new_peak, total + other_total, mean + difference * share, spread


@helper
def add(z, mask, moments, scale, MASKED: tl.constexpr):
    """Add the elements ``z``, (CHUNK, ROWS, LANES, WIDTH), to the moments of their lanes, (ROWS, LANES).

    Distances are taken from the chunk's largest element, which has at least 1 / m of the weight, m = CHUNK * WIDTH. The
    mean square is then at most m times the variance, and their difference loses little.
    """
    seen = tl.where(mask, z, -float("inf")) if MASKED else z
    top = tl.max(tl.max(seen, axis=3), axis=0)
    distance = z - shift_of(top)[None, :, :, None]
    weight = power_of_two(distance * scale)
    if MASKED:
        weight = tl.where(mask, weight, 0.0)
    distance = finite(distance)
    weighted = weight * distance
    chunk_total = tl.sum(tl.sum(weight, axis=3), axis=0)
    first = tl.sum(tl.sum(weighted, axis=3), axis=0)
    second = tl.sum(tl.sum(weighted * distance, axis=3), axis=0)
    centre = per_weight(first, chunk_total)
    chunk_spread = tl.maximum(second - first * centre, 0.0)
    return merge(moments, (top, chunk_total, centre, chunk_spread), scale)


@helper
def over_lanes(moments, scale):
    """The moments of all lanes of each row, (ROWS,)."""
    peak, total, mean, spread = moments
    row_peak = tl.max(peak, axis=1)
    total, mean, spread = raised(peak, total, mean, spread, row_peak[:, None], scale)
    row_total = tl.sum(total, axis=1)
    row_mean = per_weight(tl.sum(total * mean, axis=1), row_total)
    difference = mean - row_mean[:, None]
    return row_peak, row_total, row_mean, tl.sum(spread + total * difference * difference, axis=1)


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def forward_kernel(
    x,  # any strides
    log_z,  # (rows,) contiguous in ACC
    energy,  # the same
    variance,  # the same
    parts,  # (4, rows, splits) in ACC: peak, total, mean and spread of each part, if SPLIT
    counters,  # one for each group of rows, 0 before and after, if SPLIT
    rows,
    n,  # in units of N_UNIT
    size1,
    size2,
    stride0,  # those of rows in units of WIDTH
    stride1,
    stride2,
    stride,
    splits,
    part,  # steps of one part of a split row
    beta_bits,
    scale_bits,  # |beta| log2 e
    ACC: tl.constexpr,
    FLIP: tl.constexpr,  # beta < 0: reduce -x at -beta
    SPLIT: tl.constexpr,
    ONE_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    row, known, moments = reduce_rows(
        x, parts, counters, rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part,
        from_bits(scale_bits, ACC), add, merge, over_lanes, 4, ACC, FLIP, SPLIT, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT,
        CHUNK,
    )  # fmt: skip
    peak, total, mean, spread = moments
    shift = shift_of(peak)
    result = tl.where(FLIP, -shift, shift) * from_bits(beta_bits, ACC) + tl.log(total)
    exists = result - result == 0  # neither infinite nor NaN
    level = tl.where(FLIP, shift + mean, -(shift + mean))
    tl.store(log_z + row, result, mask=known)
    tl.store(energy + row, tl.where(exists, level, float("nan")), mask=known)
    tl.store(variance + row, tl.where(exists, spread / total, float("nan")), mask=known)


def _arguments(log_z: Tensor, energy: Tensor, variance: Tensor, beta: float) -> dict[str, object]:
    return {
        "log_z": log_z, "energy": energy, "variance": variance, "FLIP": beta < 0,
        "beta_bits": bits_of(beta), "scale_bits": bits_of(abs(beta) * math.log2(math.e)),
    }  # fmt: skip


def forward(x: Tensor, dim: int, beta: float, log_z: Tensor, energy: Tensor, variance: Tensor) -> None:
    """Write all three results, contiguous in the precision of accumulation. ``x`` is not empty."""
    own = _arguments(log_z, energy, variance, beta)
    launch_reduction("thermodynamics", forward_kernel, 4, x, dim, log_z, own)


def variants() -> Sequence[KernelVariant]:
    """The kernels for some shapes of rows."""

    def arguments(rows: Sample) -> dict[str, object]:
        return _arguments(rows.per_row(), rows.per_row(), rows.per_row(), -1.0 if rows.is_split else 1.0)

    return row_variants(forward_kernel, arguments, split_note="split, beta < 0")
