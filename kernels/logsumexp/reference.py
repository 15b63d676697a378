"""Log-sum-exp in torch: the kernels' reference for float64 input, and the ``torch`` backend."""

from torch import Tensor

from ..rows.checks import accumulation_dtype
from ..rows.softmax import probabilities, sums


def logsumexp(x: Tensor, dim: int, beta: float) -> Tensor:
    """``log sum_i exp(beta x_i)`` over ``dim`` in ``x``'s own dtype."""
    log_total, peak = sums(x, dim, beta)
    return peak * beta + log_total


def gradient(grad: Tensor, x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float) -> Tensor:
    """``grad * beta * exp(beta (x - peak) - log_total)``; zero in a row whose ``log_total`` is -inf."""
    return grad.unsqueeze(dim) * beta * probabilities(x, log_total, peak, dim, beta)


def forward(x: Tensor, dim: int, beta: float, y: Tensor, log_total: Tensor | None, peak: Tensor | None) -> None:
    """The ``torch`` backend. Writes ``y`` and, if given, ``log_total`` and ``peak``."""
    level, shift = sums(x.to(accumulation_dtype(x.dtype)), dim, beta)
    y.copy_(shift * beta + level)
    if log_total is not None and peak is not None:
        log_total.copy_(level)
        peak.copy_(shift)


def backward(grad: Tensor, x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """The ``torch`` backend of the gradient, computed in the dtype of ``log_total``. Writes ``out``."""
    wide = log_total.dtype
    out.copy_(gradient(grad.to(wide), x.to(wide), log_total, peak, dim, beta))
