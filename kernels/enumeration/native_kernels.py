"""Enumeration on a CPU: calling `enumeration.cpp`. The torch reference takes machines whose exponentials overflow."""

from pathlib import Path

import torch
from torch import Tensor

from ..native import NativeModule
from . import reference
from .tables import combine, machine_tables, product_tables

MODULE = NativeModule(Path(__file__).with_name("enumeration.cpp"))
ROWS, LOW = 4, 32
"""States of a tile, as in `enumeration.cpp`."""
HIGH_TILES, LOW_TILES, BATCH = 16, 64, 16
"""Tiles, or states of the top units, of an item of work, likewise."""


def product_sum(w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``log sum_x e^(b.x) prod_j (1 + e^(c_j + (x W)_j))`` for ``w`` (enumerated units, other units)."""
    tables = product_tables(w, b, c, ROWS, LOW, torch.float64)
    if tables.offset.isnan():
        return reference.product_sum(w, b, c)
    high_tiles, units, _ = tables.high.shape
    low_tiles = len(tables.low)
    parts = w.new_empty((-(-high_tiles // HIGH_TILES) * -(-low_tiles // LOW_TILES), 2))
    MODULE.call("product_sum", *tables[:-1], parts, units, high_tiles, low_tiles)
    return combine(parts, tables.offset)


def machine_sum(w: Tensor, b: Tensor) -> Tensor:
    """``log sum_x e^(1/2 x.W.x + b.x)`` for ``w`` (n, n)."""
    tables = machine_tables(w, b)
    if tables.offset.isnan():
        return reference.machine_sum(w, b)
    parts = w.new_empty((-(-(1 << len(tables.top)) // BATCH), 2))
    MODULE.call("machine_sum", *tables[:-1], parts, len(tables.top))
    return combine(parts, tables.offset)
