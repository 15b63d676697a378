"""Thermodynamics in Triton: log Z, mean and variance of the energy from one read.

Bytes, operations and design are those of `thermodynamics.cu`, in tiles as log-sum-exp has them. Each lane keeps the
largest element ``peak`` (of ``x`` at positive beta, else of ``-x``), the weight ``total``, the weighted ``mean`` of
distances from the peak, and the weighted sum of squares around it, ``spread``.
"""

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..common.triton_math import bits_of, from_bits
from ..common.triton_runtime import helper
from ..common.variants import KernelVariant, TritonVariant
from ..logsumexp.triton_kernels import (
    accumulator,
    part_of_rows,
    power_of_two,
    shift_of,
    strides_of,
    tile_of,
)
from ..rows.layout import as_rows, is_wide
from ..rows.shapes import LANES_WHERE_CLOSER, THREADS, Plan, Shape, chunk_of, counters, plans, shape_class, split_rows
from ..rows.tuning import run_best


@helper
def finite(distance):
    """Distances of elements without weight may be infinite, and 0 * inf would be NaN."""
    if distance.dtype == tl.float64:
        return tl.maximum(distance, -1.7976931348623157e308)
    else:
        return tl.maximum(distance, -3.4028234e38)


@helper
def per_weight(value, total):
    """``value / total``, and 0 where there is no weight."""
    return tl.where(total == 0, 0.0, value / tl.where(total == 0, 1.0, total))


@helper
def raised(peak, total, mean, spread, new_peak, scale):
    """Moments as seen from ``new_peak``, which is not lower."""
    moved = peak - shift_of(new_peak)
    nothing = peak == -float("inf")
    factor = tl.where(peak == new_peak, 1.0, tl.where(nothing, 0.0, power_of_two(moved * scale)))
    mean = tl.where(peak == new_peak, mean, tl.where(nothing, 0.0, finite(mean + moved)))
    return total * factor, mean, spread * factor


@helper
def joined(peak, total, mean, spread, other_peak, other_total, other_mean, other_spread, scale):
    """Moments of two sets of elements together."""
    new_peak = tl.maximum(peak, other_peak)
    total, mean, spread = raised(peak, total, mean, spread, new_peak, scale)
    other_total, other_mean, other_spread = raised(other_peak, other_total, other_mean, other_spread, new_peak, scale)
    share = per_weight(other_total, total + other_total)
    difference = other_mean - mean
    # The smaller weight times the distance first: 0 times what overflows would be NaN.
    spread += other_spread + (difference * (share * total)) * difference
    return new_peak, total + other_total, mean + difference * share, spread


