"""Triton helpers that reduce each row to a sum or map each element of it, and the launches of such kernels.

Memory bandwidth is the limit, so loads are wide and threads wait for each other only once per row. A tile is (CHUNK,
ROWS, LANES, WIDTH). The last axis is one 128-bit load, the axis before it the threads of a row, and the first axis lies
in registers: Triton lays tiles out from the last axis to the first. A maximum or sum over the first and last axes thus
stays within a thread, and lanes are combined once, at the end of a row. Whole steps need no mask; one masked step reads
the remainder. Strides and lengths come in units of WIDTH where they are multiples of it, so that the compiler knows
loads to be aligned. Shapes are those of the CUDA C kernels (`shapes.py`). As there, a few long rows are split into
parts, and the last program of a row combines them in their order.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.triton_runtime import INTERPRETS, helper
from ..common.variants import KernelVariant, TritonVariant
from .checks import accumulation_dtype
from .layout import Layout, Rows, as_rows, is_wide
from .shapes import (
    LANES_WHERE_CLOSER,
    THREADS,
    Plan,
    Shape,
    chunk_of,
    counters,
    plans,
    shape_class,
    split_rows,
)
from .tuning import run_best

ELEMENTS = {torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
TYPES = {**ELEMENTS, torch.int32: "i32", torch.int64: "i64"}
"""Triton's names of dtypes."""


