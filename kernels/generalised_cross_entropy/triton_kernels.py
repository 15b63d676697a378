"""Generalised cross-entropy in Triton, forward and backward.

Bytes and design are those of `generalised_cross_entropy.cu`. `rows/triton_rows.py` reads and writes the rows,
`rows/triton_softmax.py` sums them.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.triton_math import bits_of, from_bits, round_to
from ..common.variants import KernelVariant
from ..rows.triton_rows import (
    Sample,
    launch_map,
    launch_reduction,
    reduce_rows,
    row_offset,
    row_variants,
    shift_of,
    tile_of_rows,
)
from ..rows.triton_softmax import add, levels, merge, over_lanes, probability, two_parts

LOG2E = math.log2(math.e)


@triton.jit
def minus_expm1(x):
    """``1 - exp(x)`` for ``x <= 0``, to a few ulp.

    Near 0 the rounding error of the exponential cancels that of its logarithm (W. Kahan; see N. Higham, "Accuracy and
    Stability of Numerical Algorithms", 2nd ed., section 1.14.1).
    """
    y = tl.exp(x)
    near = (1.0 - y) * (x / tl.where(y == 1.0, 1.0, tl.log(y)))
    return tl.where(y == 1.0, -x, tl.where(y < 0.5, 1.0 - y, near))


@triton.jit
def chosen(first, stride, n, label, mask, DTYPE: tl.constexpr):
    """The logit of each label in [0, n) of the row that begins at ``first``; NaN for any other label."""
    is_class = (label >= 0) & (label < n)
    logit = tl.load(first + label * stride, mask=mask & is_class, other=0.0).to(DTYPE)
    return tl.where(is_class, logit, float("nan"))


@triton.jit(do_not_specialize=["q_bits", "ignore_index", "scale_bits"])
def forward_kernel(
    x,  # any strides
    labels,  # (rows,) int64, contiguous
    loss,  # (rows,) contiguous in ACC
    lse,  # the same, relative to the peak if HAS_PEAK
    peaks,  # the same, written if HAS_PEAK
    parts,  # (2, rows, splits) in ACC: maximum and shifted sum of each part, if SPLIT
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
    q_bits,
    ignore_index,
    scale_bits,  # log2 e
    ACC: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_PEAK: tl.constexpr,
    ONE_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    row, known, sums = reduce_rows(
        x, parts, counters, rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part,
        from_bits(scale_bits, ACC), add, merge, over_lanes, 2, ACC, False, SPLIT, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT,
        CHUNK,
    )  # fmt: skip
    peak, total = sums
    q = from_bits(q_bits, ACC)
    log_total = tl.log(total)
    level = shift_of(peak) + log_total
    label = tl.load(labels + row, mask=known, other=0)
    first = x + row_offset(row, size1, size2, stride0, stride1, stride2, ONE_DIM) * WIDTH
    # Subtract the peak first: the rounding error then does not grow with the level of the row. A level of -inf means
    # that all logits are -inf.
    distance = chosen(first, stride, tl.cast(n, tl.int64) * N_UNIT, label, known, ACC) - shift_of(peak)
    log_p = distance - tl.where(level == -float("inf"), 0.0, log_total)
    result = tl.where(q == 0, -log_p, minus_expm1(q * log_p) / tl.where(q == 0, 1.0, q))
    tl.store(loss + row, tl.where(label == ignore_index, 0.0, result), mask=known)
    tl.store(lse + row, log_total if HAS_PEAK else level, mask=known)
    if HAS_PEAK:
        tl.store(peaks + row, shift_of(peak), mask=known)


@triton.jit
def slope_of(z, place, label_place, factor, ignored, beta, scale, peak, level, scaled_level):
    """``factor (p - 1)`` at the label's place in a row and ``factor p`` elsewhere, (CHUNK, ROWS, LANES, WIDTH)."""
    factor = factor[None, :, None, None]
    is_label = place == label_place[None, :, None, None]
    slope = factor * probability(z, beta, scale, peak, level, scaled_level) - tl.where(is_label, factor, 0.0)
    return tl.where(ignored[None, :, None, None], 0.0, slope)


@triton.jit(do_not_specialize=["q_bits", "ignore_index", "scale_bits"])
def backward_kernel(
    grad,  # (rows,) contiguous in ACC
    labels,  # (rows,) int64, contiguous
    log_totals,  # (rows,) contiguous in ACC
    peaks,  # the same
    x,  # any strides
    dx,  # contiguous, x's shape
    rows,
    n,  # in units of N_UNIT
    size1,
    size2,
    x_stride0,  # those of rows in units of WIDTH
    x_stride1,
    x_stride2,
    x_stride,
    dx_stride0,
    dx_stride1,
    dx_stride2,
    dx_stride,
    column_blocks,
    q_bits,
    ignore_index,
    scale_bits,  # log2 e
    ACC: tl.constexpr,
    ONE_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    STEP: tl.constexpr = CHUNK * LANES * WIDTH
    row, known, start, end, place, first, source, target = tile_of_rows(
        x, dx, rows, n, size1, size2, x_stride0, x_stride1, x_stride2, x_stride, dx_stride0, dx_stride1, dx_stride2,
        dx_stride, column_blocks, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT, CHUNK,
    )  # fmt: skip
    scale = two_parts(scale_bits)
    beta = tl.full((), 1.0, ACC)
    q = from_bits(q_bits, ACC)
    level, scaled_level = levels(log_totals, row)
    peak = tl.load(peaks + row)
    label = tl.load(labels + row)
    ignored = label == ignore_index
    log_p = (chosen(first, x_stride, end, label, known, ACC) - peak) - level
    power = tl.where(q == 0, tl.where(log_p == log_p, 1.0, log_p), tl.exp(q * log_p))
    factor = tl.load(grad + row) * power
    label_place = label - start  # -1 if it is not among the columns of this program
    label_place = tl.where((label_place >= 0) & (label_place < STEP), label_place, -1).to(place.dtype)
    if start + STEP <= end:
        z = tl.load(source).to(ACC)
        slope = slope_of(z, place, label_place, factor, ignored, beta, scale, peak, level, scaled_level)
        mask = tl.broadcast_to(known[None, :, None, None], (CHUNK, ROWS, LANES, WIDTH))
        tl.store(target, round_to(slope, dx.dtype.element_ty), mask=mask)
    else:
        mask = known[None, :, None, None] & (place + start < end)
        z = tl.load(source, mask=mask, other=0.0).to(ACC)
        slope = slope_of(z, place, label_place, factor, ignored, beta, scale, peak, level, scaled_level)
        tl.store(target, round_to(slope, dx.dtype.element_ty), mask=mask)


def _numbers(q: float, ignore_index: int) -> dict[str, object]:
    return {"q_bits": bits_of(q), "ignore_index": ignore_index, "scale_bits": bits_of(LOG2E)}


def _forward_arguments(
    labels: Tensor, loss: Tensor, lse: Tensor, peak: Tensor | None, q: float, ignore_index: int
) -> dict[str, object]:
    peaks = {"peaks": loss if peak is None else peak, "HAS_PEAK": peak is not None}
    return {"labels": labels, "loss": loss, "lse": lse, **peaks, **_numbers(q, ignore_index)}


def _backward_arguments(
    grad: Tensor, labels: Tensor, log_total: Tensor, peak: Tensor, q: float, ignore_index: int
) -> dict[str, object]:
    return {"grad": grad, "labels": labels, "log_totals": log_total, "peaks": peak, **_numbers(q, ignore_index)}


def forward(
    logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int,
    loss: Tensor, lse: Tensor, peak: Tensor | None = None,
) -> None:  # fmt: skip
    """Write ``loss``, ``lse`` and, if given, ``peak``, contiguous in the precision of accumulation.

    ``logits`` is not empty. ``lse`` is relative to the peak if there is one.
    """
    own = _forward_arguments(labels, loss, lse, peak, q, ignore_index)
    launch_reduction("generalised_cross_entropy", forward_kernel, 2, logits, dim, loss, own)


def backward(
    grad: Tensor, logits: Tensor, labels: Tensor, log_total: Tensor, peak: Tensor,
    dim: int, q: float, ignore_index: int, out: Tensor,
) -> None:  # fmt: skip
    """Write the gradient with respect to ``logits``, which is not empty, into ``out`` (contiguous)."""
    own = _backward_arguments(grad, labels, log_total, peak, q, ignore_index)
    launch_map("generalised_cross_entropy", backward_kernel, logits, dim, out, own)


def variants() -> Sequence[KernelVariant]:
    """The kernels for some shapes of rows."""

    def forward_arguments(rows: Sample) -> dict[str, object]:
        wide = rows.per_row()
        return _forward_arguments(rows.per_row(torch.int64), wide, wide, wide, 0.7, -100)

    def backward_arguments(rows: Sample) -> dict[str, object]:
        wide = rows.per_row()
        return _backward_arguments(wide, rows.per_row(torch.int64), wide, wide, 0.7, -100)

    return row_variants(forward_kernel, forward_arguments, backward_kernel, backward_arguments)
