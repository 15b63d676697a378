"""Class weights, smoothed labels and probabilities as targets, in torch: the part of the loss outside of its kernels.

Each class has its own ``expm1``. As ``(S - exp(LSE(q z + log c) - q LSE(z))) / q``, with the sum ``S`` of the shares
``c`` and two log-sum-exps, the loss would have an error of about ``u / q``: no digits in float32 at q = 1e-6.
"""

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..numbers import real
from ..rows import formulas
from ..rows.checks import DTYPES, accumulation_dtype, reduced_shape


def require_smoothing(label_smoothing: float) -> float:
    return real("label_smoothing", label_smoothing, least=0, most=1)


def require_weight(weight: Tensor, logits: Tensor | None = None, dim: int = 0) -> None:
    """Raise TypeError or ValueError unless ``weight`` can be class weights, those of ``logits`` if they are given."""
    require_tensor("weight", weight, DTYPES, None if logits is None else logits.device)
    if weight.dim() != 1 or (logits is not None and len(weight) != logits.shape[dim]):
        wanted = "classes" if logits is None else logits.shape[dim]
        raise ValueError(f"weight must have shape ({wanted},), a number for each class; got {tuple(weight.shape)}")


def require_probabilities(logits: Tensor, labels: Tensor) -> int:
    """The dimension of the classes. Raises TypeError or ValueError unless ``labels`` may be their probabilities."""
    require_tensor("logits", logits, DTYPES, None)
    require_tensor("labels", labels, DTYPES, logits.device)
    if not logits.dim():
        raise ValueError("logits must have a dimension of classes, got a single number")
    if labels.shape != logits.shape:
        raise ValueError(
            f"labels must have shape {tuple(logits.shape)} if they are probabilities, got {tuple(labels.shape)}"
        )
    dim = min(1, logits.dim() - 1)
    if not logits.shape[dim] and reduced_shape(logits, dim).numel():
        raise ValueError("logits must have at least one class, got none")
    return dim


def weights_of(labels: Tensor, weight: Tensor, ignore_index: int) -> Tensor:
    """The weight of each label, 0 if it is ignored. A label out of range gets any weight."""
    return torch.where(labels == ignore_index, 0.0, weight[labels.clamp(0, len(weight) - 1)])


def weighted(losses: Tensor, labels: Tensor, weight: Tensor, ignore_index: int) -> Tensor:
    """The losses of labels times their weights; 0 times inf is 0."""
    factor = weights_of(labels, weight.to(losses.dtype), ignore_index)
    return factor * torch.where((factor == 0) & losses.isinf(), 0.0, losses)


def smoothed(
    logits: Tensor, labels: Tensor, dim: int, smoothing: float, weight: Tensor | None, ignore_index: int | None
) -> tuple[Tensor, Tensor]:
    """Logits in the precision of accumulation, and the share of each class: ``w_k ((1 - s) t_k + s / classes)``.

    ``ignore_index`` is None if ``labels`` are probabilities. A row with an ignored label has logits and shares 0, one
    with a label out of range has shares NaN.
    """
    wide, classes = logits.to(accumulation_dtype(logits.dtype)), logits.shape[dim]
    by_class = [-1 if k == dim else 1 for k in range(logits.dim())]
    if ignore_index is None:
        shares = (1 - smoothing) * labels.to(wide.dtype) + smoothing / max(classes, 1)
    else:
        label = labels.unsqueeze(dim)
        one_hot = (torch.arange(classes, device=labels.device).view(by_class) == label).to(wide.dtype)
        shares = (1 - smoothing) * one_hot + smoothing / max(classes, 1)
        shares = torch.where((label >= 0) & (label < classes), shares, torch.nan)
        shares, wide = (torch.where(label == ignore_index, 0.0, each) for each in (shares, wide))
    return wide, shares if weight is None else shares * weight.to(wide.dtype).view(by_class)


def losses(logits: Tensor, shares: Tensor, dim: int, q: float) -> Tensor:
    """``sum_k c_k (1 - p_k**q) / q`` over ``dim`` for shares ``c``; ``-sum_k c_k log p_k`` at ``q = 0``.

    A class without share adds nothing, also where its probability is 0 or NaN.
    """
    if not logits.shape[dim]:
        return logits.sum(dim)
    peak = logits.amax(dim, keepdim=True).detach()
    distance = logits - torch.where(peak.isinf(), 0.0, peak)
    log_total = formulas.logsumexp(distance, dim, 1.0).unsqueeze(dim)
    log_p = distance - torch.where(log_total == -torch.inf, 0.0, log_total)
    undefined = log_p.isnan() if q else ~log_p.isfinite()
    log_p = torch.where((shares == 0) & undefined, 0.0, log_p)
    # Carries a NaN to the gradient of its row, as expm1 does.
    spread = torch.where(log_p.isnan(), torch.nan, torch.ones_like(log_p))
    each = -torch.expm1(q * log_p) / q if q else -log_p * spread
    return (shares * each).sum(dim)
