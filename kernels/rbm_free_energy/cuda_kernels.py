"""Launches `rbm_free_energy.cu`."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import KernelVariant
from ..cuda_module import CudaModule
from ..machines.product_tiles import CUDA_TILE, cuda_variant
from ..machines.product_tiles import CUDA_TYPES as TYPES
from .launch import arranged


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernel for weights of one dtype."""
    return CudaModule(Path(__file__).with_name("rbm_free_energy.cu"), [f"free_energy<{TYPES[dtype]}>"])


def forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, out: Tensor
) -> None:
    """Write ``out`` for at least one chain."""
    launch = arranged(CUDA_TILE, visible, weights, visible_bias, hidden_bias, beta, out)
    kernel = f"free_energy<{TYPES[weights.dtype]}>"
    module(weights.dtype).launch(kernel, launch.grid, (CUDA_TILE.threads,), launch.arguments, device=out.device)


def variants() -> Sequence[KernelVariant]:
    """The kernel for each dtype of the weights."""
    return [cuda_variant(name, module(dtype), f"free_energy<{name}>", dtype.itemsize) for dtype, name in TYPES.items()]
