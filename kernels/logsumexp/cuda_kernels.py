"""Log-sum-exp in CUDA C: `rows/cuda_rows.py` chooses a kernel of `logsumexp.cu` by the shape of the rows."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import KernelVariant
from ..cuda_module import CudaModule
from ..rows.cuda_rows import TYPES, map_rows, reduce_rows, row_module, row_variants

__all__ = ["TYPES", "backward", "forward", "module", "variants"]


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernels for one dtype."""
    return row_module(Path(__file__).with_name("logsumexp.cu"), ("forward", "backward"), dtype)


def forward(x: Tensor, dim: int, beta: float, y: Tensor, log_total: Tensor | None, peak: Tensor | None) -> None:
    """Write ``y`` and, if given, ``log_total`` and ``peak`` in the precision of accumulation. ``x`` is not empty."""
    reduce_rows(module(x.dtype), "forward", x, dim, 2, (y, log_total, peak), beta)


def backward(grad: Tensor, x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """Write the gradient with respect to ``x``, which is not empty, into ``out`` (contiguous)."""
    map_rows(module(x.dtype), "backward", x, dim, (grad, log_total, peak), out, beta)


def variants() -> Sequence[KernelVariant]:
    """Every kernel that `forward` and `backward` choose from."""
    return row_variants(module, {"forward": 1, "backward": 2})
