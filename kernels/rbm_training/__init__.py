"""Training of restricted Boltzmann machines: contrastive divergence, its persistent form, and exact maximum likelihood.

    state = initial_state(data, hidden_units=16, seed=0)
    for _ in range(1000):
        batch = minibatch(data, 100, seed=0, step=state.step)
        state = contrastive_divergence(state, batch, sweeps=1, rate=0.05, seed=0)

An update is ``W <- W + rate (beta (<v h>_data - <v h>_model) - weight_decay W)``, and the same without decay for the
biases. It has no derivative: the updated machine is detached. Updates depend on their arguments and the state only, so
training resumes from a saved state bit for bit. Every random number is a function of (seed, step, chain, unit) in the
suite's random stream: the initial weights are the normal numbers of tensor 0 at step 0, epoch e sorts the images by
words of tensor 1 at step e, and sweeps use the streams of `boltzbench.kernels.rbm_gibbs`.

Sources: Hinton, Neural Computation 14 (2002); Tieleman, ICML 2008; Hinton, UTML TR 2010-003.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..machines.rbm_checks import require_images, require_states
from ..numbers import integer, real
from ..philox import STEP_LIMIT, Stream, normals, random_words
from ..rbm_gibbs import gibbs
from ..rbm_gradient import Gradient, log_likelihood_gradient
from .enumeration import ENUMERABLE, Machine, exact_gradient, log_likelihood, log_partition, model_statistics

__all__ = [
    "ENUMERABLE",
    "Machine",
    "TrainingState",
    "contrastive_divergence",
    "exact_gradient",
    "initial_state",
    "log_likelihood",
    "log_partition",
    "maximum_likelihood",
    "minibatch",
    "model_statistics",
    "persistent_contrastive_divergence",
    "phase_gradient",
    "updated",
]


class TrainingState(NamedTuple):
    """``machine`` after ``step`` updates and ``sweep`` sweeps.

    ``chains`` are the persistent chains, uint8 (chains, visible units), or None.
    """

    machine: Machine
    chains: Tensor | None = None
    step: int = 0
    sweep: int = 0


def initial_state(
    data: Tensor, hidden_units: int, seed: int, *, chains: int = 0, scale: float = 0.01, beta: float = 1.0
) -> TrainingState:
    """Normal weights with standard deviation ``scale``, hidden biases 0, and visible biases from the data's means.

    Args:
        data: uint8 states 0 or 1, (images, visible units), at least one image. Means are clamped to [0.01, 0.99].
        hidden_units: how many.
        seed: the key of the random stream.
        chains: the number of persistent chains. They start at the images in order, repeated if images are fewer.
        scale: standard deviation of the weights.
        beta: the inverse temperature, by which visible biases are divided.

    Raises ValueError for empty data or negative numbers.
    """
    require_images("data", data)
    chains, hidden_units = integer("chains", chains), integer("hidden_units", hidden_units)
    scale, beta = real("scale", scale), real("beta", beta, positive=True)
    visible_units, device = data.shape[1], data.device
    count = visible_units * hidden_units
    groups = torch.arange((count + 3) // 4, device=device)
    words = random_words(groups, seed, 0, Stream.INITIAL_WEIGHTS)
    weights = scale * normals(words).flatten()[:count].view(visible_units, hidden_units)
    frequency = data.to(torch.float64).mean(0).clamp(0.01, 0.99)
    machine = Machine(
        weights.to(torch.float32),
        (torch.logit(frequency) / beta).to(torch.float32),
        torch.zeros(hidden_units, dtype=torch.float32, device=device),
    )
    start = data[torch.arange(chains, device=device) % len(data)] if chains else None
    return TrainingState(machine, start)


def minibatch(data: Tensor, size: int, seed: int, step: int) -> Tensor:
    """The images of update ``step``. Each epoch visits all images once, ``size`` at a time, in a new random order.

    The last batch of an epoch may be smaller. Raises ValueError unless ``1 <= size <= len(data)``.
    """
    if not isinstance(data, Tensor) or data.layout is not torch.strided:
        raise TypeError(f"data must be a dense torch tensor, got {type(data).__name__}")
    if not data.dim() or not len(data):
        raise ValueError(f"data must hold at least one image, got shape {tuple(data.shape)}")
    size, step = integer("size", size, 1, len(data)), integer("step", step)
    epoch, batch = divmod(step, -(-len(data) // size))
    groups = torch.arange((len(data) + 3) // 4, device=data.device)
    words = random_words(groups, seed, epoch, Stream.DATA_ORDER).flatten()[: len(data)]
    return data[torch.argsort(words, stable=True)[batch * size : (batch + 1) * size]]


@not_differentiable("rate", "weight_decay", "beta")
def contrastive_divergence(
    state: TrainingState, batch: Tensor, *, sweeps: int = 1, rate: float, weight_decay: float = 0.0,
    beta: float = 1.0, seed: int, check_values: bool = True, backend: str = "auto",
) -> TrainingState:  # fmt: skip
    """One update of CD-k: the model's chains are ``k = sweeps`` sweeps away from ``batch``.

    ``batch`` is uint8 (images, visible units). Both phases use probabilities of the hidden units. Raises as `gibbs` and
    `log_likelihood_gradient` do.
    """
    rate, weight_decay, beta = _require_numbers(rate, weight_decay, beta)
    sweeps = integer("sweeps", sweeps, 1, STEP_LIMIT)
    change, _ = phase_gradient(state, batch, batch, sweeps, beta, seed, check_values=check_values, backend=backend)
    machine = updated(state.machine, change, rate, weight_decay, beta)
    return state._replace(machine=machine, step=state.step + 1, sweep=state.sweep + sweeps)


@not_differentiable("rate", "weight_decay", "beta")
def persistent_contrastive_divergence(
    state: TrainingState, batch: Tensor, *, sweeps: int = 1, rate: float, weight_decay: float = 0.0,
    beta: float = 1.0, seed: int, check_values: bool = True, backend: str = "auto",
) -> TrainingState:  # fmt: skip
    """One update of PCD-k: as `contrastive_divergence`, but the model's chains are the persistent ones of ``state``."""
    if state.chains is None:
        raise ValueError("state has no persistent chains: pass chains to initial_state")
    rate, weight_decay, beta = _require_numbers(rate, weight_decay, beta)
    sweeps = integer("sweeps", sweeps, 1, STEP_LIMIT)
    change, chains = phase_gradient(
        state, batch, state.chains, sweeps, beta, seed, check_values=check_values, backend=backend
    )
    machine = updated(state.machine, change, rate, weight_decay, beta)
    return TrainingState(machine, chains, state.step + 1, state.sweep + sweeps)


