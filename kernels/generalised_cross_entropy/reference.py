"""Generalised cross-entropy in torch: the kernels' reference for float64 logits, and the ``torch`` backend.

Source: Z. Zhang, M. Sabuncu, "Generalized cross entropy loss for training deep neural networks with noisy labels",
NeurIPS 2018.
"""

import torch
from torch import Tensor

from ..rows.softmax import probabilities, sums


def losses(logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(-expm1(q log p_y) / q, log_total, peak)`` over ``dim``, in the dtype of ``logits``; ``-log p_y`` at ``q = 0``.

    ``peak`` is the largest logit, 0 if it is infinite; ``peak + log_total`` is the log-sum-exp. ``log p_y`` is a
    difference of logits minus the logarithm of a sum, so its error does not grow with a common offset.
    """
    log_total, peak = sums(logits, dim, 1.0)
    # Where log_total is -inf, every logit is -inf, and so is log p.
    log_p = _chosen(logits, labels, dim) - peak - torch.where(log_total == -torch.inf, 0.0, log_total)
    loss = -torch.expm1(q * log_p) / q if q else -log_p
    return torch.where(labels == ignore_index, 0.0, loss), log_total, peak


def gradient(
    grad: Tensor, logits: Tensor, labels: Tensor, log_total: Tensor, peak: Tensor, dim: int, q: float, ignore_index: int
) -> Tensor:
    """``grad p_y**q (p_i - delta_iy)`` in the dtype of ``logits``, with ``p_i = exp(z_i - peak - log_total)``."""
    level = torch.where(log_total == -torch.inf, 0.0, log_total)
    log_p = _chosen(logits, labels, dim) - peak - level
    power = torch.exp(q * log_p) if q else torch.where(log_p.isnan(), log_p, 1.0)
    classes = torch.arange(logits.shape[dim], device=logits.device).view(-1, *[1] * (logits.dim() - dim - 1))
    labels = labels.unsqueeze(dim)
    slope = probabilities(logits, log_total, peak, dim, 1.0) - (classes == labels).to(logits.dtype)
    return torch.where(labels == ignore_index, 0.0, (grad * power).unsqueeze(dim) * slope)


def _chosen(logits: Tensor, labels: Tensor, dim: int) -> Tensor:
    """The logit of each label; NaN for a label out of range."""
    classes = logits.shape[dim]
    chosen = logits.gather(dim, labels.clamp(0, classes - 1).unsqueeze(dim)).squeeze(dim)
    return torch.where((labels >= 0) & (labels < classes), chosen, torch.nan)


def forward(
    logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int,
    loss: Tensor, lse: Tensor, peak: Tensor | None = None,
) -> None:  # fmt: skip
    """The ``torch`` backend. Computes the results in the dtype of ``lse``, and writes them.

    ``lse`` is relative to the peak if there is one.
    """
    losses_, log_total, shift = losses(logits.to(lse.dtype), labels, dim, q, ignore_index)
    loss.copy_(losses_)
    lse.copy_(shift + log_total if peak is None else log_total)
    if peak is not None:
        peak.copy_(shift)


def backward(
    grad: Tensor, logits: Tensor, labels: Tensor, log_total: Tensor, peak: Tensor,
    dim: int, q: float, ignore_index: int, out: Tensor,
) -> None:  # fmt: skip
    """The ``torch`` backend of the gradient, computed in the dtype of ``log_total``. Writes ``out``."""
    out.copy_(gradient(grad, logits.to(log_total.dtype), labels, log_total, peak, dim, q, ignore_index))
