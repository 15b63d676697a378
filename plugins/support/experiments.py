"""Helpers of experiments: means with errors, the backend to use, and perceptrons trained for many seeds at once."""

import math
from collections.abc import Callable, Sequence

import torch
from boltzbench.kernels.common.dispatch import choose_backend, unavailable
from boltzbench.plugins.support import digits
from torch import Tensor


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of ``values`` (n,) and its standard error, in float64."""
    wide = values.double()
    return float(wide.mean()), float(wide.std()) / math.sqrt(len(wide))


def fast_backend(device: torch.device, package: str) -> str:
    """``auto``, unless that is torch on a CPU that can emulate CUDA C: then ``cupy``, some ten times faster.

    ``package`` holds the operation's kernels.
    """
    slow = device.type == "cpu" and choose_backend("auto", device, package) == "torch"
    return "cupy" if slow and unavailable("cupy", device) is None else "auto"


def first_parameters(generators: Sequence[torch.Generator], hidden_units: int, device: torch.device) -> list[Tensor]:
    """Perceptrons with one hidden layer for the digits, one for each generator, with gradients required.

    Both weights, of variance 2 / inputs (K. He et al., ICCV 2015), then both biases, 0. The first dimension is the
    perceptron.
    """
    shapes = ((digits.PIXELS, hidden_units), (hidden_units, digits.CLASSES))
    parameters = [
        torch.stack([torch.randn(shape, generator=each) * math.sqrt(2 / shape[0]) for each in generators]).to(device)
        for shape in shapes
    ]
    parameters += [torch.zeros(len(generators), 1, shape[1], device=device) for shape in shapes]
    for each in parameters:
        each.requires_grad_()
    return parameters


def logits(pixels: Tensor, parameters: Sequence[Tensor], activation: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits (perceptrons, images, classes) of ``pixels`` (perceptrons, images, pixels)."""
    first, second, first_bias, second_bias = parameters
    return torch.baddbmm(second_bias, activation(torch.baddbmm(first_bias, pixels, first)), second)
