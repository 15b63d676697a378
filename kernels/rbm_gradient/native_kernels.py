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


BLOCK = 4096
"""Chains of a sum in float32: beyond it, a sum in order loses more to rounding than a fixed number of digits."""


def gradient(data: Phase, model: Phase, out: Gradient) -> None:
    """Write ``out`` from visible and hidden units of both phases. Means of `BLOCK` chains are summed in float64."""
    if max(len(data.visible), len(model.visible)) <= BLOCK:
        for phase, subtract in ((data, 0), (model, 1)):
            _add(phase.visible, phase.hidden, out, subtract)
        return
    for tensor, of_data, of_model in zip(out, _means(data, out), _means(model, out), strict=True):
        tensor.copy_(of_data - of_model)


def _add(visible: Tensor, hidden: Tensor, out: Sequence[Tensor], subtract: int) -> None:
    weights, *_ = out
    MODULE.call("add_phase", visible, hidden.to(torch.float32), *out, len(visible), *weights.shape, subtract)


def _means(phase: Phase, like: Gradient) -> list[Tensor]:
    """The means over the chains of ``phase``, float64, in the shapes of ``like``."""
    total = [torch.zeros_like(each, dtype=torch.float64) for each in like]
    block = [torch.empty_like(each) for each in like]
    for visible, hidden in zip(torch.split(phase.visible, BLOCK), torch.split(phase.hidden, BLOCK), strict=True):
        _add(visible, hidden, block, 0)
        for sum_of, mean in zip(total, block, strict=True):
            sum_of.add_(mean, alpha=len(visible) / len(phase.visible))
    return total
