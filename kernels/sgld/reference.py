"""The Langevin update in torch: the ``torch`` backend, and the reference of the kernels."""

import torch
from torch import Tensor

from ..philox import Stream, normals, random_words
from .update_list import UpdateList


def noise(elements: int, dtype: torch.dtype, seed: int, step: int, number: int, device: torch.device) -> Tensor:
    """The standard normals of one tensor as float64, computed from uniforms rounded to ``dtype``: shape (elements,)."""
    groups = torch.arange((elements + 3) // 4, dtype=torch.int64, device=device)
    return normals(random_words(groups, seed, step, Stream.NOISE, number), dtype).flatten()[:elements]


def updated(x: Tensor, g: Tensor, step_size: float, noise_scale: float, xi: Tensor) -> Tensor:
    """``x - (step_size / 2) g + noise_scale xi`` in the dtype of ``x``; no noise at all where its scale is 0."""
    moved = x - 0.5 * step_size * g
    return moved + noise_scale * xi.to(x.dtype) if noise_scale else moved


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The precision in which a parameter of ``dtype`` is updated."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def update(updates: UpdateList, step_size: float, noise_scale: float, seed: int, step: int) -> None:
    """Update every parameter in place."""
    for x, g, number in zip(updates.parameters, updates.gradients, updates.numbers, strict=True):
        wide = computing_dtype(x.dtype)
        xi = noise(x.numel(), wide, seed, step, number, x.device).view_as(x)
        x.copy_(updated(x.to(wide), g.to(wide), step_size, noise_scale, xi))