@helper
def within_lane(z, mask, peak, total, mean, spread, scale, MASKED: tl.constexpr):
    """Moments, (ROWS, LANES), with the elements ``z``, (CHUNK, ROWS, LANES, WIDTH), of the same lanes.

    The chunk's sums are taken from its own largest element, which has at least one share in m = CHUNK * WIDTH of the
    weight: its mean of squares is then at most m times its variance, and little is lost in their difference.
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
    return joined(peak, total, mean, spread, top, chunk_total, centre, chunk_spread, scale)


@helper
def across_lanes(peak, total, mean, spread, scale):
    """The moments of all lanes of each row, (ROWS,)."""
    row_peak = tl.max(peak, axis=1)
    total, mean, spread = raised(peak, total, mean, spread, row_peak[:, None], scale)
    row_total = tl.sum(total, axis=1)
    row_mean = per_weight(tl.sum(total * mean, axis=1), row_total)
    difference = mean - row_mean[:, None]
    return row_peak, row_total, row_mean, tl.sum(spread + total * difference * difference, axis=1)


@helper
def write_results(log_z, energy, variance, row, rows, peak, total, mean, spread, beta, FLIP: tl.constexpr):
    shift = shift_of(peak)
    result = tl.where(FLIP, -shift, shift) * beta + tl.log(total)
    known = result - result == 0  # neither infinite nor NaN
    inside = row < rows
    tl.store(log_z + row, result, mask=inside)
    tl.store(energy + row, tl.where(known, tl.where(FLIP, shift + mean, -(shift + mean)), float("nan")), mask=inside)
    tl.store(variance + row, tl.where(known, spread / total, float("nan")), mask=inside)


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def forward_kernel(
    x,  # any strides
    log_z,  # (rows,) contiguous in ACC, as are
    energy,
    variance,
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
    STEP: tl.constexpr = CHUNK * LANES * WIDTH
    row, group, place, begin, end, column, base = part_of_rows(
        x, rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part,
        SPLIT, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT, CHUNK,
    )  # fmt: skip
    scale = from_bits(scale_bits, ACC)
    peak = tl.full((ROWS, LANES), -float("inf"), ACC)
    total = tl.zeros((ROWS, LANES), ACC)
    mean = tl.zeros((ROWS, LANES), ACC)
    spread = tl.zeros((ROWS, LANES), ACC)
    whole = begin + (end - begin) // STEP * STEP
    for start in range(begin, whole, STEP):
        z = tl.load(base + start * stride).to(ACC)
        z = -z if FLIP else z
        peak, total, mean, spread = within_lane(z, True, peak, total, mean, spread, scale, False)
    if whole < end:
        mask = tl.broadcast_to(column + whole < end, (CHUNK, ROWS, LANES, WIDTH))
        z = tl.load(base + whole * stride, mask=mask, other=0.0).to(ACC)
        z = -z if FLIP else z
        peak, total, mean, spread = within_lane(z, mask, peak, total, mean, spread, scale, True)
    row_peak, row_total, row_mean, row_spread = across_lanes(peak, total, mean, spread, scale)
    beta = from_bits(beta_bits, ACC)
    if SPLIT:
        size = tl.cast(rows, tl.int64) * splits
        mine = parts + row * splits + place
        tl.store(mine, row_peak, mask=row < rows)
        tl.store(mine + size, row_total, mask=row < rows)
        tl.store(mine + 2 * size, row_mean, mask=row < rows)
        tl.store(mine + 3 * size, row_spread, mask=row < rows)
        tl.debug_barrier()  # all threads have stored before one of them counts
        finished_before = tl.atomic_add(counters + group, 1, sem="acq_rel")
        if finished_before == splits - 1:
            tl.store(counters + group, 0)
            peak = tl.full((ROWS, LANES), -float("inf"), ACC)
            total = tl.zeros((ROWS, LANES), ACC)
            mean = tl.zeros((ROWS, LANES), ACC)
            spread = tl.zeros((ROWS, LANES), ACC)
            for first in range(0, splits, LANES):
                other = first + tl.arange(0, LANES)[None, :]
                known = (other < splits) & (row < rows)[:, None]
                where = parts + row[:, None] * splits + other
                # Past the first-level cache, which may hold what was there before the parts.
                peak, total, mean, spread = joined(
                    peak, total, mean, spread,
                    tl.load(where, mask=known, other=-float("inf"), cache_modifier=".cg"),
                    tl.load(where + size, mask=known, other=0.0, cache_modifier=".cg"),
                    tl.load(where + 2 * size, mask=known, other=0.0, cache_modifier=".cg"),
                    tl.load(where + 3 * size, mask=known, other=0.0, cache_modifier=".cg"),
                    scale,
                )  # fmt: skip
            row_peak, row_total, row_mean, row_spread = across_lanes(peak, total, mean, spread, scale)
            write_results(log_z, energy, variance, row, rows, row_peak, row_total, row_mean, row_spread, beta, FLIP)
    else:
        write_results(log_z, energy, variance, row, rows, row_peak, row_total, row_mean, row_spread, beta, FLIP)


def forward(x: Tensor, dim: int, beta: float, log_z: Tensor, energy: Tensor, variance: Tensor) -> None:
    """Write all three, contiguous in the precision of accumulation. ``x`` is not empty."""
    x, view = as_rows(dim, x)
    wide, itemsize = is_wide(view, x), x.element_size()
    bits = (bits_of(beta), bits_of(abs(beta) * math.log2(math.e)))

    def launch(plan: Plan) -> None:
        shape, tile = plan.shape, tile_of(view, plan.shape)
        groups = triton.cdiv(view.count, tile["ROWS"])
        splits, steps = split_rows(view, groups, shape.step, itemsize, plan.blocks)
        parts = count = log_z
        if splits > 1:
            parts = log_z.new_empty((4, view.count, splits))
            count = counters(groups, x.device)
        forward_kernel[(groups * splits,)](
            x, log_z, energy, variance, parts, count, view.count, view.n // tile["N_UNIT"], *view.sizes[1:],
            *strides_of(view.layouts[0], shape), splits, steps, *bits, ACC=accumulator(x.dtype), FLIP=beta < 0,
            SPLIT=splits > 1, **tile, num_warps=THREADS // 32,
        )  # fmt: skip

    key = shape_class("triton thermodynamics forward", x, view, wide)
    run_best(key, plans(view, itemsize, wide, True), launch, x.device)


def variants() -> Sequence[KernelVariant]:
    """A few lanes and a block with wide loads, split rows, and rows that are neighbours."""
    return [
        _variant(dtype, itemsize, lanes, access, split)
        for dtype, itemsize in (("fp64", 8), ("fp32", 4), ("fp16", 2), ("bf16", 2))
        for lanes, access, split in (
            (8, 16, False), (32, 16, False), (THREADS, 16, False), (THREADS, 16, True), (LANES_WHERE_CLOSER, 0, False),
        )
    ]  # fmt: skip


def _variant(dtype: str, itemsize: int, lanes: int, access: int, split: bool) -> KernelVariant:
    width = max(1, access // itemsize)
    shape = Shape(lanes, width, chunk_of(width, itemsize))
    signature: dict[str, object] = {"x": f"*{dtype}:16", "counters": "*i32:16", "size1": 1}
    signature |= dict.fromkeys(("log_z", "energy", "variance", "parts"), "*fp64:16" if itemsize == 8 else "*fp32:16")
    signature |= dict.fromkeys(("rows", "n"), "i32:16") | dict.fromkeys(("beta_bits", "scale_bits"), "i64")
    signature |= dict.fromkeys(("size2", "stride0", "stride1", "splits", "part"), "i32")
    signature |= {"stride2": "i32:16", "stride": 1} if access else {"stride2": 1, "stride": "i32:16"}
    signature |= {"ACC": tl.float64 if itemsize == 8 else tl.float32, "FLIP": split, "SPLIT": split, "ONE_DIM": True}
    signature |= {"ROWS": shape.rows, "LANES": lanes, "WIDTH": shape.width, "N_UNIT": shape.width, "CHUNK": shape.chunk}
    place = f"{lanes} lanes" if lanes < THREADS else "block"
    note = ", split, beta < 0" if split else "" if access else ", rows closer"
    return TritonVariant(
        name=f"forward {dtype}, {place} per row{note}", threads=THREADS, items=width * shape.chunk, unit="elements",
        bytes_per_item=itemsize, access_bytes=access, kernel=forward_kernel, signature=signature,
    )  # fmt: skip
