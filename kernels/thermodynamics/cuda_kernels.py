"""Thermodynamics in CUDA C: the kernels of `thermodynamics.cu`, chosen by shape as those of log-sum-exp."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import KernelVariant
from ..cuda_module import CudaModule
from ..logsumexp.cuda_kernels import TYPES, reduce_rows, row_variants, templates

__all__ = ["TYPES", "forward", "module", "variants"]


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernels for one dtype."""
    kernels = [f"forward<{template}>" for template, *_ in templates(dtype)]
    return CudaModule(Path(__file__).with_name("thermodynamics.cu"), kernels)


def forward(x: Tensor, dim: int, beta: float, log_z: Tensor, energy: Tensor, variance: Tensor) -> None:
    """Write all three, contiguous in the precision of accumulation. ``x`` is not empty."""
    reduce_rows(module(x.dtype), "forward", x, dim, 4, (log_z, energy, variance), beta)


def variants() -> Sequence[KernelVariant]:
    """Every kernel that `forward` chooses from."""
    return [variant for dtype in TYPES for variant in row_variants(module(dtype), "forward", dtype, 1)]
