"""The gradient in torch: the ``torch`` backend and, with float64 parameters, the reference of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..common.dispatch import without_autocast

if TYPE_CHECKING:
    from . import Gradient
    from .launches import Phase


@without_autocast
def hidden_probabilities(
    visible: Tensor, weights: Tensor, hidden_bias: Tensor, beta: float, out: Tensor | None = None
) -> Tensor:
    """``P(h = 1 | v)``, (chains, hidden units), in the dtype of the parameters."""
    return torch.sigmoid(beta * (hidden_bias + visible.to(weights.dtype) @ weights), out=out)


BLOCK = 1024
"""Chains of a sum in float32. A sum of n equal numbers in order may err by n / 2 roundings: 3 % at a million."""


@without_autocast
def statistics(visible: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The means ``<v h>``, ``<v>`` and ``<h>`` over chains, in the dtype of ``hidden``.

    Products are summed over `BLOCK` chains in that dtype, and the blocks in float64.
    """
    wide = visible.to(hidden.dtype)
    if len(visible) <= BLOCK:
        return wide.t() @ hidden / len(visible), wide.mean(0), hidden.mean(0)
    products = torch.zeros(wide.shape[1], hidden.shape[1], dtype=torch.float64, device=hidden.device)
    for block, beside in zip(torch.split(wide, BLOCK), torch.split(hidden, BLOCK), strict=True):
        products += block.t() @ beside
    return (products / len(visible)).to(hidden.dtype), wide.mean(0), hidden.mean(0)


def infer(phases: Sequence[Phase], weights: Tensor, hidden_bias: Tensor, beta: float) -> None:
    """Write ``hidden`` of each phase. Sums are float32, for 16-bit parameters too."""
    wide, bias = weights.to(torch.float32), hidden_bias.to(torch.float32)
    for phase in phases:
        hidden_probabilities(phase.visible, wide, bias, beta, out=phase.hidden)


def gradient(data: Phase, model: Phase, out: Gradient) -> None:
    """Write ``out`` from visible and hidden units of both phases. Sums are float32."""
    means = (statistics(phase.visible, phase.hidden.to(torch.float32)) for phase in (data, model))
    for tensor, of_data, of_model in zip(out, *means, strict=True):
        tensor.copy_(of_data - of_model)
