"""The gradient in Triton: hidden probabilities of both phases in one launch, both products of states in another.

Arithmetic on the bfloat16 tensor cores bounds the speed: each chain and weight takes 2 operations for hidden states, 6
for hidden probabilities (float32, three parts), and 2 or 6 more for the fields if probabilities are computed. Memory
traffic is one byte for each state, and 4 for each probability, written and read once.

A program computes a tile of the gradient from its part of the data's chains and then of the model's, in separate sums,
so that equal phases cancel exactly. If tiles are few and chains many, chains are split into parts; the program that
finishes last adds the parts in order. The programs of the first row and column of tiles also sum the states of their
units, for the biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import triton
import triton.language as tl
from torch import Tensor

from ..common.binary_product_triton import add_product, fields
from ..common.triton_math import from_bits, rounded_product
from ..common.triton_runtime import INTERPRETS
from ..common.variants import KernelVariant
from ..machines.product_tiles import Tile, field_tile, largest_field_tile, triton_variant
from .launches import Phase, inference, products

if TYPE_CHECKING:
    from . import Gradient

TILES = (Tile(128, 64, 32, 8), Tile(64, 64, 32, 4))
"""Rows are visible units, columns are hidden units, terms are chains."""
INTERPRETED = Tile(64, 64, 256, 4)
"""An interpreted program takes a few milliseconds, for large and small tiles alike."""
TILES_WANTED = 64
"""Large tiles, at least; otherwise tiles are small, and chains are split."""
MOST_UNITS = (1 << 31) // (INTERPRETED if INTERPRETS else TILES[0]).terms - 1
"""Offsets within a block of chains have 32 bits."""
ROWS_ADDED = tl.constexpr(64 if INTERPRETS else 32)


@triton.jit(do_not_specialize=["beta_bits"])
def infer_kernel(
    data,  # uint8 (data_chains, visible_units) contiguous
    model,  # uint8 (model_chains, visible_units) contiguous
    data_hidden,  # float32 (data_chains, hidden_units) contiguous
    model_hidden,
    weights,  # (visible_units, hidden_units), strides below
    hidden_bias,  # (hidden_units,) contiguous
    data_tiles,  # programs for the data's chains, which come first
    data_chains,
    model_chains,
    visible_units,
    hidden_units,
    weight_stride_visible,
    weight_stride_hidden,
    beta_bits,
    BLOCK_CHAINS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_VISIBLE: tl.constexpr,
):
    # In 64 bits, since Triton may pass each of the numbers in 32 or 64 bits.
    tile = tl.program_id(0).to(tl.int64)
    visible, hidden, chains = data, data_hidden, tl.cast(data_chains, tl.int64)
    if tile >= data_tiles:
        visible, hidden, chains = model, model_hidden, tl.cast(model_chains, tl.int64)
        tile -= data_tiles
    chain = tile * BLOCK_CHAINS + tl.arange(0, BLOCK_CHAINS)
    unit = tl.program_id(1).to(tl.int64) * BLOCK_HIDDEN + tl.arange(0, BLOCK_HIDDEN)
    field = fields(
        visible, weights, hidden_bias, chain, unit, chains, visible_units, hidden_units, weight_stride_visible,
        weight_stride_hidden, BLOCK_CHAINS, BLOCK_HIDDEN, BLOCK_VISIBLE,
    )  # fmt: skip
    p = 1.0 / (1.0 + tl.exp(-from_bits(beta_bits, tl.float32) * field))
    mask = (chain < chains)[:, None] & (unit < hidden_units)[None, :]
    tl.store(hidden + chain[:, None] * hidden_units + unit[None, :], p, mask=mask)


@triton.jit
def phase_sum(
    visible, hidden, first, end, i, j, visible_units, hidden_units,
    BLOCK_VISIBLE: tl.constexpr, BLOCK_HIDDEN: tl.constexpr, BLOCK_CHAINS: tl.constexpr,
):  # fmt: skip
    """``sum_c v_ci h_cj`` over the chains from ``first`` to ``end``; float32 (BLOCK_VISIBLE, BLOCK_HIDDEN)."""
    total = tl.zeros((BLOCK_VISIBLE, BLOCK_HIDDEN), tl.float32)
    # 32-bit offsets, the same for every block of chains: 64-bit addresses would take the registers that tiles need.
    row = tl.arange(0, BLOCK_CHAINS)
    v_place = row[None, :] * tl.cast(visible_units, tl.int32) + i.to(tl.int32)[:, None]
    h_place = row[:, None] * tl.cast(hidden_units, tl.int32) + j.to(tl.int32)[None, :]
    v_mask, h_mask = (i < visible_units)[:, None], (j < hidden_units)[None, :]
    for start in range(first, end, BLOCK_CHAINS):
        inside = row < end - start
        v = tl.load(visible + start * visible_units + v_place, mask=inside[None, :] & v_mask, other=0)
        h = tl.load(hidden + start * hidden_units + h_place, mask=inside[:, None] & h_mask, other=0)
        total = add_product(v, h, total)
    return total


@triton.jit
def unit_sum(states, first, end, unit, units, BLOCK_UNITS: tl.constexpr, BLOCK_CHAINS: tl.constexpr):
    """The sum of states or probabilities over the chains from ``first`` to ``end``; float32 (BLOCK_UNITS,)."""
    total = tl.zeros((BLOCK_UNITS,), tl.float32)
    row = tl.arange(0, BLOCK_CHAINS)
    place = row[:, None] * tl.cast(units, tl.int32) + unit.to(tl.int32)[None, :]
    for start in range(first, end, BLOCK_CHAINS):
        mask = (row < end - start)[:, None] & (unit < units)[None, :]
        total += tl.sum(tl.load(states + start * units + place, mask=mask, other=0).to(tl.float32), axis=0)
    return total


@triton.jit
def difference(of_data, of_model, data_chains, model_chains):
    """The difference of two means, each rounded before the subtraction, so that equal phases cancel."""
    of_data = rounded_product(of_data, 1.0 / data_chains.to(tl.float32))
    return of_data - rounded_product(of_model, 1.0 / model_chains.to(tl.float32))


@triton.jit
def add_parts(total, first, whole, mask):
    """``total`` plus the values at ``first`` in each part; parts are ``whole`` numbers apart and added in order."""
    for part in range(tl.num_programs(2)):
        # Bypass the L1 cache, which may hold stale values.
        given = first + tl.cast(part, tl.int64) * whole
        total += tl.load(given, mask=mask, other=0.0, cache_modifier=".cg")
    return total


@triton.jit(do_not_specialize=["data_part", "model_part", "data_chains", "model_chains"])
def gradient_kernel(
    data,  # uint8 (data_chains, visible_units) contiguous
    model,  # uint8 (model_chains, visible_units) contiguous
    data_hidden,  # uint8 or float32 (data_chains, hidden_units) contiguous
    model_hidden,
    weights_out,  # float32 (visible_units, hidden_units) contiguous
    visible_out,  # float32 (visible_units,)
    hidden_out,  # float32 (hidden_units,)
    parts,  # float32 (parts, visible_units hidden_units + visible_units + hidden_units), if SPLIT
    counters,  # one for each tile, 0 before and after, if SPLIT
    data_chains,
    model_chains,
    visible_units,
    hidden_units,
    data_part,  # chains in a part
    model_part,
    SPLIT: tl.constexpr,
    BLOCK_VISIBLE: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_CHAINS: tl.constexpr,
):
    part = tl.program_id(2).to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * BLOCK_VISIBLE + tl.arange(0, BLOCK_VISIBLE)
    j = tl.program_id(1).to(tl.int64) * BLOCK_HIDDEN + tl.arange(0, BLOCK_HIDDEN)
    data_first, model_first = part * data_part, part * model_part
    data_end = tl.minimum(data_first + data_part, data_chains)
    model_end = tl.minimum(model_first + model_part, model_chains)
    of_data = phase_sum(
        data, data_hidden, data_first, data_end, i, j, visible_units, hidden_units, BLOCK_VISIBLE, BLOCK_HIDDEN,
        BLOCK_CHAINS,
    )  # fmt: skip
    of_model = phase_sum(
        model, model_hidden, model_first, model_end, i, j, visible_units, hidden_units, BLOCK_VISIBLE, BLOCK_HIDDEN,
        BLOCK_CHAINS,
    )  # fmt: skip
    size = tl.cast(visible_units, tl.int64) * hidden_units
    whole = size + visible_units + hidden_units
    if SPLIT:
        weights_to = parts + part * whole
        visible_to = weights_to + size
        hidden_to = visible_to + visible_units
    else:
        weights_to, visible_to, hidden_to = weights_out, visible_out, hidden_out
    place = i[:, None] * hidden_units + j[None, :]
    mask = (i < visible_units)[:, None] & (j < hidden_units)[None, :]
    tl.store(weights_to + place, difference(of_data, of_model, data_chains, model_chains), mask=mask)
    if tl.program_id(1) == 0:
        data_sum = unit_sum(data, data_first, data_end, i, visible_units, BLOCK_VISIBLE, BLOCK_CHAINS)
        model_sum = unit_sum(model, model_first, model_end, i, visible_units, BLOCK_VISIBLE, BLOCK_CHAINS)
        tl.store(visible_to + i, difference(data_sum, model_sum, data_chains, model_chains), mask=i < visible_units)
    if tl.program_id(0) == 0:
        data_sum = unit_sum(data_hidden, data_first, data_end, j, hidden_units, BLOCK_HIDDEN, BLOCK_CHAINS)
        model_sum = unit_sum(model_hidden, model_first, model_end, j, hidden_units, BLOCK_HIDDEN, BLOCK_CHAINS)
        tl.store(hidden_to + j, difference(data_sum, model_sum, data_chains, model_chains), mask=j < hidden_units)
    if SPLIT:
        counter = counters + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.debug_barrier()  # all threads store before one of them counts
        finished_before = tl.atomic_add(counter, 1, sem="acq_rel")
        if finished_before == tl.num_programs(2) - 1:
            tl.store(counter, 0)
            # A few rows at a time: the addresses of a whole tile would fill the registers.
            for row in range(0, BLOCK_VISIBLE, ROWS_ADDED):
                own = tl.program_id(0).to(tl.int64) * BLOCK_VISIBLE + row + tl.arange(0, ROWS_ADDED)
                added = own[:, None] * hidden_units + j[None, :]
                inside = (own < visible_units)[:, None] & (j < hidden_units)[None, :]
                total = tl.zeros((ROWS_ADDED, BLOCK_HIDDEN), tl.float32)
                tl.store(weights_out + added, add_parts(total, parts + added, whole, inside), mask=inside)
            if tl.program_id(1) == 0:
                units = tl.zeros((BLOCK_VISIBLE,), tl.float32)
                units = add_parts(units, parts + size + i, whole, i < visible_units)
                tl.store(visible_out + i, units, mask=i < visible_units)
            if tl.program_id(0) == 0:
                units = tl.zeros((BLOCK_HIDDEN,), tl.float32)
                units = add_parts(units, parts + size + visible_units + j, whole, j < hidden_units)
                tl.store(hidden_out + j, units, mask=j < hidden_units)


def infer(phases: Sequence[Phase], weights: Tensor, hidden_bias: Tensor, beta: float) -> None:
    """Write ``hidden`` of one or two phases."""
    tile = field_tile(sum(len(phase.visible) for phase in phases), weights.shape[1], weights.dtype)
    launch = inference(tile, phases, weights, hidden_bias, beta)
    infer_kernel[launch.grid](
        *launch.triton_arguments(unread=weights), **tile.sizes("CHAINS", "HIDDEN", "VISIBLE"), num_warps=tile.warps
    )


def gradient(data: Phase, model: Phase, out: Gradient) -> None:
    """Write ``out`` from visible and hidden units of both phases."""
    visible_units, hidden_units = out.weights.shape
    if max(visible_units, hidden_units) > MOST_UNITS:
        raise ValueError(f"data must have at most {MOST_UNITS} visible and hidden units with backend 'triton'")
    rows, columns = TILES[0].grid(visible_units, hidden_units)
    tile = INTERPRETED if INTERPRETS else TILES[0 if rows * columns >= TILES_WANTED else 1]
    launch = products(tile, data, model, out)
    gradient_kernel[launch.grid](
        *launch.triton_arguments(unread=out.weights), SPLIT=launch.grid[2] > 1,
        **tile.sizes("VISIBLE", "HIDDEN", "CHAINS"), num_warps=tile.warps,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """Hidden probabilities for each dtype of the weights; the gradient for probabilities and states with each tile."""
    found: list[KernelVariant] = []
    for dtype, size in (("fp32", 4), ("fp16", 2), ("bf16", 2)):
        tile = largest_field_tile(size)
        given = {
            **dict.fromkeys(("data", "model"), "*u8:16"),
            **dict.fromkeys(("data_hidden", "model_hidden"), "*fp32:16"),
            **dict.fromkeys(("weights", "hidden_bias"), f"*{dtype}:16"),
            "weight_stride_hidden": 1,
            "beta_bits": "i64",
            **tile.sizes("CHAINS", "HIDDEN", "VISIBLE"),
        }
        found.append(triton_variant(f"probabilities {dtype}", infer_kernel, tile, size, given))
    for hidden, size in (("fp32", 4), ("u8", 1)):
        for split, tile in ((True, TILES[0]), (False, TILES[1])):
            given = {
                **dict.fromkeys(("data", "model"), "*u8:16"),
                **dict.fromkeys(("data_hidden", "model_hidden"), f"*{hidden}:16"),
                **dict.fromkeys(("weights_out", "visible_out", "hidden_out", "parts"), "*fp32:16"),
                "counters": "*i32:16",
                **dict.fromkeys(("data_chains", "model_chains", "data_part", "model_part"), "i32"),
                "SPLIT": split,
                **tile.sizes("VISIBLE", "HIDDEN", "CHAINS"),
            }
            name = f"{'probabilities' if hidden == 'fp32' else 'states'}, {tile.rows} x {tile.columns}"
            found.append(triton_variant(name, gradient_kernel, tile, size, given))
    return found
