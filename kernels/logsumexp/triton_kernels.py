"""Log-sum-exp in Triton, forward and backward.

Bytes: the forward reads each element once (8, 4 or 2 B) and writes a result per row; the backward reads and writes each
element once. Memory is the limit; `logsumexp.cu` has the budget of instructions that it leaves.

Operations per element, forward: a comparison, a subtraction, a product, an ex2, a sum, and for 16 bits an unpacking. In
the inner loop of sm_90, loads, addresses and rescaling included: 6.4 instructions for float32, 7.0 for float16, 7.5 for
bfloat16, of which 1.06 and 1.03 MUFU, and 43 for float64; one more, a sign, at negative beta. Backward: as in CUDA C.

Design: a tile is (CHUNK, ROWS, LANES, WIDTH). The last axis is one 128-bit load, the one before it the threads of a
row, then come rows, and the first axis lies in registers: Triton lays tiles out from the last axis to the first. A
maximum or sum over the first and last axes thus stays within a thread; lanes are put together once, when a row ends.
Whole steps are read without a mask; one masked step takes what is left. So that the compiler knows loads to be aligned,
strides and lengths come in units of WIDTH where they are multiples of it. Shapes are those of the CUDA C kernels
(`shapes.py`), and so is the way of few long rows: parts, and the last program of a row combines them, in their order.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.triton_math import bits_of, from_bits, round_to
from ..common.triton_runtime import INTERPRETS, helper
from ..common.variants import KernelVariant, TritonVariant
from ..rows.layout import Layout, Rows, as_rows, is_wide
from ..rows.shapes import LANES_WHERE_CLOSER, THREADS, Plan, Shape, chunk_of, counters, plans, shape_class, split_rows
from ..rows.tuning import run_best

_INTERPRETS = tl.constexpr(INTERPRETS)


@helper
def row_offset(row, size1, size2, stride0, stride1, stride2, ONE_DIM: tl.constexpr):
    """Where a row begins. Rows in one dimension need no divisions."""
    if ONE_DIM:
        return row * stride2
    else:
        rest = row // size2
        return (rest // size1) * stride0 + (rest % size1) * stride1 + (row % size2) * stride2


@helper
def tile_columns(CHUNK: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """The columns of one step, (CHUNK, 1, LANES, WIDTH): a lane's loads lie LANES * WIDTH elements apart.

    Elements that are not neighbours may lie more than 2**31 apart within a step.
    """
    load = tl.arange(0, CHUNK)[:, None, None, None]
    lane = tl.arange(0, LANES)[None, None, :, None]
    element = tl.arange(0, WIDTH)[None, None, None, :]
    column = (load * LANES + lane) * WIDTH + element
    return column.to(tl.int64) if WIDTH == 1 else column


@helper
def power_of_two(x):
    """``2**x`` within 2 ulp; what is less than the smallest normal number may be 0.

    For float64 the series of `rows.cuh`, a third of the instructions of ``tl.exp2``. There 2**x of x beyond 1022 is
    right for infinity only, beside which it stands.
    """
    if x.dtype == tl.float64:
        shifter = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, found in the low bits
        shifted = x + shifter
        f = x - (shifted - shifter)
        series = 4.4549605981865186e-10 * f + 7.072585949269223e-09
        series = series * f + 1.0178062445845774e-07
        series = series * f + 1.321544258792169e-06
        series = series * f + 1.525273382983612e-05
        series = series * f + 0.0001540353044173605
        series = series * f + 0.0013333558146416936
        series = series * f + 0.009618129107606888
        series = series * f + 0.0555041086648216
        series = series * f + 0.24022650695910097
        series = series * f + 0.6931471805599453
        bits = (series * f + 1.0).to(tl.int64, bitcast=True) + (shifted.to(tl.int64, bitcast=True) << 52)
        return tl.where(tl.abs(x) < 1022, bits.to(tl.float64, bitcast=True), tl.where(x < 0, 0.0, x))
    else:
        return tl.exp2(x)


@helper
def shift_of(peak):
    """What is subtracted before the exponential: the maximum, unless it is infinite (inf - inf would be NaN)."""
    return tl.where((peak == float("inf")) | (peak == -float("inf")), 0.0, peak)


@helper
def rescale(total, peak, new_peak, scale):
    """``total``, a sum of exponentials shifted by ``peak``, as a sum shifted by ``new_peak``."""
    factor = power_of_two((peak - shift_of(new_peak)) * scale)
    return total * tl.where(peak == new_peak, 1.0, tl.where(peak == -float("inf"), 0.0, factor))


@helper
def within_lane(z, mask, peak, total, scale, MASKED: tl.constexpr):
    """``peak`` and ``total``, (ROWS, LANES), with ``z``, (CHUNK, ROWS, LANES, WIDTH), of the same lanes."""
    seen = tl.where(mask, z, -float("inf")) if MASKED else z
    new_peak = tl.maximum(peak, tl.max(tl.max(seen, axis=0), axis=2))
    terms = power_of_two((z - shift_of(new_peak)[None, :, :, None]) * scale)
    if MASKED:  # an absent element adds nothing whatever the scale: 0 * -inf would be NaN at beta = 0
        terms = tl.where(mask, terms, 0.0)
    return new_peak, rescale(total, peak, new_peak, scale) + tl.sum(tl.sum(terms, axis=0), axis=2)


@helper
def across_lanes(peak, total, scale):
    """The sums of all lanes of each row, (ROWS,)."""
    row_peak = tl.max(peak, axis=1)
    return row_peak, tl.sum(rescale(total, peak, row_peak[:, None], scale), axis=1)


@helper
def part_of_rows(
    x, rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part,
    SPLIT: tl.constexpr, ONE_DIM: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """What a program of a reduction reads: elements ``begin`` to ``end`` of each of its rows, (ROWS,).

    Returns ``row, group, place, begin, end, column, base``: ``group`` numbers its rows and ``place`` its part of them;
    ``base``, (CHUNK, ROWS, LANES, WIDTH), points to the elements ``column`` of the rows.
    """
    group = tl.program_id(0)
    place = 0
    if SPLIT:
        place = group % splits
        group = group // splits
    row = group.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    length = tl.cast(part, tl.int64) * (CHUNK * LANES * WIDTH)
    begin = place * length
    end = tl.cast(n, tl.int64) * N_UNIT
    if SPLIT:
        end = tl.minimum(begin + length, end)
    # Rows beyond the last are the last once more: no load needs a mask for them.
    safe_row = tl.minimum(row, rows - 1)
    offset = row_offset(safe_row, size1, size2, stride0, stride1, stride2, ONE_DIM) * WIDTH
    column = tile_columns(CHUNK, LANES, WIDTH)
    return row, group, place, begin, end, column, x + offset[None, :, None, None] + column * stride


@helper
def sum_rows(
    x,  # any strides
    peaks,  # (rows, splits) in ACC: the maximum of each part, if SPLIT
    totals,  # (rows, splits) in ACC: the shifted sum of each part, if SPLIT
    counters,  # one for each group of rows, 0 before and after, if SPLIT
    rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part,
    scale,  # in ACC
    FLIP: tl.constexpr, SPLIT: tl.constexpr, ONE_DIM: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
    WIDTH: tl.constexpr, N_UNIT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """``row, peak, total, known``, each (ROWS,): the largest element of a row (of ``-x`` if FLIP), the sum of
    ``2 ** ((x - shift_of(peak)) * scale)`` in the dtype of ``scale``, and whether this program is to write them.
    """
    ACC: tl.constexpr = scale.dtype
    STEP: tl.constexpr = CHUNK * LANES * WIDTH
    row, group, place, begin, end, column, base = part_of_rows(
        x, rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part,
        SPLIT, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT, CHUNK,
    )  # fmt: skip
    peak = tl.full((ROWS, LANES), -float("inf"), ACC)
    total = tl.zeros((ROWS, LANES), ACC)
    whole = begin + (end - begin) // STEP * STEP
    for start in range(begin, whole, STEP):
        z = tl.load(base + start * stride).to(ACC)
        z = -z if FLIP else z
        peak, total = within_lane(z, True, peak, total, scale, False)
    if whole < end:
        mask = tl.broadcast_to(column + whole < end, (CHUNK, ROWS, LANES, WIDTH))
        z = tl.load(base + whole * stride, mask=mask, other=0.0).to(ACC)
        z = -z if FLIP else z
        peak, total = within_lane(z, mask, peak, total, scale, True)
    row_peak, row_total = across_lanes(peak, total, scale)
    known = row < rows
    if SPLIT:
        tl.store(peaks + row * splits + place, row_peak, mask=known)
        tl.store(totals + row * splits + place, row_total, mask=known)
        tl.debug_barrier()  # all threads have stored before one of them counts
        finished_before = tl.atomic_add(counters + group, 1, sem="acq_rel")
        is_last = finished_before == splits - 1
        if is_last:
            tl.store(counters + group, 0)
            peak = tl.full((ROWS, LANES), -float("inf"), ACC)
            total = tl.zeros((ROWS, LANES), ACC)
            for first in range(0, splits, LANES):
                other = first + tl.arange(0, LANES)[None, :]
                given = (other < splits) & known[:, None]
                where = row[:, None] * splits + other
                # Past the first-level cache, which may hold what was there before the parts.
                other_peak = tl.load(peaks + where, mask=given, other=-float("inf"), cache_modifier=".cg")
                other_total = tl.load(totals + where, mask=given, other=0.0, cache_modifier=".cg")
                new_peak = tl.maximum(peak, other_peak)
                total = rescale(total, peak, new_peak, scale) + rescale(other_total, other_peak, new_peak, scale)
                peak = new_peak
            row_peak, row_total = across_lanes(peak, total, scale)
        known = known & is_last
    return row, row_peak, row_total, known


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def forward_kernel(
    x,  # any strides
    y,  # (rows,) contiguous
    exact,  # (rows,) contiguous in ACC, written if HAS_EXACT
    peaks,  # (rows, splits) in ACC: the maximum of each part, if SPLIT
    totals,  # (rows, splits) in ACC: the shifted sum of each part, if SPLIT
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
    HAS_EXACT: tl.constexpr,
    ONE_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr,
    CHUNK: tl.constexpr,
):
    row, peak, total, known = sum_rows(
        x, peaks, totals, counters, rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part,
        from_bits(scale_bits, ACC), FLIP, SPLIT, ONE_DIM, ROWS, LANES, WIDTH, N_UNIT, CHUNK,
    )  # fmt: skip
    shift = shift_of(peak)
    result = tl.where(FLIP, -shift, shift) * from_bits(beta_bits, ACC) + tl.log(total)
    tl.store(y + row, round_to(result, y.dtype.element_ty), mask=known)
    if HAS_EXACT:
        tl.store(exact + row, result, mask=known)


@helper
def probability(z, beta, half_scale, level, half_level):
    """``exp(beta z - level)``, subnormal results kept: a gradient may be large.

    In float32 the exponent of 2 is rounded once more than ``beta log2(e)`` and ``level log2(e)``, and comes in halves,
    since the whole may overflow where beta x does not. The interpreter would round an FMA twice.
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
    """The log-sum-exp of rows, and half of it times log2(e); 0 for -inf, whose elements all are -inf."""
    level = tl.load(lse + row)
    level = tl.where(level == -float("inf"), 0.0, level)
    return level, (level.to(tl.float64) * 0.72134752044448170).to(level.dtype)


