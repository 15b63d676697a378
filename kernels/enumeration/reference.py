"""The ``torch`` backend: enumeration in float64, in pieces that fit the memory."""

from collections.abc import Iterable

import torch
from torch import Tensor

from ..machines.states import states_in_pieces

PIECE = 1 << 18
"""Numbers in the largest tensor of a piece, approximately."""


def product_sum(w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``log sum_x e^(b.x) prod_j (1 + e^(c_j + (x W)_j))`` for ``w`` (enumerated units, other units)."""
    pieces = states_in_pieces(len(w), max(1, PIECE // max(*w.shape, 1)), w.device)
    return _log_sum_exp(x @ b + torch.nn.functional.softplus(c + x @ w, threshold=100.0).sum(1) for x in pieces)


def machine_sum(w: Tensor, b: Tensor) -> Tensor:
    """``log sum_x e^(1/2 x.W.x + b.x)`` for ``w`` (n, n)."""
    pieces = states_in_pieces(len(w), max(1, PIECE // max(len(w), 1)), w.device)
    return _log_sum_exp(0.5 * ((x @ w) * x).sum(1) + x @ b for x in pieces)


def _log_sum_exp(pieces: Iterable[Tensor]) -> Tensor:
    return torch.logsumexp(torch.stack([torch.logsumexp(piece, 0) for piece in pieces]), 0)
