"""Log-sum-exp in torch: the kernels' reference for float64 input, and the ``torch`` backend.

Source: the shifted sum of Blanchard, Higham, Higham, "Accurately computing the log-sum-exp and softmax functions",
IMA J. Numer. Anal. 41 (2021).
"""

import torch
from torch import Tensor


def logsumexp(x: Tensor, dim: int, beta: float) -> Tensor:
    """``log sum_i exp(beta x_i)`` over ``dim`` in ``x``'s own dtype. `torch.logsumexp` subtracts the maximum."""
    if x.shape[dim] == 0:
        return x.new_full((*x.shape[:dim], *x.shape[dim + 1 :]), -torch.inf)
    return torch.logsumexp(x * beta if beta != 1.0 else x, dim)


def gradient(grad: Tensor, x: Tensor, lse: Tensor, dim: int, beta: float) -> Tensor:
    """``grad * beta * exp(beta x - lse)``; zero in a row whose ``lse`` is -inf."""
    lse = lse.unsqueeze(dim)
    weights = torch.exp(x * beta - torch.where(lse == -torch.inf, 0.0, lse))
    return grad.unsqueeze(dim) * beta * weights


def forward(x: Tensor, dim: int, beta: float, y: Tensor, exact: Tensor | None) -> None:
    """The ``torch`` backend. Writes ``y`` and, if given, ``exact`` in the precision of accumulation."""
    result = logsumexp(x if exact is None and x.dtype.itemsize > 2 else x.to(torch.float32), dim, beta)
    y.copy_(result)
    if exact is not None:
        exact.copy_(result)


def backward(grad: Tensor, x: Tensor, lse: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """The ``torch`` backend of the gradient, computed in ``lse``'s dtype. Writes ``out``."""
    out.copy_(gradient(grad.to(lse.dtype), x.to(lse.dtype), lse, dim, beta))
