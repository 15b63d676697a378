"""Thermodynamics in torch: the kernels' reference for float64 input, and the ``torch`` backend."""

import torch
from torch import Tensor

from ..rows.checks import accumulation_dtype
from ..rows.softmax import added, sums


def thermodynamics(x: Tensor, dim: int, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """``log_z``, ``energy`` and ``variance`` over ``dim``, which is not empty, in ``x``'s own dtype.

    Energies are measured from the one of largest weight, so that a common offset costs no accuracy.
    """
    log_total, peak = sums(x, dim, beta)
    log_z = peak * beta + log_total
    best = (x.amin(dim, keepdim=True) if beta < 0 else x.amax(dim, keepdim=True)).nan_to_num()
    weights = torch.exp((x - best) * beta)
    p = weights / added(weights, dim).unsqueeze(dim)
    distance = torch.where(p > 0, x - best, 0.0)
    mean = added(p * distance, dim).unsqueeze(dim)
    variance = added(p * (distance - mean) ** 2, dim)
    energy = -(best + mean).squeeze(dim)
    known = log_z.isfinite()
    return log_z, torch.where(known, energy, torch.nan), torch.where(known, variance, torch.nan)


def forward(x: Tensor, dim: int, beta: float, log_z: Tensor, energy: Tensor, variance: Tensor) -> None:
    """The ``torch`` backend. Writes all three results."""
    results = thermodynamics(x.to(accumulation_dtype(x.dtype)), dim, beta)
    for tensor, result in zip((log_z, energy, variance), results, strict=True):
        tensor.copy_(result)
