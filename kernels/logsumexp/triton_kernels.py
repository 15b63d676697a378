"""Log-sum-exp in Triton, forward and backward.

Bytes: the forward reads each element once (8, 4 or 2 B) and writes a result per row; the backward reads and writes each
element once. Memory is the limit; `logsumexp.cu` says how many instructions per element it leaves time for.

Operations per element, forward: a comparison, a subtraction, a product, an ex2, a sum, and for 16 bits an unpacking. In
the inner loop of sm_90, loads, addresses and rescaling included: 6.4 to 6.5 instructions for float32, 6.7 to 6.8 for
float16, 7.2 to 7.3 for bfloat16, of which 1.06 and 1.03 MUFU, and 39.6 to 40.8 for float64; one more, for the sign, if
beta < 0. Backward: as in CUDA C.

Design: `rows/triton_rows.py` reads and writes the rows, `rows/triton_softmax.py` sums them.
"""

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..common.triton_math import bits_of, from_bits, round_to
from ..common.variants import KernelVariant
from ..rows.triton_rows import Sample, launch_map, launch_reduction, reduce_rows, row_variants, shift_of, tile_of_rows
from ..rows.triton_softmax import add, levels, merge, over_lanes, probability, two_parts


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def forward_kernel(
    x,  # any strides
    y,  # (rows,) contiguous
    log_totals,  # (rows,) contiguous in ACC, written if HAS_PEAK
    peaks,  # the same: y = beta peak + log_total
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
    beta_bits,
    scale_bits,  # |beta| log2 e
    ACC: tl.constexpr,
    FLIP: tl.constexpr,  # beta < 0: reduce -x at -beta
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
        from_bits(scale_bits, ACC), add, merge, over_lanes, 2, ACC, FLIP, SPLIT, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT,
        CHUNK,
    )  # fmt: skip
    peak, total = sums
    shift = tl.where(FLIP, -shift_of(peak), shift_of(peak))
    log_total = tl.log(total)
    result = shift * from_bits(beta_bits, ACC) + log_total
    tl.store(y + row, round_to(result, y.dtype.element_ty), mask=known)
    if HAS_PEAK:
        tl.store(log_totals + row, log_total, mask=known)
        tl.store(peaks + row, shift, mask=known)


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def backward_kernel(
    grad,  # (rows,) contiguous
    x,  # any strides
    log_totals,  # (rows,) contiguous in ACC
    peaks,  # the same
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
    beta_bits,
    scale_bits,  # beta log2(e)
    ACC: tl.constexpr,
    ONE_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    row, known, start, end, column, _first, source, target = tile_of_rows(
        x, dx, rows, n, size1, size2, x_stride0, x_stride1, x_stride2, x_stride, dx_stride0, dx_stride1, dx_stride2,
        dx_stride, column_blocks, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT, CHUNK,
    )  # fmt: skip
    scale = two_parts(scale_bits)
    beta = from_bits(beta_bits, ACC)
    level, scaled_level = levels(log_totals, row)
    peak = tl.load(peaks + row)
    factor = (tl.load(grad + row).to(ACC) * beta)[None, :, None, None]
    if start + CHUNK * LANES * WIDTH <= end:
        slope = factor * probability(tl.load(source).to(ACC), beta, scale, peak, level, scaled_level)
        mask = tl.broadcast_to(known[None, :, None, None], (CHUNK, ROWS, LANES, WIDTH))
        tl.store(target, round_to(slope, dx.dtype.element_ty), mask=mask)
    else:
        mask = known[None, :, None, None] & (column + start < end)
        z = tl.load(source, mask=mask, other=0.0).to(ACC)
        slope = factor * probability(z, beta, scale, peak, level, scaled_level)
        tl.store(target, round_to(slope, dx.dtype.element_ty), mask=mask)


def _forward_arguments(y: Tensor, log_total: Tensor | None, peak: Tensor | None, beta: float) -> dict[str, object]:
    return {
        "y": y, "log_totals": y if log_total is None else log_total, "peaks": y if peak is None else peak,
        "HAS_PEAK": peak is not None, "FLIP": beta < 0,
        "beta_bits": bits_of(beta), "scale_bits": bits_of(abs(beta) * math.log2(math.e)),
    }  # fmt: skip


def _backward_arguments(grad: Tensor, log_total: Tensor, peak: Tensor, beta: float) -> dict[str, object]:
    bits = {"beta_bits": bits_of(beta), "scale_bits": bits_of(beta * math.log2(math.e))}
    return {"grad": grad, "log_totals": log_total, "peaks": peak, **bits}


def forward(x: Tensor, dim: int, beta: float, y: Tensor, log_total: Tensor | None, peak: Tensor | None) -> None:
    """Write ``y`` and, if given, ``log_total`` and ``peak`` in the precision of accumulation. ``x`` is not empty."""
    launch_reduction("logsumexp", forward_kernel, 2, x, dim, y, _forward_arguments(y, log_total, peak, beta))


def backward(grad: Tensor, x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """Write the gradient with respect to ``x``, which is not empty, into ``out`` (contiguous)."""
    launch_map("logsumexp", backward_kernel, x, dim, out, _backward_arguments(grad, log_total, peak, beta))


def variants() -> Sequence[KernelVariant]:
    """The kernels for some shapes of rows."""

    def forward_arguments(rows: Sample) -> dict[str, object]:
        wide = rows.per_row()
        return _forward_arguments(rows.per_row(rows.x.dtype), wide, wide, -1.0 if rows.is_split else 1.0)

    def backward_arguments(rows: Sample) -> dict[str, object]:
        return _backward_arguments(rows.per_row(rows.x.dtype), rows.per_row(), rows.per_row(), 1.0)

    return row_variants(forward_kernel, forward_arguments, backward_kernel, backward_arguments, "split, beta < 0")
