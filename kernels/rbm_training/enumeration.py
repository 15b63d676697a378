"""Small restricted Boltzmann machines exactly: the states of the smaller layer one by one, the other summed out.

All in float64. The states are passed through in pieces, so that memory stays small; the work is ``2**n`` times the
weights, for n units in the smaller layer.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..rbm_free_energy.reference import free_energy
from ..rbm_gradient import Gradient
from ..rbm_gradient.reference import hidden_probabilities, statistics

ENUMERABLE = 20
"""Units of the smaller layer, at most."""
PIECE = 1 << 14


class Machine(NamedTuple):
    """``weights`` (visible units, hidden units), ``visible_bias``, ``hidden_bias``: in the order that `gibbs` takes."""

    weights: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor

    def double(self) -> "Machine":
        return Machine(*(part.double() for part in self))


def _pieces(units: int, device: torch.device) -> Iterator[Tensor]:
    """All states of so many units, float64, some rows at a time."""
    if units > ENUMERABLE:
        raise ValueError(
            f"enumeration takes at most {ENUMERABLE} units in the smaller layer, got {units}: 2**{units} states"
        )
    places = torch.arange(units, device=device)
    for first in range(0, 1 << units, PIECE):
        numbers = torch.arange(first, min(first + PIECE, 1 << units), device=device)
        yield (numbers[:, None] >> places & 1).double()


def _small_first(machine: Machine) -> tuple[Machine, bool]:
    """The machine whose first layer is the smaller one, and whether it was turned round for that."""
    wide = machine.double()
    if wide.weights.shape[0] <= wide.weights.shape[1]:
        return wide, False
    return Machine(wide.weights.t(), wide.hidden_bias, wide.visible_bias), True


def log_partition(machine: Machine, beta: float = 1.0) -> float:
    """``log Z = log sum_v exp(-beta F(v))``."""
    turned, _ = _small_first(machine)
    pieces = [
        torch.logsumexp(-beta * free_energy(states, *turned, beta), 0)
        for states in _pieces(turned.weights.shape[0], turned.weights.device)
    ]
    return float(torch.logsumexp(torch.stack(pieces), 0))


def log_likelihood(machine: Machine, data: Tensor, beta: float = 1.0) -> float:
    """The mean of ``log p(v)`` over the images ``data``, uint8 (images, visible units); in nats."""
    return float(-beta * free_energy(data, *machine.double(), beta).mean()) - log_partition(machine, beta)


def model_statistics(machine: Machine, beta: float = 1.0) -> Gradient:
    """``<v h>``, ``<v>`` and ``<h>`` under ``p(v, h)``; float64."""
    turned, is_turned = _small_first(machine)
    log_z = log_partition(machine, beta)
    small, large = turned.weights.shape
    both = turned.weights.new_zeros((small, large))
    means = turned.weights.new_zeros(small), turned.weights.new_zeros(large)
    for states in _pieces(small, turned.weights.device):
        p = torch.exp(-beta * free_energy(states, *turned, beta) - log_z)
        given = hidden_probabilities(states, turned.weights, turned.hidden_bias, beta)
        both += (p[:, None] * states).t() @ given
        means[0].add_(p @ states)
        means[1].add_(p @ given)
    return Gradient(both.t(), means[1], means[0]) if is_turned else Gradient(both, *means)


def exact_gradient(machine: Machine, data: Tensor, beta: float = 1.0) -> Gradient:
    """The gradient of `log_likelihood` divided by beta; float64."""
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta must be finite and positive, got {beta}")
    wide = machine.double()
    of_data = statistics(data, hidden_probabilities(data, wide.weights, wide.hidden_bias, beta))
    return Gradient(*(a - b for a, b in zip(of_data, model_statistics(machine, beta), strict=True)))
