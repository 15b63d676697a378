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


def forward(
    logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int,
    loss: Tensor, lse: Tensor, peak: Tensor | None = None,
) -> None:  # fmt: skip
    """Write ``loss``, ``lse`` and, if given, ``peak``, contiguous in the precision of accumulation.

    ``logits`` is not empty. ``lse`` is relative to the peak if there is one.
    """
    reduce_rows(module(logits.dtype), "forward", logits, dim, 2, (labels, loss, lse, peak), q, ignore_index)


def backward(
    grad: Tensor, logits: Tensor, labels: Tensor, log_total: Tensor, peak: Tensor,
    dim: int, q: float, ignore_index: int, out: Tensor,
) -> None:  # fmt: skip
    """Write the gradient with respect to ``logits``, which is not empty, into ``out`` (contiguous)."""
    map_rows(module(logits.dtype), "backward", logits, dim, (grad, labels, log_total, peak), out, q, ignore_index)


def variants() -> Sequence[KernelVariant]:
    """Every kernel that `forward` and `backward` choose from."""
    return row_variants(module, {"forward": 1, "backward": 2})
