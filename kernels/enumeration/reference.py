"""Enumeration in torch, float64, some states at a time: the ``torch`` backend."""

from collections.abc import Iterator

import torch
from torch import Tensor

PIECE = 1 << 18
"""Numbers that a piece holds, in the order of."""


def _pieces(units: int, width: int, device: torch.device) -> Iterator[Tensor]:
    """All states of so many units, float64, some rows at a time."""
    rows = max(1, PIECE // max(units, width, 1))
    places = torch.arange(units, device=device)
    for first in range(0, 1 << units, rows):
        numbers = torch.arange(first, min(first + rows, 1 << units), device=device)
        yield (numbers[:, None] >> places & 1).double()


def product_sum(w: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """``log sum_x e^(b.x) prod_j (1 + e^(c_j + (x W)_j))`` for ``w`` (enumerated units, other units)."""
    return torch.logsumexp(
        torch.stack(
            [
                torch.logsumexp(x @ b + torch.nn.functional.softplus(c + x @ w, threshold=100.0).sum(1), 0)
                for x in _pieces(len(w), w.shape[1], w.device)
            ]
        ),
        0,
    )


def machine_sum(w: Tensor, b: Tensor) -> Tensor:
    """``log sum_x e^(1/2 x.W.x + b.x)`` for ``w`` (n, n)."""
    pieces = _pieces(len(w), len(w), w.device)
    return torch.logsumexp(torch.stack([torch.logsumexp(0.5 * ((x @ w) * x).sum(1) + x @ b, 0) for x in pieces]), 0)
