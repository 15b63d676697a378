"""Argument checks and dtypes of the operations on rows."""

import torch
from torch import Tensor

from ..numbers import INT64_MAX, integer, real

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision in which rows of ``dtype`` are summed."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def normal_dim(dim: int, dims: int) -> int:
    """``dim`` as a number from 0 to ``dims - 1``. Raises IndexError if it is out of range."""
    dim = integer("dim", dim, -INT64_MAX)
    if not dims:
        raise IndexError(f"dim must be a dimension of x, but x is a single number without dimensions; got {dim}")
    if not -dims <= dim < dims:
        raise IndexError(f"dim must lie in [{-dims}, {dims - 1}] for a tensor of {dims} dimensions, got {dim}")
    return dim % dims


def reduced_shape(x: Tensor, dim: int) -> torch.Size:
    """The shape of ``x`` without ``dim``."""
    return torch.Size((*x.shape[:dim], *x.shape[dim + 1 :]))


def require_finite_beta(beta: float, dtype: torch.dtype) -> float:
    """``beta``, at most half the largest number of the precision of accumulation: kernels multiply it by log2(e)."""
    beta, most = real("beta", beta), torch.finfo(accumulation_dtype(dtype)).max / 2
    return real("beta", beta, least=-most, most=most)
