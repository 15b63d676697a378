"""Launches `enumeration.cu`."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from .tables import combine, machine_tables, product_tables

THREADS = 256
HIGH, LOW = 64, 128
"""States of a tile, as in `enumeration.cu`."""
BATCH = 16
"""States of the top units that a block prepares together, as in `enumeration.cu`."""
BATCHES = 4
"""Batches of a block, at least, to amortize its first loads."""
ONE = np.uint32(0x3F800000)
"""The bits of 1.0. As an argument they lie in a register: an instruction can hold one 32-bit constant, not two."""
MOST_BLOCKS = 132 * 16
"""Eight waves of two blocks on each of 132 multiprocessors, so that the last wave leaves few of them idle."""


@functools.cache
def module() -> CudaModule:
    return CudaModule(Path(__file__).with_name("enumeration.cu"), ["product_sum", "machine_sum"])


def product_sum(w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``log sum_x e^(b.x) prod_j (1 + e^(c_j + (x W)_j))`` for ``w`` (enumerated units, other units)."""
    tables = product_tables(w, b, c, HIGH, LOW)
    across, units, _ = tables.high.shape
    low_tiles = len(tables.low)
    grid = (across, max(1, min(low_tiles, MOST_BLOCKS // across)))
    parts = torch.empty((grid[0] * grid[1], 2), dtype=torch.float64, device=w.device)
    module().launch(
        "product_sum", grid, (THREADS,),
        [*tables[:-1], parts, np.int32(units), np.int32(low_tiles), ONE], device=w.device,
    )  # fmt: skip
    return combine(parts, tables.offset)


def machine_sum(w: Tensor, b: Tensor) -> Tensor:
    """``log sum_x e^(1/2 x.W.x + b.x)`` for ``w`` (n, n)."""
    tables = machine_tables(w, b)
    top_units = len(tables.top)
    blocks = max(1, min((1 << top_units) // (BATCHES * BATCH), MOST_BLOCKS))
    parts = torch.empty((blocks, 2), dtype=torch.float64, device=w.device)
    module().launch("machine_sum", (blocks,), (THREADS,), [*tables[:-1], parts, top_units], device=w.device)
    return combine(parts, tables.offset)


def variants() -> Sequence[KernelVariant]:
    """Both kernels. For a restricted machine one pass of the inner loop multiplies 2 factors of 32 states."""
    return [
        CudaVariant(
            name="restricted machine",
            threads=THREADS,
            items=2 * 32,
            unit="terms",
            bytes_per_item=0.0,
            access_bytes=16,
            module=module(),
            kernel="product_sum",
        ),
        CudaVariant(
            name="tensor-core machine",
            threads=THREADS,
            items=256,
            unit="states",
            bytes_per_item=0.0,
            module=module(),
            kernel="machine_sum",
        ),
    ]
