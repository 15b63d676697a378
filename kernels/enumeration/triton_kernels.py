"""Enumeration in Triton, with the tables and products of `enumeration.cu`.

Instruction issue bounds `product_kernel`, and float64 matrix products bound `machine_kernel`; `enumeration.cu` counts
both. A program of `product_kernel` takes tiles of 32 x 256 states. A program of `machine_kernel` takes the 256 middle
states and sums over the low states by float64 matrix products.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.triton_runtime import INTERPRETS, helper
from ..common.variants import KernelVariant, TritonVariant
from .tables import GROUP, combine, machine_tables, product_tables

MOST_PROGRAMS = 132 * 16
WARPS = 8
UNITS = 16
HIGH, LOW = 32, 256
"""States of a tile; a thread takes 4 x 8."""
_GROUP = tl.constexpr(GROUP)
_FAR = tl.constexpr(-(1 << 30))
LOG_2 = tl.constexpr(0.693147180559945309417)


@helper
def _power_of_two(exponent):
    """2**exponent in float32; 0 below the smallest normal number."""
    return ((tl.maximum(exponent, -127) + 127) << 23).to(tl.float32, bitcast=True)


@helper
def _power_of_two_double(exponent):
    return ((tl.maximum(exponent, -1023) + 1023).to(tl.int64) << 52).to(tl.float64, bitcast=True)


@helper
def _without_exponent(p, exponent):
    """The mantissa of a positive number, in [1, 2), and ``exponent`` plus its biased exponent, 127 too large."""
    bits = p.to(tl.int32, bitcast=True)
    return ((bits & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True), exponent + (bits >> 23)


@triton.jit
def product_kernel(
    high,  # float32 (high tiles, units, HIGH)
    low,  # float32 (low tiles, units, LOW)
    rest,  # float32 (units,)
    bias_high,  # float32 (high_states,)
    bias_low,  # float32 (low_states,)
    every,  # int32 (1,)
    parts,  # float64 (programs, 2)
    units,  # a multiple of 8
    low_tiles,
    HIGH: tl.constexpr,
    LOW: tl.constexpr,
):
    rows, columns = tl.arange(0, HIGH), tl.arange(0, LOW)
    each = tl.load(every)
    row_bias = tl.load(bias_high + tl.program_id(0) * HIGH + rows)
    peak = tl.full((), _FAR, tl.int32)
    total = tl.full((), 0.0, tl.float64)
    for tile in range(tl.program_id(1), low_tiles, tl.num_programs(1)):
        p = tl.full((HIGH, LOW), 1.0, tl.float32)
        exponent = tl.zeros((HIGH, LOW), tl.int32)
        of_high = high + tl.program_id(0).to(tl.int64) * units * HIGH + rows
        of_low = low + tl.cast(tile, tl.int64) * units * LOW + columns
        added = rest
        if each == 0:
            for _ in range(0, units, _GROUP):
                for j in tl.static_range(_GROUP):
                    p *= tl.load(of_high + j * HIGH)[:, None] * tl.load(of_low + j * LOW)[None, :] + tl.load(added + j)
                p, exponent = _without_exponent(p, exponent)
                of_high += _GROUP * HIGH
                of_low += _GROUP * LOW
                added += _GROUP
        else:
            for _ in range(units):
                p *= tl.load(of_high)[:, None] * tl.load(of_low)[None, :] + tl.load(added)
                p, exponent = _without_exponent(p, exponent)
                of_high += HIGH
                of_low += LOW
                added += 1
        p *= row_bias[:, None] * tl.load(bias_low + tile * LOW + columns)[None, :]
        p, exponent = _without_exponent(p, exponent)
        tile_peak = tl.max(tl.max(exponent, axis=1), axis=0)
        terms = p * _power_of_two(exponent - tile_peak)
        found = tl.sum(tl.sum(terms, axis=1).to(tl.float64), axis=0)
        larger = tl.maximum(peak, tile_peak)
        total = total * _power_of_two_double(peak - larger) + found * _power_of_two_double(tile_peak - larger)
        peak = larger
    taken = tl.where(each != 0, units, units // _GROUP) + 1
    part = parts + 2 * (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0))
    tl.store(part, (peak - 127 * taken).to(tl.float64) * LOG_2)
    tl.store(part + 1, total)


@triton.jit
def machine_kernel(
    pair,  # float64 (16, 16)
    first,  # float64 (256, 16)
    second,  # float64 (256, 16)
    fields,  # float64 (top_units, 16)
    top,  # float64 (top_units, top_units)
    parts,  # float64 (programs, 2)
    states,  # 2**top_units
    top_units,
    UNITS: tl.constexpr,
):
    middle, small = tl.arange(0, UNITS * UNITS), tl.arange(0, UNITS)
    at = middle[:, None] * UNITS + small[None, :]
    a = tl.load(first + at)
    matrix = tl.load(pair + small[:, None] * UNITS + small[None, :])
    bit = 1 << (small & 3)
    block = small >> 2  # units 0 to 3, 4 to 7, 8 to 11, 12 to 15
    peak = tl.full((), float("-inf"), tl.float64)
    total = tl.zeros((UNITS * UNITS,), tl.float64)
    for state in range(tl.program_id(0).to(tl.int64), states, tl.num_programs(0)):
        x = tl.zeros((UNITS,), tl.float64)
        level = tl.full((), 0.0, tl.float64)
        for i in range(top_units):
            if (state >> i) & 1 == 1:
                x += tl.load(fields + i * UNITS + small)
                for k in range(i + 1):
                    if (state >> k) & 1 == 1:
                        level += tl.load(top + i * top_units + k)
        level += tl.sum(tl.maximum(x, 0.0), axis=0)
        larger = tl.maximum(peak, level)
        total *= tl.exp(peak - larger)
        peak = larger
        # Unit i of a group adds x or 0, minus the larger of the two, so that exponentials are at most 1.
        u = _exponential(x, block, bit, small, 0)
        v = _exponential(x, block, bit, small, 1)
        lower = _exponential(x, block, bit, small, 2)
        upper = _exponential(x, block, bit, small, 3)
        of_middle = tl.reshape(upper[:, None] * (lower * tl.exp(level - peak))[None, :], (UNITS * UNITS,))
        rows = tl.dot(a, matrix * (u[:, None] * v[None, :]), input_precision="ieee", out_dtype=tl.float64)
        total += tl.sum(rows * tl.load(second + at), axis=1) * of_middle
    part = parts + 2 * tl.program_id(0)
    tl.store(part, peak)
    tl.store(part + 1, tl.sum(total, axis=0))


@helper
def _exponential(x, block, bit, numbers, BLOCK: tl.constexpr):
    """``e^`` of what the fields ``x`` on the four units of a group add to their states ``numbers``; at most 1."""
    of_block = tl.where(block == BLOCK, x, 0.0)
    set_bits = (numbers[:, None] & bit[None, :]) != 0
    return tl.exp(tl.sum(tl.where(set_bits, of_block[None, :], 0.0) - tl.maximum(of_block, 0.0)[None, :], axis=1))


def product_sum(w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``log sum_x e^(b.x) prod_j (1 + e^(c_j + (x W)_j))`` for ``w`` (enumerated units, other units)."""
    tables = product_tables(w, b, c, HIGH, LOW)
    across, units, _ = tables.high.shape
    low_tiles = len(tables.low)
    grid = (across, max(1, min(low_tiles, MOST_PROGRAMS // across)))
    parts = torch.empty((grid[0] * grid[1], 2), dtype=torch.float64, device=w.device)
    product_kernel[grid](*tables[:-1], parts, units, low_tiles, HIGH=HIGH, LOW=LOW, num_warps=WARPS)
    return combine(parts, tables.offset)


def machine_sum(w: Tensor, b: Tensor) -> Tensor:
    """``log sum_x e^(1/2 x.W.x + b.x)`` for ``w`` (n, n)."""
    tables = machine_tables(w, b)
    top_units = len(tables.top)
    programs = 1 if INTERPRETS else min(1 << top_units, MOST_PROGRAMS)
    parts = torch.empty((programs, 2), dtype=torch.float64, device=w.device)
    machine_kernel[(programs,)](*tables[:-1], parts, 1 << top_units, top_units, UNITS=UNITS, num_warps=WARPS)
    return combine(parts, tables.offset)


def variants() -> Sequence[KernelVariant]:
    """Both kernels. For a restricted machine one pass of the loop multiplies 8 factors of 32 states."""
    return [
        TritonVariant(
            name="restricted machine",
            threads=32 * WARPS,
            items=GROUP * HIGH * LOW // (32 * WARPS),
            unit="terms",
            bytes_per_item=0.0,
            kernel=product_kernel,
            signature={
                **dict.fromkeys(("high", "low", "rest", "bias_high", "bias_low"), "*fp32:16"),
                "every": "*i32:16",
                "parts": "*fp64:16",
                "units": "i32",
                "low_tiles": "i32:16",
                "HIGH": HIGH,
                "LOW": LOW,
            },
        ),
        TritonVariant(
            name="machine",
            threads=32 * WARPS,
            items=UNITS**4 // (32 * WARPS),
            unit="states",
            bytes_per_item=0.0,
            kernel=machine_kernel,
            signature={
                **dict.fromkeys(("pair", "first", "second", "fields", "top", "parts"), "*fp64:16"),
                "states": "i32:16",
                "top_units": "i32",
                "UNITS": UNITS,
            },
        ),
    ]
