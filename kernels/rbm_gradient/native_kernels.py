"""The gradient on a CPU: calling `rbm_gradient.cpp`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..native import NativeModule
from .launches import Phase

if TYPE_CHECKING:
    from . import Gradient

MODULE = NativeModule(Path(__file__).with_name("rbm_gradient.cpp"))


def infer(phases: Sequence[Phase], weights: Tensor, hidden_bias: Tensor, beta: float) -> None:
    """Write ``hidden`` of one or two phases."""
    matrix, bias = weights.to(torch.float32), hidden_bias.to(torch.float32)
    for phase in phases:
        MODULE.call(
            "infer", phase.visible, matrix, bias, phase.hidden, len(phase.visible), *matrix.shape, *matrix.stride(),
            beta,
        )  # fmt: skip


def gradient(data: Phase, model: Phase, out: Gradient) -> None:
    """Write ``out`` from visible and hidden units of both phases."""
    for phase, subtract in ((data, 0), (model, 1)):
        hidden = phase.hidden.to(torch.float32)
        MODULE.call("add_phase", phase.visible, hidden, *out, len(phase.visible), *out.weights.shape, subtract)
