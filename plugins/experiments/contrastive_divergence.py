"""The bias of CD-k, exact and sampled; the likelihood of digits during training; images sampled from a machine.

The mean gradient of CD-k is ``sum_v (q - q T^k)(v) phi(v)`` with data law ``q``, transition matrix ``T`` of one sweep
and statistics ``phi``. On a machine of three visible and two hidden units it is enumerated.

Sources: Hinton, Neural Computation 14 (2002); Bengio and Delalleau, Neural Computation 21 (2009).
"""

import math
from collections.abc import Callable

import torch
from boltzbench.harness import Curve, Estimate, Experiment, Findings, Picture, Plot, hookimpl
from boltzbench.kernels.rbm_gibbs import gibbs
from boltzbench.kernels.rbm_gradient import log_likelihood_gradient
from boltzbench.kernels.rbm_training import (
    Machine,
    initial_state,
    log_likelihood,
    minibatch,
    persistent_contrastive_divergence,
)
from boltzbench.plugins.exact.states import all_units
from boltzbench.plugins.support import digits
from boltzbench.plugins.support.experiments import mean_of_law
from torch import Tensor

BOLTZBENCH_API = 1

SWEEPS = (1, 2, 5, 10)
CHAINS = 200_000
PATTERNS = {1: 0.6, 6: 0.3, 3: 0.1}
"""The data: three of the eight states, numbered as in `exact.states`, with their probabilities."""
SAMPLES, ACROSS = 32, 8
SAMPLE_SWEEPS = 200
SAMPLED_UNITS = 64
SAMPLED_UPDATES = 800
UPDATES = 60
SEEDS_APART = 1_000_003
"""Between the seeds of two k. Torch's generator on a CPU keeps 32 bits of a seed, so a shift by 32 bits is none."""


def slow_machine() -> Machine:
    """A machine with strong couplings, which mixes so slowly that even CD-10 and CD-11 differ."""
    weights = torch.tensor([[4.0, -3.0], [4.0, -3.0], [-3.5, 4.0]])
    return Machine(weights, torch.tensor([-2.0, -2.0, 0.2]), torch.tensor([-3.0, -1.0]))


def data_law() -> Tensor:
    """The probability of each visible state of the data, float64."""
    q = torch.zeros(8, dtype=torch.float64)
    q[list(PATTERNS)] = torch.tensor(list(PATTERNS.values()), dtype=torch.float64)
    return q


def visible_law(machine: Machine, beta: float = 1.0) -> Tensor:
    """The probability of each visible state under the machine, float64."""
    v, wide = all_units(len(machine.visible_bias)).double(), machine.double()
    field = beta * (wide.hidden_bias + v @ wide.weights)
    return torch.softmax(beta * v @ wide.visible_bias + torch.nn.functional.softplus(field).sum(1), 0)


def transition(machine: Machine, beta: float = 1.0) -> Tensor:
    """``T[v, v']``: the probability of ``v'`` after one sweep from ``v``; float64."""
    wide = machine.double()
    v, h = all_units(len(wide.visible_bias)).double(), all_units(len(wide.hidden_bias)).double()

    def law(states: Tensor, field: Tensor) -> Tensor:
        p = torch.sigmoid(beta * field)
        return (states[None] * p[:, None] + (1 - states[None]) * (1 - p[:, None])).prod(2)

    to_hidden = law(h, wide.hidden_bias + v @ wide.weights)
    return to_hidden @ law(v, wide.visible_bias + h @ wide.weights.t())


def moments(machine: Machine, beta: float = 1.0) -> Tensor:
    """The statistics of each visible state, ``v_i p(h_j)``, ``v_i``, ``p(h_j)``: (states, statistics)."""
    wide, v = machine.double(), all_units(len(machine.visible_bias)).double()
    p = torch.sigmoid(beta * (wide.hidden_bias + v @ wide.weights))
    return torch.cat(((v[:, :, None] * p[:, None, :]).flatten(1), v, p), 1)


def gradient_law(machine: Machine, sweeps: int) -> tuple[Tensor, Tensor]:
    """CD-k's gradient by one chain: its values (outcomes, statistics) and their probabilities (outcomes,).

    An outcome is a state of the data and the state that ``sweeps`` sweeps lead to.
    """
    phi = moments(machine)
    joint = data_law()[:, None] * torch.linalg.matrix_power(transition(machine), sweeps)
    return (phi[:, None] - phi).flatten(0, 1), joint.flatten()


def gradient_and_error(machine: Machine, sweeps: int, chains: int) -> tuple[Tensor, Tensor]:
    """The exact mean of CD-k's gradient, and its standard error for ``chains`` independent starts."""
    values, law = gradient_law(machine, sweeps)
    mean = law @ values
    return mean, (law @ (values - mean) ** 2 / chains).sqrt()


