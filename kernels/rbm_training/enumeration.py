"""Exact log Z, likelihoods, statistics and gradients of small restricted Boltzmann machines, in float64.

The functions enumerate the ``2**n`` states of the smaller layer in pieces and sum the other layer out. Autograd
differentiates `log_partition` and `log_likelihood` with respect to the machine; statistics and gradients are detached.
"""

from typing import NamedTuple

from torch import Tensor

from ..common.derivatives import not_differentiable
from ..enumeration import rbm_log_partition
from ..machines.rbm_checks import require_images
from ..machines.states import states_in_pieces
from ..numbers import real
from ..rbm_free_energy import free_energy_reference
from ..rbm_gradient import Gradient, hidden_probabilities, statistics

ENUMERABLE = 20
"""Units in the smaller layer, at most."""
PIECE = 1 << 14
"""States in memory at a time."""


class Machine(NamedTuple):
    """``weights`` (visible units, hidden units), ``visible_bias``, ``hidden_bias``: in the order of `gibbs`."""

    weights: Tensor
    visible_bias: Tensor
    hidden_bias: Tensor

    def double(self) -> "Machine":
        return Machine(*(part.double() for part in self))


def _small_first(machine: Machine) -> tuple[Machine, bool]:
    """The machine in float64 with the smaller layer first, and whether the layers were exchanged."""
    wide = machine.double()
    small = min(wide.weights.shape)
    if small > ENUMERABLE:
        raise ValueError(
            f"enumeration takes at most {ENUMERABLE} units in the smaller layer, got {small}: 2**{small} states"
        )
    if wide.weights.shape[0] == small:
        return wide, False
    return Machine(wide.weights.t(), wide.hidden_bias, wide.visible_bias), True


def _require_beta(beta: float) -> float:
    return real("beta", beta, positive=True)


def log_partition(machine: Machine, beta: float = 1.0) -> Tensor:
    """``log Z = log sum_v exp(-beta F(v))`` in nats: float64, of no dimensions.

    This is `boltzbench.kernels.enumeration.rbm_log_partition` with ``backend="torch"``, for at most `ENUMERABLE` units
    in the smaller layer. `boltzbench.kernels.enumeration.log_partition` takes machines with any couplings instead.
    """
    beta = real("beta", beta, least=0)
    turned, _ = _small_first(machine)
    return rbm_log_partition(*turned, beta, check_values=False, backend="torch")


def log_likelihood(machine: Machine, data: Tensor, beta: float = 1.0) -> Tensor:
    """The mean of ``log p(v) = -beta F(v) - log Z`` over the images ``data``, uint8 (images, visible units).

    In nats; float64, of no dimensions.
    """
    beta = _require_beta(beta)
    require_images("data", data, machine.weights)
    return -beta * free_energy_reference(data, *machine.double(), beta).mean() - log_partition(machine, beta)


@not_differentiable("beta")
def model_statistics(machine: Machine, beta: float = 1.0) -> Gradient:
    """``<v h>``, ``<v>`` and ``<h>`` under ``p(v, h)``; float64."""
    beta = _require_beta(beta)
    turned, is_turned = _small_first(machine)
    log_z = log_partition(machine, beta)
    small, large = turned.weights.shape
    both = turned.weights.new_zeros((small, large))
    means = turned.weights.new_zeros(small), turned.weights.new_zeros(large)
    for states in states_in_pieces(small, PIECE, turned.weights.device):
        p = (-beta * free_energy_reference(states, *turned, beta) - log_z).exp()
        given = hidden_probabilities(states, turned.weights, turned.hidden_bias, beta)
        both += (p[:, None] * states).t() @ given
        means[0].add_(p @ states)
        means[1].add_(p @ given)
    return Gradient(both.t(), means[1], means[0]) if is_turned else Gradient(both, *means)


@not_differentiable("beta")
def exact_gradient(machine: Machine, data: Tensor, beta: float = 1.0) -> Gradient:
    """The gradient of `log_likelihood` divided by beta; float64."""
    beta = _require_beta(beta)
    require_images("data", data, machine.weights)
    wide = machine.double()
    of_data = statistics(data, hidden_probabilities(data, wide.weights, wide.hidden_bias, beta))
    return Gradient(*(a - b for a, b in zip(of_data, model_statistics(machine, beta), strict=True)))
