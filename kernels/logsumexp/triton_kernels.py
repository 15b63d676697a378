"""Log-sum-exp in Triton, forward and backward.

Bound by memory: the forward reads each element once (4 B or 2 B) and writes a row's result; the backward reads and
writes each element once. Per element one exponential (ex2), a subtraction, a product and a comparison.

Design: a program owns a tile of rows and walks along them, keeping a running maximum and a running sum per row; the
sum is rescaled once per step, not per element. Where rows are neighbours in memory (a reduction over an outer
dimension) the tile is wide in rows, so that loads stay coalesced. Rows too few to fill the device are split; a second
kernel combines the parts.
"""

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton_math import bits_of, from_bits, round_to
from ..variants import TritonVariant, Variant
from .rows import Rows, as_rows

TILE = 4096
"""Elements in one step of a program."""
ROWS_WHERE_CLOSER = 64
"""Rows in a tile where neighbours in memory belong to neighbouring rows."""
PROGRAMS_WANTED = 528
"""Programs that fill a large device several times over (132 multiprocessors, 4 each); fewer rows are split."""
SPLIT_AT_LEAST = 16384
"""A part of a split row is at least this long, so that combining stays negligible."""


@triton.jit
def _row_offset(row, size1, size2, stride0, stride1, stride2):
    inner = row % size2
    rest = row // size2
    return (rest // size1) * stride0 + (rest % size1) * stride1 + inner * stride2


@triton.jit
def _shift(peak):
    """What is subtracted before the exponential: the maximum, unless it is infinite (inf - inf would be NaN)."""
    return tl.where((peak == float("inf")) | (peak == -float("inf")), 0.0, peak)


@triton.jit
def _rescale(total, peak, new_peak, scale):
    """``total``, a sum of exponentials shifted by ``peak``, as a sum shifted by ``new_peak``."""
    factor = tl.exp2((peak - _shift(new_peak)) * scale)
    return total * tl.where(peak == new_peak, 1.0, tl.where(peak == -float("inf"), 0.0, factor))


@triton.jit
def _finish(peak, total, beta, FLIP: tl.constexpr):
    return tl.where(FLIP, -_shift(peak), _shift(peak)) * beta + tl.log(total)


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def forward_kernel(
    x,  # any strides
    y,  # (rows,) contiguous
    exact,  # (rows,) contiguous in ACC, written if HAS_EXACT
    peaks,  # (splits, rows) in ACC: the maximum of each part, written if SPLIT
    totals,  # (splits, rows) in ACC: the shifted sum of each part, written if SPLIT
    rows,
    n,
    size1,
    size2,
    stride0,
    stride1,
    stride2,
    stride,
    part,  # length of one part of a split row
    beta_bits,
    scale_bits,  # |beta| log2 e
    ACC: tl.constexpr,
    FLIP: tl.constexpr,  # beta < 0: reduce -x at -beta
    SPLIT: tl.constexpr,
    HAS_EXACT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    row_mask = row < rows
    base = x + _row_offset(row, size1, size2, stride0, stride1, stride2)[:, None]
    scale = from_bits(scale_bits, ACC)
    begin = tl.program_id(1).to(tl.int64) * part
    end = tl.minimum(begin + part, n)
    peak = tl.full((BLOCK_ROWS,), -float("inf"), ACC)
    total = tl.zeros((BLOCK_ROWS,), ACC)
    for start in range(begin, end, BLOCK_N):
        column = start + tl.arange(0, BLOCK_N).to(tl.int64)
        mask = row_mask[:, None] & (column < end)[None, :]
        z = tl.load(base + (column * stride)[None, :], mask=mask, other=0.0).to(ACC)
        if FLIP:
            z = -z
        new_peak = tl.maximum(peak, tl.max(tl.where(mask, z, -float("inf")), axis=1))
        # Masked lanes add nothing whatever the scale: 0 * -inf would be NaN at beta = 0.
        terms = tl.where(mask, tl.exp2((z - _shift(new_peak)[:, None]) * scale), 0.0)
        total = _rescale(total, peak, new_peak, scale) + tl.sum(terms, axis=1)
        peak = new_peak
    if SPLIT:
        place = tl.program_id(1).to(tl.int64) * rows + row
        tl.store(peaks + place, peak, mask=row_mask)
        tl.store(totals + place, total, mask=row_mask)
    else:
        result = _finish(peak, total, from_bits(beta_bits, ACC), FLIP)
        tl.store(y + row, round_to(result, y.dtype.element_ty), mask=row_mask)
        if HAS_EXACT:
            tl.store(exact + row, result, mask=row_mask)


@triton.jit(do_not_specialize=["beta_bits", "scale_bits"])
def combine_kernel(
    peaks,  # (splits, rows) in ACC
    totals,  # (splits, rows) in ACC
    y,  # (rows,) contiguous
    exact,  # (rows,) contiguous in ACC, written if HAS_EXACT
    rows,
    splits,
    beta_bits,
    scale_bits,
    ACC: tl.constexpr,
    FLIP: tl.constexpr,
    HAS_EXACT: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    mask = row < rows
    scale = from_bits(scale_bits, ACC)
    peak = tl.full((BLOCK_ROWS,), -float("inf"), ACC)
    total = tl.zeros((BLOCK_ROWS,), ACC)
    for split in range(splits):
        place = split * rows + row
        part_peak = tl.load(peaks + place, mask=mask, other=-float("inf"))
        part_total = tl.load(totals + place, mask=mask, other=0.0)
        new_peak = tl.maximum(peak, part_peak)
        total = _rescale(total, peak, new_peak, scale) + _rescale(part_total, part_peak, new_peak, scale)
        peak = new_peak
    result = _finish(peak, total, from_bits(beta_bits, ACC), FLIP)
    tl.store(y + row, round_to(result, y.dtype.element_ty), mask=mask)
    if HAS_EXACT:
        tl.store(exact + row, result, mask=mask)


@triton.jit(do_not_specialize=["beta_bits"])
def backward_kernel(
    grad,  # (rows,) contiguous
    x,  # any strides
    lse,  # (rows,) contiguous in ACC
    dx,  # contiguous, x's shape
    rows,
    n,
    size1,
    size2,
    x_stride0,
    x_stride1,
    x_stride2,
    x_stride,
    dx_stride0,
    dx_stride1,
    dx_stride2,
    dx_stride,
    beta_bits,
    ACC: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    column_blocks = tl.cdiv(n, BLOCK_N)
    program = tl.program_id(0).to(tl.int64)
    row = (program // column_blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = (program % column_blocks) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask = row < rows
    mask = row_mask[:, None] & (column < n)[None, :]
    beta = from_bits(beta_bits, ACC)
    level = tl.load(lse + row, mask=row_mask, other=0.0)
    level = tl.where(level == -float("inf"), 0.0, level)
    factor = tl.load(grad + row, mask=row_mask, other=0.0).to(ACC) * beta
    x_place = _row_offset(row, size1, size2, x_stride0, x_stride1, x_stride2)[:, None] + (column * x_stride)[None, :]
    z = tl.load(x + x_place, mask=mask, other=0.0).to(ACC)
    slope = factor[:, None] * tl.exp(z * beta - level[:, None])
    dx_place = _row_offset(row, size1, size2, dx_stride0, dx_stride1, dx_stride2)
    tl.store(dx + dx_place[:, None] + (column * dx_stride)[None, :], round_to(slope, dx.dtype.element_ty), mask=mask)


def _tile(view: Rows) -> tuple[int, int]:
    """``(BLOCK_ROWS, BLOCK_N)``: the tile long in the direction in which memory runs."""
    if view.are_closer:
        block_rows = min(ROWS_WHERE_CLOSER, triton.next_power_of_2(view.count))
        return block_rows, min(TILE // block_rows, triton.next_power_of_2(view.n))
    block_n = min(TILE, triton.next_power_of_2(view.n))
    return min(TILE // block_n, triton.next_power_of_2(view.count)), block_n


def _accumulator(dtype: torch.dtype) -> tl.dtype:
    return tl.float64 if dtype is torch.float64 else tl.float32


def forward(x: Tensor, dim: int, beta: float, y: Tensor, exact: Tensor | None) -> None:
    """Write ``y`` and, if given, ``exact`` (the result in the precision of accumulation). ``x`` is not empty."""
    x, view = as_rows(dim, x)
    (layout,) = view.layouts
    acc = _accumulator(x.dtype)
    block_rows, block_n = _tile(view)
    row_programs = triton.cdiv(view.count, block_rows)
    splits = max(1, min(triton.cdiv(PROGRAMS_WANTED, row_programs), view.n // SPLIT_AT_LEAST))
    part = triton.cdiv(triton.cdiv(view.n, splits), block_n) * block_n
    splits = triton.cdiv(view.n, part)
    wide = torch.float64 if acc is tl.float64 else torch.float32
    parts = torch.empty((2, splits, view.count) if splits > 1 else (2, 0), dtype=wide, device=x.device)
    common = {"ACC": acc, "FLIP": beta < 0, "HAS_EXACT": exact is not None}
    bits = (bits_of(beta), bits_of(abs(beta) * math.log2(math.e)))
    target = y if exact is None else exact
    forward_kernel[(row_programs, splits)](
        x, y, target, parts[0], parts[1], view.count, view.n, *view.sizes[1:], *layout.strides, layout.stride,
        part, *bits, **common, SPLIT=splits > 1, BLOCK_ROWS=block_rows, BLOCK_N=block_n,
        num_warps=8 if block_rows * block_n >= TILE else 4,
    )  # fmt: skip
    if splits > 1:
        block_rows = min(128, triton.next_power_of_2(view.count))
        combine_kernel[(triton.cdiv(view.count, block_rows),)](
            parts[0], parts[1], y, target, view.count, splits, *bits, **common, BLOCK_ROWS=block_rows, num_warps=4
        )  # fmt: skip


def backward(grad: Tensor, x: Tensor, lse: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """Write the gradient with respect to ``x``, which is not empty, into ``out`` (contiguous)."""
    x, view = as_rows(dim, x, out)
    source, target = view.layouts
    block_rows, block_n = _tile(view)
    programs = triton.cdiv(view.count, block_rows) * triton.cdiv(view.n, block_n)
    backward_kernel[(programs,)](
        grad, x, lse, out, view.count, view.n, *view.sizes[1:], *source.strides, source.stride,
        *target.strides, target.stride, bits_of(beta), ACC=_accumulator(x.dtype), BLOCK_ROWS=block_rows,
        BLOCK_N=block_n, num_warps=8 if block_rows * block_n >= TILE else 4,
    )  # fmt: skip


def variants() -> Sequence[Variant]:
    """Long contiguous rows, short ones, and rows that are neighbours in memory, for each dtype; whole and split."""
    found: list[Variant] = []
    strides = ("stride0", "stride1", "stride2")
    for dtype, size in (("fp64", 8), ("fp32", 4), ("fp16", 2), ("bf16", 2)):
        acc = "fp64" if dtype == "fp64" else "fp32"
        common = {"ACC": tl.float64 if dtype == "fp64" else tl.float32, "beta_bits": "i64"}
        pointers = dict.fromkeys(("x", "y", "grad", "dx"), f"*{dtype}:16")
        pointers |= dict.fromkeys(("exact", "peaks", "totals", "lse"), f"*{acc}:16")
        sizes = {"rows": "i32:16", "n": "i32:16", "size1": 1, "part": "i32:16"}
        for block_rows, block_n in ((1, 4096), (32, 128), (64, 64)):
            closer = block_rows == 64  # rows are neighbours in memory
            shape = f"{dtype}, {block_rows} x {block_n}{', rows closer' if closer else ''}"
            blocks = {"BLOCK_ROWS": block_rows, "BLOCK_N": block_n, "size2": "i32:16"}
            inner = {"stride": "i32:16"} if closer else {"stride": 1}
            outer = dict.fromkeys(strides, "i32:16") | ({"stride2": 1} if closer else {})
            for split in (False, True):
                known = common | pointers | sizes | blocks | inner | outer
                known |= {"FLIP": split, "SPLIT": split, "HAS_EXACT": size == 2, "scale_bits": "i64"}
                name = f"forward {shape}{', split, beta < 0' if split else ''}"
                found.append(_variant(forward_kernel, name, size, known))
            known = common | pointers | sizes | blocks
            for tensor in ("x", "dx"):
                known |= {f"{tensor}_{key}": value for key, value in (inner | outer).items()}
            found.append(_variant(backward_kernel, f"backward {shape}", 2 * size, known))
        known = common | pointers | {"rows": "i32:16", "splits": "i32", "scale_bits": "i64", "BLOCK_ROWS": 128}
        known |= {"FLIP": False, "HAS_EXACT": size == 2}
        found.append(_variant(combine_kernel, f"combine {dtype}", 16 if dtype == "fp64" else 8, known))
    return found


def _variant(kernel: triton.JITFunction, name: str, bytes_per_item: int, known: dict[str, object]) -> Variant:
    threads = 256 if kernel is not combine_kernel else 128
    return TritonVariant(
        name=name,
        threads=threads,
        items=1 if kernel is combine_kernel else TILE // threads,
        unit="parts" if kernel is combine_kernel else "elements",
        bytes_per_item=bytes_per_item,
        access_bytes=0 if kernel is combine_kernel else 16,
        kernel=kernel,
        signature={parameter: known[parameter] for parameter in kernel.arg_names},
    )
