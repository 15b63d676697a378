"""What the kernels start from: exponentials of the parts of a state, so that those of whole states are products.

All tables are made in float64 by torch, on the device and without waiting for it; beta is in the parameters already.
Parameters whose exponentials do not fit make the offset NaN. The tables hold as many numbers as half of the units have
states: the work of a kernel is the square of that.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..machines.states import all_states

GROUP = 8
"""Factors between two looks at the exponent of a product."""
MOST_SPREAD = 80.0
"""Of the exponents of a half of a state: float32 holds exp(-87) to exp(88)."""
MOST_DRIFT = 22000.0
"""Of the logarithm of a product of all factors: its exponent has 16 bits."""
MOST_MACHINE_SPREAD = 600.0
"""What the exponents of the lower 16 units may differ by in one state of the others: float64 holds exp(-708)."""


class ProductTables(NamedTuple):
    """Of ``sum over hi, lo of bias_high[hi] bias_low[lo] prod_j (high[j, hi] low[j, lo] + rest[j])``.

    float32; units padded to a multiple of `GROUP` by factors 1, states to a whole tile by repetition. A tile holds what
    a block reads of a half: so many states of each unit.
    ``every`` is int32 (1,): 1 where the exponent has to be looked at after each factor. ``offset``: float64, what to
    add to the logarithm of the sum.
    """

    high: Tensor  # (tiles, units, states of a tile)
    low: Tensor
    rest: Tensor  # (units,)
    bias_high: Tensor  # (states,)
    bias_low: Tensor
    every: Tensor
    offset: Tensor


class MachineTables(NamedTuple):
    """Of a machine of ``n`` units: a state has 4 + 4 low bits (``a``, ``b``), 8 middle ones (``m``), the rest on top.

    For each state on top its fields on the 16 units below are added to their energies:

        sum_t e^(-E_t) sum_m w_t(m) sum_a first[m, a] u_t(a) sum_b pair[a, b] v_t(b) second[m, b]

    with ``first`` and ``second`` (256, 16) from the couplings of middle and low units, ``pair`` (16, 16) from those
    among the low ones, and ``second`` also from those among the middle ones; float64. ``fields`` (top units, 16) are
    the couplings of the top units to those below, ``top`` (top units, top units) those among them, with biases on the
    diagonal and 0 above it. ``offset`` is to be added to the logarithm.
    """

    pair: Tensor
    first: Tensor
    second: Tensor
    fields: Tensor
    top: Tensor
    offset: Tensor


def _halves(units: int) -> int:
    """How many of the units are of the low half."""
    return (units + 1) // 2


def product_tables(w: Tensor, b: Tensor, c: Tensor, high_tile: int, low_tile: int) -> ProductTables:
    """Of a restricted machine: ``w`` (enumerated units, other units), ``b`` and ``c`` their biases; float64.

    ``1 + e^z = e^s (e^-s + e^(z - s))`` with ``s`` in the middle of what the logarithm of the factor can be, so that
    products drift as little as they can.
    """
    units, device = w.shape[1], w.device
    count = _halves(len(w))
    low, high = (all_states(len(part), device) @ torch.cat((part, bias[:, None]), 1)
                 for part, bias in ((w[:count], b[:count]), (w[count:], b[count:])))  # fmt: skip
    (low_min, low_max), (high_min, high_max) = torch.aminmax(low, dim=0), torch.aminmax(high, dim=0)
    most, least = (low_max + high_max)[:units] + c, (low_min + high_min)[:units] + c
    most_factor, least_factor = torch.nn.functional.softplus(most), torch.nn.functional.softplus(least)
    middle = (most_factor + least_factor) / 2
    shift = (most - middle) / 2  # of the largest entry of either table
    padding = GROUP * max(1, -(-units // GROUP)) - units
    reach = torch.nn.functional.pad((most_factor - least_factor) / 2, (0, padding)).view(-1, GROUP).sum(1)
    fits = ((high_max - high_min).maximum(low_max - low_min).max() <= MOST_SPREAD) & (reach.sum() <= MOST_DRIFT)
    tables, biases = [], []
    for half, smallest, largest, tile in ((high, high_min, high_max, high_tile), (low, low_min, low_max, low_tile)):
        times = max(1, tile // len(half))
        table = torch.exp(half[:, :units] - largest[:units] + shift).to(torch.float32)
        table = torch.nn.functional.pad(table, (0, padding)).repeat(times, 1)
        tables.append(table.view(-1, tile, units + padding).transpose(1, 2).contiguous())
        bias = torch.exp(half[:, units] - (smallest[units] + largest[units]) / 2).to(torch.float32)
        biases.append(bias.repeat(times))
    copies = len(biases[0]) * len(biases[1]) / (len(high) * len(low))
    offset = middle.sum() + (low_min + low_max + high_min + high_max)[units] / 2 - math.log(copies)
    return ProductTables(
        tables[0],
        tables[1],
        torch.nn.functional.pad(torch.exp(-middle), (0, padding), value=1.0).to(torch.float32),
        biases[0],
        biases[1],
        (reach.max() > MOST_SPREAD).to(torch.int32).view(1),
        torch.where(fits, offset, torch.nan),
    )


def _own_energies(w: Tensor, b: Tensor, first: int, end: int, units: int) -> Tensor:
    """``-E`` of the states of units ``first`` to ``end`` by themselves, (2**units,); -inf where others are not 0."""
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
    """Of a machine with weights ``w`` (n, n) and biases ``b`` (n,), float64, contiguous."""
    low, middle = _own_energies(w, b, 0, 8, 8), _own_energies(w, b, 8, 16, 8)
    states, half = all_states(8, w.device), all_states(4, w.device)
    cross = states @ _padded(w, slice(8, 16), slice(0, 8), (8, 8))  # fields of the middle states on the low units
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
    """``log`` of the sum over blocks of ``e^parts[:, 0] parts[:, 1]``, and the offset; float64 of no dimensions."""
    return torch.logsumexp(parts[:, 0] + torch.log(parts[:, 1]), 0) + offset
