"""The free energy on a CPU: calling `rbm_free_energy.cpp`."""

from pathlib import Path

import torch
from torch import Tensor

from ..native import NativeModule

MODULE = NativeModule(Path(__file__).with_name("rbm_free_energy.cpp"))


def forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, out: Tensor
) -> None:
    """Write ``out`` for at least one chain."""
    matrix, b, c = (each.to(torch.float32) for each in (weights, visible_bias, hidden_bias))
    betas, number = (beta, 1.0) if isinstance(beta, Tensor) else (None, beta)
    MODULE.call("free_energy", visible, matrix, b, c, betas, out, len(visible), *matrix.shape, *matrix.stride(), number)
