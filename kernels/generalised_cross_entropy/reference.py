"""Generalised cross-entropy in torch: the kernels' reference for float64 logits, and the ``torch`` backend.

Source: Z. Zhang, M. Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy labels",
NeurIPS 2018.
"""

import torch
from torch import Tensor


def losses(logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int) -> tuple[Tensor, Tensor]:
    """``(-expm1(q log p_y) / q, lse)`` over ``dim``, in the dtype of ``logits``; ``-log p_y`` at ``q = 0``.

    ``log p_y`` is a difference of logits minus the logarithm of a sum, so its error does not grow with a common offset.
    """
    peak = logits.amax(dim)
    shift = torch.where(peak.isinf(), 0.0, peak)
    log_total = torch.log(torch.exp(logits - shift.unsqueeze(dim)).sum(dim))
    lse = shift + log_total
    # Where lse is -inf, every logit is -inf, and so is log p.
    log_p = _chosen(logits, labels, dim) - shift - torch.where(lse == -torch.inf, 0.0, log_total)
    loss = -torch.expm1(q * log_p) / q if q else -log_p
    return torch.where(labels == ignore_index, 0.0, loss), lse


def gradient(
    grad: Tensor, logits: Tensor, labels: Tensor, lse: Tensor, dim: int, q: float, ignore_index: int
) -> Tensor:
    """``grad p_y**q (p_i - delta_iy)`` in the dtype of ``logits``."""
    level = torch.where(lse == -torch.inf, 0.0, lse)
    log_p = _chosen(logits, labels, dim) - level
    power = torch.exp(q * log_p) if q else torch.where(log_p.isnan(), log_p, 1.0)
    classes = torch.arange(logits.shape[dim], device=logits.device).view(-1, *[1] * (logits.dim() - dim - 1))
    labels = labels.unsqueeze(dim)
    slope = torch.exp(logits - level.unsqueeze(dim)) - (classes == labels).to(logits.dtype)
    return torch.where(labels == ignore_index, 0.0, (grad * power).unsqueeze(dim) * slope)


def _chosen(logits: Tensor, labels: Tensor, dim: int) -> Tensor:
    """The logit of each label; NaN for a label out of range."""
    classes = logits.shape[dim]
    chosen = logits.gather(dim, labels.clamp(0, classes - 1).unsqueeze(dim)).squeeze(dim)
    return torch.where((labels >= 0) & (labels < classes), chosen, torch.nan)


def forward(logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int, loss: Tensor, lse: Tensor) -> None:
    """The ``torch`` backend. Computes ``loss`` and ``lse`` in their dtype, and writes them."""
    for out, result in zip((loss, lse), losses(logits.to(lse.dtype), labels, dim, q, ignore_index), strict=True):
        out.copy_(result)


def backward(
    grad: Tensor, logits: Tensor, labels: Tensor, lse: Tensor, dim: int, q: float, ignore_index: int, out: Tensor
) -> None:
    """The ``torch`` backend of the gradient, computed in the dtype of ``lse``. Writes ``out``."""
    out.copy_(gradient(grad, logits.to(lse.dtype), labels, lse, dim, q, ignore_index))
