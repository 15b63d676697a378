"""The free energy of each chain in CUDA C: launching `rbm_free_energy.cu`."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..rows.shapes import counters

TYPES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
THREADS = 256
ROWS, COLUMNS, TERMS = 128, 64, 32
"""Of a tile; all as in `binary_product.cuh`."""


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernel for weights of one dtype."""
    return CudaModule(Path(__file__).with_name("rbm_free_energy.cu"), [f"free_energy<{TYPES[dtype]}>"])


def forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, out: Tensor
) -> None:
    """Write ``out``. There is at least one chain."""
    chains, hidden_units = len(visible), weights.shape[1]
    grid = (-(-chains // ROWS), max(1, -(-hidden_units // COLUMNS)))
    split = grid[1] > 1
    parts = torch.empty((grid[1], chains), dtype=torch.float32, device=out.device) if split else None
    betas, number = (beta, 1.0) if isinstance(beta, Tensor) else (None, beta)
    module(weights.dtype).launch(
        f"free_energy<{TYPES[weights.dtype]}>", grid, (THREADS,),
        [
            visible, weights, visible_bias, hidden_bias, betas, out, parts,
            counters(grid[0], out.device) if split else None, chains, visible.shape[1], hidden_units,
            *weights.stride(), number,
        ],
        device=out.device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """The kernel for each dtype of the weights."""
    return [
        CudaVariant(
            name=name,
            threads=THREADS,
            items=ROWS * COLUMNS * TERMS // THREADS,
            unit="multiply-adds",
            bytes_per_item=1 / COLUMNS + dtype.itemsize / ROWS,
            module=module(dtype),
            kernel=f"free_energy<{name}>",
        )
        for dtype, name in TYPES.items()
    ]
