"""Generalised cross-entropy in CUDA C: `rows/cuda_rows.py` chooses a kernel of the `.cu` by the shape of the rows."""

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
    return row_module(Path(__file__).with_name("generalised_cross_entropy.cu"), ("forward", "backward"), dtype)


def forward(logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int, loss: Tensor, lse: Tensor) -> None:
    """Write ``loss`` and ``lse``, contiguous in the precision of accumulation. ``logits`` is not empty."""
    reduce_rows(module(logits.dtype), "forward", logits, dim, 2, (labels, loss, lse), q, ignore_index)


def backward(
    grad: Tensor, logits: Tensor, labels: Tensor, lse: Tensor, dim: int, q: float, ignore_index: int, out: Tensor
) -> None:
    """Write the gradient with respect to ``logits``, which is not empty, into ``out`` (contiguous)."""
    map_rows(module(logits.dtype), "backward", logits, dim, (grad, labels, lse), out, q, ignore_index)


def variants() -> Sequence[KernelVariant]:
    """Every kernel that `forward` and `backward` choose from."""
    return row_variants(module, {"forward": 1, "backward": 2})
