"""Thermodynamics in torch: the reference of the kernels when its input is float64, and the ``torch`` backend."""

import torch
from torch import Tensor

from ..rows.checks import accumulation_dtype


def thermodynamics(x: Tensor, dim: int, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """``log_z``, ``energy`` and ``variance`` over ``dim``, which is not empty, in ``x``'s own dtype.

    Energies are taken from the one that weighs most, so that weights are no less exact where all energies are large.
    """
    log_z = torch.logsumexp(x * beta if beta != 1.0 else x, dim)
    best = (x.amin(dim, keepdim=True) if beta < 0 else x.amax(dim, keepdim=True)).nan_to_num()
    weights = torch.exp((x - best) * beta)
    p = weights / weights.sum(dim, keepdim=True)
    distance = torch.where(p > 0, x - best, 0.0)
    mean = (p * distance).sum(dim, keepdim=True)
    variance = (p * (distance - mean) ** 2).sum(dim)
    energy = -(best + mean).squeeze(dim)
    known = log_z.isfinite()
    return log_z, torch.where(known, energy, torch.nan), torch.where(known, variance, torch.nan)


def forward(x: Tensor, dim: int, beta: float, log_z: Tensor, energy: Tensor, variance: Tensor) -> None:
    """The ``torch`` backend: all three are written."""
    results = thermodynamics(x.to(accumulation_dtype(x.dtype)), dim, beta)
    for tensor, result in zip((log_z, energy, variance), results, strict=True):
        tensor.copy_(result)