@helper
def row_offset(row, size1, size2, stride0, stride1, stride2, ONE_DIM: tl.constexpr):
    """The offset of a row. Rows in one dimension need no divisions."""
    if ONE_DIM:
        return row * stride2
    else:
        rest = row // size2
        return (rest // size1) * stride0 + (rest % size1) * stride1 + (row % size2) * stride2


@helper
def tile_columns(CHUNK: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr):
    """The columns of one step, (CHUNK, 1, LANES, WIDTH). A lane's loads lie LANES * WIDTH elements apart.

    They are int64 for WIDTH 1, since the elements of a step may then lie more than 2**31 apart in memory.
    """
    load = tl.arange(0, CHUNK)[:, None, None, None]
    lane = tl.arange(0, LANES)[None, None, :, None]
    element = tl.arange(0, WIDTH)[None, None, None, :]
    column = (load * LANES + lane) * WIDTH + element
    return column.to(tl.int64) if WIDTH == 1 else column


@helper
def power_of_two(x):
    """``2**x`` within 2 ulp. A result below the smallest normal number may be 0.

    float64 takes the series of `rows.cuh`, with a third of the instructions of ``tl.exp2``. Its results for x > 1022
    are correct only for x = inf; such x occur only in sums with an infinite element.
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
    """The maximum, to subtract before the exponential; 0 where it is infinite, since inf - inf is NaN."""
    return tl.where((peak == float("inf")) | (peak == -float("inf")), 0.0, peak)


@helper
def no_elements(ROWS: tl.constexpr, LANES: tl.constexpr, COUNT: tl.constexpr, ACC: tl.constexpr):
    """The sums of no elements, (ROWS, LANES): a peak of -inf, and COUNT - 1 numbers that are 0."""
    sums = (tl.full((ROWS, LANES), -float("inf"), ACC),)
    for _ in tl.static_range(1, COUNT):  # Triton knows no starred tuple
        sums = sums + (tl.zeros((ROWS, LANES), ACC),)  # type: ignore[assignment]  # noqa: RUF005
    return sums


@helper
def reduce_rows(
    x, parts, counters, rows, n, size1, size2, stride0, stride1, stride2, stride, splits, part, scale,
    ADD: tl.constexpr, MERGE: tl.constexpr, OVER_LANES: tl.constexpr, COUNT: tl.constexpr, ACC: tl.constexpr,
    FLIP: tl.constexpr, SPLIT: tl.constexpr, ONE_DIM: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
    WIDTH: tl.constexpr, N_UNIT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Reduce each row. Returns ``row, known, sums``, all (ROWS,); the program writes the rows that are ``known``.

    Sums are COUNT tensors. The first is the peak: the largest element, or the largest of ``-x`` with FLIP.

    - ``ADD(z, mask, sums, scale, MASKED)`` adds the elements ``z``, (CHUNK, ROWS, LANES, WIDTH), to the lanes' sums;
    - ``MERGE(sums, others, scale)`` combines the sums of two sets of elements;
    - ``OVER_LANES(sums, scale)`` combines the lanes of each row.
    """
    STEP: tl.constexpr = CHUNK * LANES * WIDTH
    group = tl.program_id(0)
    place = 0
    if SPLIT:
        place = group % splits
        group = group // splits
    row = group.to(tl.int64) * ROWS + tl.arange(0, ROWS)
    length = tl.cast(part, tl.int64) * STEP
    begin = place * length
    end = tl.cast(n, tl.int64) * N_UNIT
    if SPLIT:
        end = tl.minimum(begin + length, end)
    # Rows beyond the last read the last row again, so that loads need no mask.
    safe_row = tl.minimum(row, rows - 1)
    offset = row_offset(safe_row, size1, size2, stride0, stride1, stride2, ONE_DIM) * WIDTH
    column = tile_columns(CHUNK, LANES, WIDTH)
    base = x + offset[None, :, None, None] + column * stride
    sums = no_elements(ROWS, LANES, COUNT, ACC)
    whole = begin + (end - begin) // STEP * STEP
    for start in range(begin, whole, STEP):
        z = tl.load(base + start * stride).to(ACC)
        z = -z if FLIP else z
        sums = ADD(z, True, sums, scale, False)
    if whole < end:
        mask = tl.broadcast_to(column + whole < end, (CHUNK, ROWS, LANES, WIDTH))
        z = tl.load(base + whole * stride, mask=mask, other=0.0).to(ACC)
        z = -z if FLIP else z
        sums = ADD(z, mask, sums, scale, True)
    row_sums = OVER_LANES(sums, scale)
    known = row < rows
    if SPLIT:
        size = tl.cast(rows, tl.int64) * splits  # of one of the COUNT numbers
        own = parts + row * splits + place
        for number in tl.static_range(COUNT):
            tl.store(own + number * size, row_sums[number], mask=known)
        tl.debug_barrier()  # all threads store before one of them counts
        finished_before = tl.atomic_add(counters + group, 1, sem="acq_rel")
        is_last = finished_before == splits - 1
        if is_last:
            tl.store(counters + group, 0)
            sums = no_elements(ROWS, LANES, COUNT, ACC)
            for first in range(0, splits, LANES):
                other = first + tl.arange(0, LANES)[None, :]
                given = (other < splits) & known[:, None]
                where = parts + row[:, None] * splits + other
                # Read past the L1 cache, which may hold older values.
                others = (tl.load(where, mask=given, other=-float("inf"), cache_modifier=".cg"),)
                for number in tl.static_range(1, COUNT):
                    value = tl.load(where + number * size, mask=given, other=0.0, cache_modifier=".cg")
                    others = others + (value,)  # type: ignore[assignment]  # noqa: RUF005
                sums = MERGE(sums, others, scale)
            row_sums = OVER_LANES(sums, scale)
        known = known & is_last
    return row, known, row_sums


@helper
def tile_of_rows(
    x, dx, rows, n, size1, size2, x_stride0, x_stride1, x_stride2, x_stride, dx_stride0, dx_stride1, dx_stride2,
    dx_stride, column_blocks, ONE_DIM: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, WIDTH: tl.constexpr,
    N_UNIT: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """The elements that a program maps: ``row, known, start, end, column, first, source, target``.

    Rows, (ROWS,), begin at ``first``. Those that are not ``known`` repeat the last row. Their elements are ``start +
    column``, (CHUNK, 1, LANES, WIDTH), as far as they lie before ``end``. The pointers ``source`` and ``target`` are
    (CHUNK, ROWS, LANES, WIDTH).
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


def _tile_arguments(view: Rows, shape: Shape, dtype: torch.dtype) -> dict[str, object]:
    """The arguments of any kernel for rows of this shape.

    The interpreter needs as long for one row as for sixteen, so programs have at least sixteen rows there.
    """
    rows = min(max(shape.rows, 16), triton.next_power_of_2(view.count)) if INTERPRETS else shape.rows
    unit = shape.width if view.n % shape.width == 0 else 1
    return {
        "rows": view.count,
        "n": view.n // unit,
        "size1": view.sizes[1],
        "size2": view.sizes[2],
        "ACC": tl.float64 if dtype is torch.float64 else tl.float32,
        "ONE_DIM": view.count == view.sizes[2],
        "ROWS": rows,
        "LANES": shape.lanes,
        "WIDTH": shape.width,
        "N_UNIT": unit,
        "CHUNK": shape.chunk,
    }


def _strides(layout: Layout, shape: Shape, prefix: str = "") -> dict[str, object]:
    numbered = {f"{prefix}stride{i}": stride // shape.width for i, stride in enumerate(layout.strides)}
    return {**numbered, f"{prefix}stride": layout.stride}


def _reduction(x: Tensor, view: Rows, plan: Plan) -> tuple[int, int, dict[str, object]]:
    """Groups of rows, parts of a row, and the arguments of a kernel that calls `reduce_rows`."""
    tile = _tile_arguments(view, plan.shape, x.dtype)
    groups = triton.cdiv(view.count, tile["ROWS"])
    splits, steps = split_rows(view, groups, plan.shape.step, x.element_size(), plan.blocks)
    return groups, splits, {
        "x": x, **tile, **_strides(view.layouts[0], plan.shape), "splits": splits, "part": steps, "SPLIT": splits > 1,
    }  # fmt: skip


def _mapping(x: Tensor, view: Rows, plan: Plan, out: Tensor) -> tuple[int, dict[str, object]]:
    """Programs, and the arguments of a kernel that calls `tile_of_rows`."""
    tile, (source, target) = _tile_arguments(view, plan.shape, x.dtype), view.layouts
    column_blocks = triton.cdiv(view.n, plan.shape.step)
    return triton.cdiv(view.count, tile["ROWS"]) * column_blocks, {
        "x": x, "dx": out, **tile, **_strides(source, plan.shape, "x_"), **_strides(target, plan.shape, "dx_"),
        "column_blocks": column_blocks,
    }  # fmt: skip


def launch_reduction(
    operation: str, kernel: triton.JITFunction, count: int, x: Tensor, dim: int, out: Tensor, own: Mapping[str, object]
) -> None:
    """Launch ``kernel``, which reduces each row of ``x`` (not empty) to ``count`` sums by `reduce_rows`.

    ``own`` holds the kernel's further arguments by name. ``out`` is any result; it stands in for unused scratch.
    """
    x, view = as_rows(dim, x)
    wide = is_wide(view, x)

    def launch(plan: Plan) -> None:
        groups, splits, arguments = _reduction(x, view, plan)
        parts = counts = out
        if splits > 1:
            parts = x.new_empty((count, view.count, splits), dtype=accumulation_dtype(x.dtype))
            counts = counters(groups, x.device)
        kernel[(groups * splits,)](**own, **arguments, parts=parts, counters=counts, num_warps=THREADS // 32)

    key = shape_class(f"triton {operation} forward", x, view, wide)
    run_best(operation, key, plans(view, x.element_size(), wide, True), launch, x.device)


def launch_map(
    operation: str, kernel: triton.JITFunction, x: Tensor, dim: int, out: Tensor, own: Mapping[str, object]
) -> None:
    """Launch ``kernel``, which maps each element of ``x`` (not empty) to one of ``out`` (contiguous), its ``dx``.

    ``own`` holds the kernel's further arguments by name.
    """
    x, view = as_rows(dim, x, out)
    wide = is_wide(view, x, out)

    def launch(plan: Plan) -> None:
        programs, arguments = _mapping(x, view, plan, out)
        kernel[(programs,)](**own, **arguments, num_warps=THREADS // 32)

    key = shape_class(f"triton {operation} backward", x, view, wide)
    run_best(operation, key, plans(view, x.element_size(), wide, False), launch, x.device)


@dataclass(frozen=True)
class Sample:
    """Typical rows ``x`` along ``dim``, on the meta device, and the plan for which a kernel is compiled."""

    name: str
    x: Tensor
    dim: int
    plan: Plan
    is_split: bool = False

    def per_row(self, dtype: torch.dtype | None = None) -> Tensor:
        """A tensor with an element for each row, in the precision of accumulation unless ``dtype`` is given."""
        return self.x.new_empty(self.x.shape[1 - self.dim], dtype=dtype or accumulation_dtype(self.x.dtype))

    def reduction(self) -> dict[str, object]:
        x, view = as_rows(self.dim, self.x)
        counts = x.new_empty(1, dtype=torch.int32)
        return {**_reduction(x, view, self.plan)[2], "parts": self.per_row(), "counters": counts}

    def mapping(self) -> dict[str, object]:
        x, view = as_rows(self.dim, self.x, self.x)
        return _mapping(x, view, self.plan, x)[1]


def samples() -> Iterator[tuple[Sample, Sample | None]]:
    """Rows for a few lanes, a warp, a block with wide loads and with narrow ones, and rows that are neighbours.

    Each comes with rows that are split if a block takes a row, else with None.
    """
    shapes = [(lanes, True, "") for lanes in (8, 32, THREADS)]
    shapes += [(THREADS, False, ", any strides"), (LANES_WHERE_CLOSER, False, ", rows closer")]
    for dtype, (lanes, wide, note) in itertools.product(ELEMENTS, shapes):
        name = f"{TYPES[dtype]}, {f'{lanes} lanes' if lanes < THREADS else 'block'} per row{note}"
        width = 16 // dtype.itemsize if wide else 1
        plan = Plan(Shape(lanes, width, chunk_of(width, dtype.itemsize)))
        # Triton specialises a kernel for integers that are 1 or multiples of 16: these are so only where they must be.
        odd = 0 if wide else 7
        dim = 1 if wide or lanes == THREADS else 0
        rows, n = 1 << 20, 128 * 193 + odd
        x = torch.empty((rows, n) if dim else (n, rows), dtype=dtype, device="meta")
        long = torch.empty((48, (1 << 26) + odd), dtype=dtype, device="meta")
        yield Sample(name, x, dim, plan), Sample(name, long, 1, plan, is_split=True) if lanes == THREADS else None


def row_variants(
    forward: triton.JITFunction,
    forward_arguments: Callable[[Sample], Mapping[str, object]],
    backward: triton.JITFunction | None = None,
    backward_arguments: Callable[[Sample], Mapping[str, object]] | None = None,
    split_note: str = "split",
) -> Sequence[KernelVariant]:
    """The kernels for `samples`, specialised as at a launch. The functions give the ``own`` arguments of a launch."""
    found: list[KernelVariant] = []
    for sample, split in samples():
        arguments = {**sample.reduction(), **forward_arguments(sample)}
        found.append(_variant(forward, f"forward {sample.name}", sample, 1, arguments))
        if split:
            arguments = {**split.reduction(), **forward_arguments(split)}
            found.append(_variant(forward, f"forward {split.name}, {split_note}", split, 1, arguments))
        if backward and backward_arguments:
            arguments = {**sample.mapping(), **backward_arguments(sample)}
            found.append(_variant(backward, f"backward {sample.name}", sample, 2, arguments))
    return found


def _variant(
    kernel: triton.JITFunction, name: str, sample: Sample, moved: int, arguments: Mapping[str, object]
) -> KernelVariant:
    """``moved`` says how often each element is read or written."""
    fixed = {each.name for each in getattr(kernel, "params", ()) if each.do_not_specialize}  # none if interpreted
    shape, itemsize = sample.plan.shape, sample.x.element_size()
    return TritonVariant(
        name=name, threads=THREADS, items=shape.width * shape.chunk, unit="elements", bytes_per_item=moved * itemsize,
        access_bytes=16 if shape.width > 1 else 0, kernel=kernel,
        signature={each: _specialised(each, arguments[each], each in fixed) for each in kernel.arg_names},
    )  # fmt: skip


def _specialised(name: str, value: object, is_fixed: bool) -> object:
    """An argument in the notation of `TritonVariant`, as Triton's launcher specialises a kernel for it.

    A kernel's ``tl.constexpr`` parameters have names in capitals.
    """
    if isinstance(value, Tensor):
        return f"*{TYPES[value.dtype]}:16"
    if name.isupper() or not isinstance(value, int) or (value == 1 and not is_fixed):
        return value
    return f"{'i32' if abs(value) < 1 << 31 else 'i64'}{'' if value % 16 or is_fixed else ':16'}"
