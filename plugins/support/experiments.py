"""Helpers of experiments: means with errors, the backend to use, and perceptrons trained for many seeds at once."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from boltzbench.harness import Estimate, mean_of_draws
from boltzbench.kernels.common.dispatch import choose_backend, unavailable
from boltzbench.plugins.support import digits
from numpy.typing import ArrayLike
from torch import Tensor


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of ``values`` (n,) and its standard error, in float64."""
    wide = values.double()
    return float(wide.mean()), float(wide.std()) / math.sqrt(len(wide))


def with_students_t(estimate: Estimate, draws: int) -> Estimate:
    """``estimate`` with the p-value of Student's t, where the standard error is that of so many independent draws."""
    from scipy.special import stdtr  # here, because scipy is slow to import

    assert estimate.exact is not None
    assert estimate.stderr is not None
    distance = abs(estimate.measured - estimate.exact)
    t = distance / estimate.stderr if estimate.stderr else math.inf if distance else 0.0
    return replace(estimate, p_value=float(2 * stdtr(draws - 1, -t)))


def mean_of_law(claim: str, measured: float, values: ArrayLike, probabilities: ArrayLike, draws: int) -> Estimate:
    """The mean of independent draws of a quantity whose exact law is known, with its exact standard error and tail."""
    x, p = np.asarray(values, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    exact = float(p @ x)
    stderr = math.sqrt(float(p @ np.square(x - exact)) / draws)
    return Estimate(claim, measured, stderr, exact, p_value=mean_of_draws(measured, x, p, draws).p_value)


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
