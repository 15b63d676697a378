"""Softmax sums in torch: a row's sum of exponentials, and the probabilities of its elements.

Source: the shifted sum of Blanchard, Higham, Higham, "Accurately computing the log-sum-exp and softmax functions",
IMA J. Numer. Anal. 41 (2021).
"""

import torch
from torch import Tensor

BLOCK = 1024


def added(x: Tensor, dim: int) -> Tensor:
    """The sum over ``dim``, in blocks of `BLOCK` elements and then of their sums.

    torch itself adds in pairs. The code that torch.compile makes for a CPU adds up to 4096 vectors in sequence, and the
    rounding errors of that exceed the bounds of the rows.
    """
    dim %= x.dim()
    size = x.shape[dim]
    if size <= BLOCK:
        return x.sum(dim)
    whole = size // BLOCK * BLOCK
    total = added(torch.unflatten(x.narrow(dim, 0, whole), dim, (-1, BLOCK)).sum(dim + 1), dim)
    return total if whole == size else total + x.narrow(dim, whole, size - whole).sum(dim)


def sums(x: Tensor, dim: int, beta: float) -> tuple[Tensor, Tensor]:
    """``log_total = log sum_i exp(beta (x_i - peak))`` and ``peak`` over ``dim``, in ``x``'s own dtype.

    The peak is the element of largest weight, 0 if it is infinite. The log-sum-exp is ``beta peak + log_total``.
    """
    if x.shape[dim] == 0:
        empty = x.new_zeros((*x.shape[:dim], *x.shape[dim + 1 :]))
        return empty - torch.inf, empty
    peak = x.amin(dim) if beta < 0 else x.amax(dim)
    peak = torch.where(peak.isinf(), 0.0, peak)
    return torch.log(added(torch.exp((x - peak.unsqueeze(dim)) * beta), dim)), peak


def probabilities(x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float) -> Tensor:
    """``exp(beta (x - peak) - log_total)``; zero in a row whose ``log_total`` is -inf, where all elements are -inf.

    Peak and total come apart: rounding their log-sum-exp would add an error that grows with the level of the row. The
    result is float64 unless ``beta`` is 1, so that neither ``beta`` nor its product is rounded, as with an FMA.
    """
    level = torch.where(log_total == -torch.inf, 0.0, log_total).unsqueeze(dim)
    distance = x - peak.unsqueeze(dim)
    return torch.exp((distance if beta == 1.0 else distance.double() * beta) - level)
