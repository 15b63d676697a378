"""The ``torch`` backend: enumeration in float64, in pieces that fit the memory."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ..machines.states import states_in_pieces

PIECE = 1 << 18
"""Numbers in the largest tensor of a piece, approximately."""


def product_sum(w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``log sum_x e^(b.x) prod_j (1 + e^(c_j + (x W)_j))`` for ``w`` (enumerated units, other units)."""
    return _log_sum_exp(log_weights(x, w, b, c) for x in _pieces(w))


def machine_sum(w: Tensor, b: Tensor) -> Tensor:
    """``log sum_x e^(1/2 x.W.x + b.x)`` for ``w`` (n, n)."""
    return _log_sum_exp(log_weights(x, w, b, None) for x in _pieces(w))


def log_weights(x: Tensor, w: Tensor, b: Tensor, c: Tensor | None) -> Tensor:
    """The logarithms of the terms of `product_sum`, or without ``c`` of `machine_sum`, for states ``x``."""
    if c is None:
        return 0.5 * ((x @ w) * x).sum(1) + x @ b
    return x @ b + torch.nn.functional.softplus(c + x @ w, threshold=100.0).sum(1)


def gradient(w: Tensor, b: Tensor, c: Tensor | None, log_z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of the log of the sum with respect to ``w``, ``b`` and ``c``: for all backends, in float64.

    They are means over the states ``x``, with probability ``p(x)`` and the logistic function ``s``:

        d/db_i = <x_i>    d/dc_j = <s_j>    d/dW_ij = <x_i s_j>  with  s_j = s(c_j + (x W)_j);
        without ``c``: d/dW_ij = <x_i x_j> / 2

    ``log_z`` need not be exact: the probabilities are divided by their sum.
    """
    total = w.new_zeros(())
    of_w, of_b, of_c = w.new_zeros(w.shape), w.new_zeros(b.shape), w.new_zeros(w.shape[1] if c is not None else 0)
    for x in _pieces(w):
        p = torch.exp(log_weights(x, w, b, c) - log_z)[:, None]
        other = x / 2 if c is None else torch.sigmoid(c + x @ w)
        total += p.sum()
        of_b += (p * x).sum(0)
        of_w += x.t() @ (p * other)
        if c is not None:
            of_c += (p * other).sum(0)
    return of_w / total, of_b / total, of_c / total


def _pieces(w: Tensor) -> Iterator[Tensor]:
    return states_in_pieces(len(w), max(1, PIECE // max(*w.shape, 1)), w.device)


def _log_sum_exp(pieces: Iterable[Tensor]) -> Tensor:
    return torch.logsumexp(torch.stack([torch.logsumexp(piece, 0) for piece in pieces]), 0)
