"""Tables of exponentials for parts of a state, from which the kernels form those of whole states as products.

torch makes all tables in float64 on the device, without a synchronization. The parameters already include beta. If
exponentials overflow or underflow, the offset is NaN. A table has one row for each state of half of the units, so a
kernel's work is the square of its size.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..machines.states import all_states

GROUP = 8
"""Factors that a kernel multiplies before it normalizes the exponent of the product."""
MOST_SPREAD = {torch.float32: 80.0, torch.float64: 600.0}
"""Spread of the exponents of half a state, at most: float32 holds exp(-87) to exp(88), float64 exp(-708)."""
MOST_DRIFT = {torch.float32: 22000.0, torch.float64: math.inf}
"""Magnitude of the logarithm of a product of all factors, at most: the kernels for float32 keep 16 bits of it."""
MOST_MACHINE_SPREAD = 600.0
"""Spread of the exponents of the lower 16 units for one state of the others, at most: float64 holds exp(-708)."""


class ProductTables(NamedTuple):
    """The tables of ``sum over hi, lo of bias_high[hi] bias_low[lo] prod_j (high[j, hi] low[j, lo] + rest[j])``.

    float32 or float64. Factors of 1 pad the units to a multiple of `GROUP`; repeated states fill the last tile. A tile
    holds the entries of a fixed number of states for each unit. ``every`` is int32 (1,): 1 if exponents must be
    normalized after each factor. ``offset`` is float64, added to the logarithm of the sum.
    """

    high: Tensor  # (tiles, units, states of a tile)
    low: Tensor
    rest: Tensor  # (units,)
    bias_high: Tensor  # (states,)
    bias_low: Tensor
    every: Tensor
    offset: Tensor


class MachineTables(NamedTuple):
    """The tables of a machine of ``n`` units.

    A state has 4 + 4 low bits (``a`` and ``b``) and 8 middle bits (``m``); the rest are top bits (``t``). Each state
    of the top units adds its fields on the 16 lower units to their energies:

        sum_t e^(-E_t) sum_m w_t(m) sum_a first[m, a] u_t(a) sum_b pair[a, b] v_t(b) second[m, b]

    float64. ``first`` and ``second`` (256, 16) hold the couplings of middle to low units, ``pair`` (16, 16) those among
    low units; ``second`` also holds those among middle units. ``fields`` (top units, 16) are the couplings of top to
    lower units, ``top`` (top units, top units) those among top units, with biases on the diagonal and 0 above it.
    ``offset`` is added to the logarithm of the sum.
    """

    pair: Tensor
    first: Tensor
    second: Tensor
    fields: Tensor
    top: Tensor
    offset: Tensor


def _halves(units: int) -> int:
    """The number of units in the low half."""
    return (units + 1) // 2


def product_tables(
    w: Tensor, b: Tensor, c: Tensor, high_tile: int, low_tile: int, dtype: torch.dtype = torch.float32
) -> ProductTables:
    """The tables, in ``dtype``, of a restricted machine: ``w`` (enumerated units, other units), biases; float64.

    ``1 + e^z = e^s (e^-s + e^(z - s))`` with ``s`` in the middle of the range of ``log(1 + e^z)``, so that products
    stay as close to 1 as they can.
    """
    units, device = w.shape[1], w.device
    count = _halves(len(w))
    low, high = (all_states(len(part), device) @ torch.cat((part, bias[:, None]), 1)
                 for part, bias in ((w[:count], b[:count]), (w[count:], b[count:])))  # fmt: skip
    (low_min, low_max), (high_min, high_max) = torch.aminmax(low, dim=0), torch.aminmax(high, dim=0)
    most, least = (low_max + high_max)[:units] + c, (low_min + high_min)[:units] + c
    most_factor, least_factor = torch.nn.functional.softplus(most), torch.nn.functional.softplus(least)
    middle = (most_factor + least_factor) / 2
    shift = (most - middle) / 2  # the logarithm of the largest entry of either table
    padding = GROUP * max(1, -(-units // GROUP)) - units
    reach = torch.nn.functional.pad((most_factor - least_factor) / 2, (0, padding)).view(-1, GROUP).sum(1)
    fits = ((high_max - high_min).maximum(low_max - low_min).max() <= MOST_SPREAD[dtype]) & (
        reach.sum() <= MOST_DRIFT[dtype]
    )
    tables, biases = [], []
    for half, smallest, largest, tile in ((high, high_min, high_max, high_tile), (low, low_min, low_max, low_tile)):
        times = max(1, tile // len(half))
        table = torch.exp(half[:, :units] - largest[:units] + shift).to(dtype)
        table = torch.nn.functional.pad(table, (0, padding)).repeat(times, 1)
        tables.append(table.view(-1, tile, units + padding).transpose(1, 2).contiguous())
        bias = torch.exp(half[:, units] - (smallest[units] + largest[units]) / 2).to(dtype)
        biases.append(bias.repeat(times))
    copies = len(biases[0]) * len(biases[1]) / (len(high) * len(low))
    offset = middle.sum() + (low_min + low_max + high_min + high_max)[units] / 2 - math.log(copies)
    return ProductTables(
        tables[0],
        tables[1],
        torch.nn.functional.pad(torch.exp(-middle), (0, padding), value=1.0).to(dtype),
        biases[0],
        biases[1],
        (reach.max() > MOST_SPREAD[dtype]).to(torch.int32).view(1),
        torch.where(fits, offset, torch.nan),
    )


def _own_energies(w: Tensor, b: Tensor, first: int, end: int, units: int) -> Tensor:
    """``-E`` of the states of units ``first`` to ``end`` alone, (2**units,); -inf if a missing unit is 1."""
    states = all_states(units, w.device)
    part = slice(min(first, len(w)), min(end, len(w)))
    present = part.stop - part.start
    x = states[:, :present]
    value = 0.5 * ((x @ w[part, part]) * x).sum(1) + x @ b[part]
    return torch.where(states[:, present:].any(1), -torch.inf, value)


def _padded(w: Tensor, rows: slice, columns: slice, shape: tuple[int, int]) -> Tensor:
    part = w[rows, columns]
    return torch.nn.functional.pad(part, (0, shape[1] - part.shape[1], 0, shape[0] - part.shape[0]))


def machine_tables(w: Tensor, b: Tensor) -> MachineTables:
    """The tables of a machine with weights ``w`` (n, n) and biases ``b`` (n,), float64, contiguous."""
    low, middle = _own_energies(w, b, 0, 8, 8), _own_energies(w, b, 8, 16, 8)
    states, half = all_states(8, w.device), all_states(4, w.device)
    cross = states @ _padded(w, slice(8, 16), slice(0, 8), (8, 8))  # fields of middle states on low units
    first, second = cross[:, :4] @ half.t(), cross[:, 4:] @ half.t()
    most_first, most_second, most_middle = first.amax(0), second.amax(0), middle.max()
    pair = low.view(16, 16).t() + most_first[:, None] + most_second  # bits 0 to 3 are a
    peak = pair.max()
    top = w[16:, 16:].tril(-1) + torch.diag(b[16:])
    lower = w[:16].abs()
    spread = lower.sum() - lower[:, :16].sum() / 2 + b[:16].abs().sum()
    return MachineTables(
        torch.exp(pair - peak).contiguous(),
        torch.exp(first - most_first).contiguous(),
        torch.exp(second - most_second + (middle - most_middle)[:, None]).contiguous(),
        _padded(w, slice(16, None), slice(0, 16), (max(0, len(w) - 16), 16)).contiguous(),
        top.contiguous(),
        torch.where(spread <= MOST_MACHINE_SPREAD, peak + most_middle, torch.nan),
    )


def combine(parts: Tensor, offset: Tensor) -> Tensor:
    """``offset`` plus the log of the sum over blocks of ``e^parts[:, 0] parts[:, 1]``; float64 of no dimensions."""
    return torch.logsumexp(parts[:, 0] + torch.log(parts[:, 1]), 0) + offset
