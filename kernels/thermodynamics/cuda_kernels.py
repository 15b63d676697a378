"""Thermodynamics in CUDA C: `rows/cuda_rows.py` chooses a kernel of `thermodynamics.cu` by the shape of the rows."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import KernelVariant
from ..cuda_module import CudaModule
from ..rows.cuda_rows import TYPES, reduce_rows, row_module, row_variants

__all__ = ["TYPES", "forward", "module", "variants"]


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernels for one dtype."""
    return row_module(Path(__file__).with_name("thermodynamics.cu"), ("forward",), dtype)


def forward(x: Tensor, dim: int, beta: float, log_z: Tensor, energy: Tensor, variance: Tensor) -> None:
    """Write all three results, contiguous in the precision of accumulation. ``x`` is not empty."""
    reduce_rows(module(x.dtype), "forward", x, dim, 4, (log_z, energy, variance), beta)


def variants() -> Sequence[KernelVariant]:
    """Every kernel that `forward` chooses from."""
    return row_variants(module, {"forward": 1})
