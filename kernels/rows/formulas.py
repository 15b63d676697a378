"""The functions of rows as formulas in torch that autograd, forward mode and ``torch.func`` differentiate any number of
times. Rows without weight and rows with an ignored label have the kernels' derivatives, where torch's own functions
give NaN."""

import torch
from torch import Tensor

from .checks import accumulation_dtype


def logsumexp(x: Tensor, dim: int, beta: float) -> Tensor:
    """``log sum_i exp(beta x_i)`` over ``dim``, in ``x``'s dtype; 16-bit inputs are computed in float32.

    The peak comes off before `torch.logsumexp`, which computes its gradient from its rounded result.
    """
    if not x.shape[dim]:
        return x.sum(dim) - torch.inf
    wide = x.to(accumulation_dtype(x.dtype))
    peak = (wide.amin(dim, keepdim=True) if beta < 0 else wide.amax(dim, keepdim=True)).detach()
    peak = torch.where(peak.isinf(), 0.0, peak)
    distance = beta * (wide - peak)
    empty = (distance == -torch.inf).all(dim, keepdim=True)
    result = torch.logsumexp(torch.where(empty, 0.0, distance), dim) + beta * peak.squeeze(dim)
    return torch.where(empty.squeeze(dim), -torch.inf, result).to(x.dtype)


def generalised_cross_entropy(logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int) -> Tensor:
    """``(1 - p_y**q) / q`` over ``dim``, ``-log p_y`` at ``q = 0``, in the precision of accumulation.

    The peak comes off first, 0 if it is infinite, as in the kernels: `torch.log_softmax` gives NaN for a row with +inf.
    """
    wide = logits.to(accumulation_dtype(logits.dtype))
    ignored, label = labels == ignore_index, labels.unsqueeze(dim)
    if not logits.shape[dim]:
        return wide.sum(dim)
    wide = torch.where(ignored.unsqueeze(dim), 0.0, wide)
    peak = wide.amax(dim, keepdim=True).detach()
    distance = wide - torch.where(peak.isinf(), 0.0, peak)
    empty = (distance == -torch.inf).all(dim)
    log_total = torch.logsumexp(torch.where(empty.unsqueeze(dim), 0.0, distance), dim)
    log_p = distance.gather(dim, label.clamp(0, logits.shape[dim] - 1)).squeeze(dim)
    log_p = log_p - torch.where(empty, 0.0, log_total)
    known = (labels >= 0) & (labels < logits.shape[dim])
    known = known & ~log_p.isnan()
    log_p = log_p * torch.where(known, torch.ones_like(log_p), torch.nan)  # a factor: the gradient is NaN too
    loss = -torch.expm1(q * log_p) / q if q else -log_p
    return torch.where(ignored, 0.0, loss)
