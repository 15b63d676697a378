"""The gradient in torch: the reference of the kernels when its parameters are float64, and the ``torch`` backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from . import Gradient, Phase


def hidden_probabilities(visible: Tensor, weights: Tensor, hidden_bias: Tensor, beta: float) -> Tensor:
    """``P(h = 1 | v)`` in the parameters' own dtype, (chains, hidden units)."""
    return torch.sigmoid(beta * (hidden_bias + visible.to(weights.dtype) @ weights))


def statistics(visible: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``<v h>``, ``<v>`` and ``<h>`` over chains, in the dtype of ``hidden``."""
    wide = visible.to(hidden.dtype)
    return wide.t() @ hidden / len(visible), wide.mean(0), hidden.mean(0)


def gradient(
    data: Phase, model: Phase, weights: Tensor | None, hidden_bias: Tensor | None, beta: float, out: Gradient
) -> None:
    """The ``torch`` backend: ``out`` is written. 16-bit parameters are summed in float32."""
    found = []
    for phase in (data, model):
        hidden = phase.hidden.to(torch.float32)
        if phase.to_infer and weights is not None and hidden_bias is not None:
            parameters = (weights.to(torch.float32), hidden_bias.to(torch.float32))
            hidden = hidden_probabilities(phase.visible, *parameters, beta)
        found.append(statistics(phase.visible, hidden))
    for tensor, of_data, of_model in zip(out, *found, strict=True):
        tensor.copy_(of_data - of_model)