@helper
def tile_of_rows(
    x, dx, rows, n, size1, size2, x_stride0, x_stride1, x_stride2, x_stride, dx_stride0, dx_stride1, dx_stride2,
    dx_stride, column_blocks, ONE_DIM: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """What a program maps element by element: ``row, known, start, end, column, first, source, target``.

    Its rows, (ROWS,), are ``known`` or the last once more, and begin at ``first``. Their elements ``start + column``,
    (CHUNK, 1, LANES, WIDTH), are those before ``end``, at ``source`` and ``target``, (CHUNK, ROWS, LANES, WIDTH).
    """
    program = tl.program_id(0)
    start = (program % column_blocks).to(tl.int64) * (CHUNK * LANES * WIDTH)
    end = tl.cast(n, tl.int64) * N_UNIT
    row = (program // column_blocks).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    known = row < rows
    row = tl.minimum(row, rows - 1)
    column = tile_columns(CHUNK, LANES, WIDTH)
    first = x + row_offset(row, size1, size2, x_stride0, x_stride1, x_stride2, ONE_DIM) * WIDTH
    target = dx + row_offset(row, size1, size2, dx_stride0, dx_stride1, dx_stride2, ONE_DIM) * WIDTH
    source = first[None, :, None, None] + (column * x_stride + start * x_stride)
    target = target[None, :, None, None] + (column * dx_stride + start * dx_stride)
    return row, known, start, end, column, first, source, target


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def backward_kernel(
    grad,  # (rows,) contiguous
    x,  # any strides
    lse,  # (rows,) contiguous in ACC
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
    scale_bits,  # beta log2(e) / 2
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
    scale = from_bits(scale_bits, ACC)
    beta = from_bits(beta_bits, ACC)
    level, half_level = levels(lse, row)
    factor = (tl.load(grad + row).to(ACC) * beta)[None, :, None, None]
    if start + CHUNK * LANES * WIDTH <= end:
        slope = factor * probability(tl.load(source).to(ACC), beta, scale, level, half_level)
        mask = tl.broadcast_to(known[None, :, None, None], (CHUNK, ROWS, LANES, WIDTH))
        tl.store(target, round_to(slope, dx.dtype.element_ty), mask=mask)
    else:
        mask = known[None, :, None, None] & (column + start < end)
        z = tl.load(source, mask=mask, other=0.0).to(ACC)
        slope = factor * probability(z, beta, scale, level, half_level)
        tl.store(target, round_to(slope, dx.dtype.element_ty), mask=mask)


def accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype is torch.float64 else tl.float32


def tile_of(view: Rows, shape: Shape) -> dict[str, int]:
    """The constants of a kernel that depend on the shape of rows.

    The interpreter takes as long for one row as for sixteen, and there a program has so many, where there are.
    """
    rows = min(max(shape.rows, 16), triton.next_power_of_2(view.count)) if INTERPRETS else shape.rows
    return {
        "ONE_DIM": view.count == view.sizes[2],
        "ROWS": rows,
        "LANES": shape.lanes,
        "WIDTH": shape.width,
        "N_UNIT": shape.width if view.n % shape.width == 0 else 1,
        "CHUNK": shape.chunk,
    }


def strides_of(layout: Layout, shape: Shape) -> tuple[int, ...]:
    return (*(stride // shape.width for stride in layout.strides), layout.stride)


def forward(x: Tensor, dim: int, beta: float, y: Tensor, exact: Tensor | None) -> None:
    """Write ``y`` and, if given, ``exact`` (the result in the precision of accumulation). ``x`` is not empty."""
    x, view = as_rows(dim, x)
    wide, itemsize, acc = is_wide(view, x), x.element_size(), accumulator(x.dtype)
    bits = (bits_of(beta), bits_of(abs(beta) * math.log2(math.e)))

    def launch(plan: Plan) -> None:
        shape, tile = plan.shape, tile_of(view, plan.shape)
        groups = triton.cdiv(view.count, tile["ROWS"])
        splits, steps = split_rows(view, groups, shape.step, itemsize, plan.blocks)
        peaks = totals = count = y
        if splits > 1:
            real = torch.float64 if acc is tl.float64 else torch.float32
            peaks, totals = torch.empty((2, view.count, splits), dtype=real, device=x.device)
            count = counters(groups, x.device)
        forward_kernel[(groups * splits,)](
            x, y, y if exact is None else exact, peaks, totals, count, view.count, view.n // tile["N_UNIT"],
            *view.sizes[1:], *strides_of(view.layouts[0], shape), splits, steps, *bits, ACC=acc, FLIP=beta < 0,
            SPLIT=splits > 1, HAS_EXACT=exact is not None, **tile, num_warps=THREADS // 32,
        )  # fmt: skip

    key = shape_class("triton logsumexp forward", x, view, wide)
    run_best(key, plans(view, itemsize, wide, True), launch, x.device)


def backward(grad: Tensor, x: Tensor, lse: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """Write the gradient with respect to ``x``, which is not empty, into ``out`` (contiguous)."""
    x, view = as_rows(dim, x, out)
    source, target = view.layouts
    wide, itemsize = is_wide(view, x, out), x.element_size()
    bits = (bits_of(beta), bits_of(beta * math.log2(math.e) / 2))

    def launch(plan: Plan) -> None:
        shape, tile = plan.shape, tile_of(view, plan.shape)
        column_blocks = triton.cdiv(view.n, shape.step)
        backward_kernel[(triton.cdiv(view.count, tile["ROWS"]) * column_blocks,)](
            grad, x, lse, out, view.count, view.n // tile["N_UNIT"], *view.sizes[1:], *strides_of(source, shape),
            *strides_of(target, shape), column_blocks, *bits, ACC=accumulator(x.dtype), **tile,
            num_warps=THREADS // 32,
        )  # fmt: skip

    key = shape_class("triton logsumexp backward", x, view, wide)
    run_best(key, plans(view, itemsize, wide, False), launch, x.device)


def row_variants(
    forward: triton.JITFunction,
    backward: triton.JITFunction,
    elements: Sequence[str],
    sums: Sequence[str],
    arguments: Mapping[str, object],
    split: Mapping[str, object],
    split_note: str,
) -> Sequence[KernelVariant]:
    """A few lanes, a warp, a block with wide loads and with narrow ones, rows that are neighbours, and split rows.

    ``elements`` and ``sums`` are the pointers to the dtype of rows and to that of accumulation, ``arguments`` are
    alike for both; ``split`` are those that split rows have otherwise.
    """
    found: list[KernelVariant] = []
    shapes = [(lanes, 16, "") for lanes in (8, 32, THREADS)]
    shapes += [(THREADS, 0, ", any strides"), (LANES_WHERE_CLOSER, 0, "")]
    for dtype, itemsize in (("fp64", 8), ("fp32", 4), ("fp16", 2), ("bf16", 2)):
        acc = tl.float64 if dtype == "fp64" else tl.float32
        pointers = dict.fromkeys(elements, f"*{dtype}:16")
        pointers |= dict.fromkeys(sums, "*fp64:16" if itemsize == 8 else "*fp32:16")
        for lanes, access, note in shapes:
            width = max(1, access // itemsize)
            shape = Shape(lanes, width, chunk_of(width, itemsize))
            closer = not access and not note
            known: dict[str, object] = pointers | {"counters": "*i32:16", "ACC": acc, "HAS_EXACT": itemsize == 2}
            known |= dict.fromkeys(("rows", "n", "stride2", "x_stride2", "dx_stride2"), "i32:16")
            known |= dict.fromkeys(("size1", "stride", "x_stride", "dx_stride"), 1)
            known |= dict.fromkeys(("stride0", "stride1", "x_stride0", "x_stride1", "dx_stride0", "dx_stride1"), "i32")
            known |= dict.fromkeys(("size2", "splits", "part", "column_blocks"), "i32")
            known |= {"SPLIT": False, "ONE_DIM": True, "N_UNIT": shape.width, "ROWS": shape.rows, **arguments}
            known |= {"LANES": lanes, "WIDTH": shape.width, "CHUNK": shape.chunk}
            if not access:
                known |= dict.fromkeys(("stride2", "x_stride2", "dx_stride2", "n"), "i32")
            if closer:
                known |= dict.fromkeys(("stride", "x_stride", "dx_stride"), "i32:16")
                known |= dict.fromkeys(("stride2", "x_stride2", "dx_stride2"), 1)
                note = ", rows closer"
            name = f"{dtype}, {f'{lanes} lanes' if lanes < THREADS else 'block'} per row{note}"
            common = {"access_bytes": access, "items": shape.width * shape.chunk}
            found.append(_variant(forward, f"forward {name}", itemsize, known, **common))
            if lanes == THREADS:
                with_parts = known | {"SPLIT": True, **split}
                found.append(_variant(forward, f"forward {name}{split_note}", itemsize, with_parts, **common))
            found.append(_variant(backward, f"backward {name}", 2 * itemsize, known, **common))
    return found


def variants() -> Sequence[KernelVariant]:
    """The kernels for some shapes of rows."""
    return row_variants(
        forward_kernel, backward_kernel, ("x", "y", "grad", "dx"), ("exact", "peaks", "totals", "lse"),
        {"beta_bits": "i64", "scale_bits": "i64", "FLIP": False}, {"FLIP": True}, ", split, beta < 0",
    )  # fmt: skip


def _variant(
    kernel: triton.JITFunction, name: str, bytes_per_item: int, known: dict[str, object], **more
) -> KernelVariant:
    signature = {parameter: known[parameter] for parameter in kernel.arg_names}
    return TritonVariant(
        name=name, threads=THREADS, unit="elements", bytes_per_item=bytes_per_item, kernel=kernel,
        signature=signature, **more,
    )  # fmt: skip