@not_differentiable("rate", "weight_decay", "beta")
def maximum_likelihood(
    state: TrainingState, data: Tensor, *, rate: float, weight_decay: float = 0.0, beta: float = 1.0
) -> TrainingState:
    """One update along the exact gradient, for at most `ENUMERABLE` units in the smaller layer."""
    require_images("data", data, state.machine.weights)
    rate, weight_decay, beta = _require_numbers(rate, weight_decay, beta)
    change = exact_gradient(state.machine, data, beta)
    return state._replace(machine=updated(state.machine, change, rate, weight_decay, beta), step=state.step + 1)


@not_differentiable("beta")
def phase_gradient(
    state: TrainingState, batch: Tensor, start: Tensor, sweeps: int, beta: float, seed: int, *, first_chain: int = 0,
    **options: Any,
) -> tuple[Gradient, Tensor]:  # fmt: skip
    """The gradient of an update, and the visible states of its model's chains, ``sweeps`` sweeps away from ``start``.

    ``first_chain`` is the number of the first of these chains in the stream; ``options`` are ``check_values`` and
    ``backend``.
    """
    weights, _, hidden_bias = state.machine
    if weights.dtype is not torch.float32:
        raise TypeError(
            f"weights must have dtype float32 to be trained, got {weights.dtype}, which would lose small updates"
        )
    for name, states in (("batch", batch), ("start", start)):
        require_states(name, states, weights.device)
        if states.shape[1] != len(weights):
            raise ValueError(f"{name} must have shape (images, {len(weights)}), got {tuple(states.shape)}")
    dreams = gibbs(
        start, *state.machine, sweeps, beta, seed=seed, first_sweep=state.sweep, first_chain=first_chain,
        return_hidden_probability=True, **options,
    )  # fmt: skip
    change = log_likelihood_gradient(
        batch, dreams.visible, weights, hidden_bias, beta, model_hidden=dreams.hidden_probability, **options
    )  # fmt: skip
    return change, dreams.visible


def _require_numbers(rate: float, weight_decay: float, beta: float) -> tuple[float, float, float]:
    return real("rate", rate), real("weight_decay", weight_decay), real("beta", beta, positive=True)


@not_differentiable("rate", "weight_decay", "beta")
def updated(machine: Machine, change: Gradient, rate: float, weight_decay: float, beta: float) -> Machine:
    """``machine`` after the update with the gradient ``change``, divided by beta."""
    rate, weight_decay, beta = _require_numbers(rate, weight_decay, beta)
    grown = (part + rate * beta * step.to(part.dtype) for part, step in zip(machine, change, strict=True))
    weights, visible_bias, hidden_bias = grown
    return Machine(weights - rate * weight_decay * machine.weights, visible_bias, hidden_bias)