def sampled_gradient(
    machine: Machine, sweeps: int, chains: int, device: torch.device, seed: int, backend: str = "auto"
) -> Tensor:
    """CD-k's gradient from draws of `data_law`, by the kernels; float64, in the order of `moments`."""
    drawn = torch.multinomial(data_law(), chains, replacement=True, generator=torch.Generator().manual_seed(seed))
    data = all_units(3)[drawn].to(device)
    here = Machine(*(part.to(device) for part in machine))
    model = gibbs(data, *here, sweeps, seed=seed, backend=backend).visible
    found = log_likelihood_gradient(data, model, here.weights, here.hidden_bias, backend=backend)
    return torch.cat([part.flatten() for part in found]).double().cpu()


def run(device: torch.device, seed: int) -> Findings:
    """The table and the plot show the weight between the first visible and the first hidden unit."""
    machine, chains = slow_machine(), CHAINS * (50 if device.type == "cuda" else 1)
    unbiased = (data_law() - visible_law(machine)) @ moments(machine)
    estimates, biases, errors = [], [], []
    for sweeps in SWEEPS:
        values, law = gradient_law(machine, sweeps)
        found = sampled_gradient(machine, sweeps, chains, device, seed + sweeps * SEEDS_APART)
        bias = float(found[0] - unbiased[0])
        estimate = mean_of_law(f"bias of CD-{sweeps}", bias, values[:, 0] - unbiased[0], law, chains)
        estimates.append(estimate)
        biases.append(bias)
        errors.append(estimate.stderr or 0.0)
    fine = tuple(range(1, max(SWEEPS) + 1))
    exact_biases = [float(gradient_and_error(machine, k, 1)[0][0] - unbiased[0]) for k in fine]
    curves = (
        Curve("bias", tuple(map(float, fine)), tuple(exact_biases), exact=True),
        Curve("bias", tuple(map(float, SWEEPS)), tuple(biases), tuple(errors)),
    )
    plot = Plot("Bias of CD-k: mean gradient of a weight minus the true one", "sweeps k", "bias", curves)
    likelihoods = likelihood_of_digits(device, seed)
    gain = likelihoods[-1] - likelihoods[0]
    estimates.append(Estimate("nats gained on the digits", gain))
    updates = tuple(float(UPDATES // 4 * i) for i in range(5))
    learning = Curve("persistent contrastive divergence", updates, tuple(likelihoods))
    plots = (plot, Plot("Digits learned", "updates", "log likelihood of an image / nat", (learning,)))
    return Findings(tuple(estimates), plots, (samples(device, seed),))


def likelihood_of_digits(device: torch.device, seed: int) -> list[float]:
    """The exact mean log likelihood of the digits at five points of training, with 10 hidden units."""
    data = digits.binary_images().to(device)
    state = initial_state(data, 10, seed=seed, chains=100, scale=0.3)
    found = [float(log_likelihood(state.machine, data))]
    for update in range(UPDATES):
        batch = minibatch(data, 200, seed, state.step)
        state = persistent_contrastive_divergence(state, batch, rate=0.5, seed=seed)
        if (update + 1) % (UPDATES // 4) == 0:
            found.append(float(log_likelihood(state.machine, data)))
    return found


def samples(device: torch.device, seed: int) -> Picture:
    """Samples of a machine trained on the digits: pixel probabilities after many sweeps from random states."""
    data = digits.binary_images().to(device)
    state = initial_state(data, SAMPLED_UNITS, seed=seed, chains=100, scale=0.1)
    for update in range(SAMPLED_UPDATES):
        batch, rate = minibatch(data, 100, seed, state.step), 0.3 * (1 - update / SAMPLED_UPDATES)
        state = persistent_contrastive_divergence(state, batch, rate=rate, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 2, (SAMPLES, digits.PIXELS), generator=generator, dtype=torch.uint8).to(device)
    hidden = gibbs(start, *state.machine, SAMPLE_SWEEPS, seed=seed, first_sweep=state.sweep).hidden.float()
    shown = torch.sigmoid(state.machine.visible_bias + hidden @ state.machine.weights.t())
    side = math.isqrt(digits.PIXELS)
    frame = torch.nn.functional.pad(shown.view(-1, ACROSS, side, side), (1, 1, 1, 1), value=0.5)
    rows = frame.permute(0, 2, 1, 3).flatten(0, 1).flatten(1)
    title = f"Digits sampled from a machine of {SAMPLED_UNITS} hidden units"
    return Picture(title, tuple(map(tuple, rows.cpu().double().tolist())))


@hookimpl
def register_experiments(register: Callable[[Experiment], None]) -> None:
    register(
        Experiment(
            name="contrastive_divergence",
            summary="How wrong is the gradient of CD-k?",
            source="Hinton, Neural Computation 14 (2002); Bengio and Delalleau, Neural Computation 21 (2009)",
            run=run,
        )
    )
