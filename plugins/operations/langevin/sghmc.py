"""The operation ``sghmc``: the Langevin update with momentum and friction."""

import math
from functools import partial

import torch
from boltzbench import harness
from boltzbench.harness import Advance, Agreement, Dynamics, Inputs, Law
from boltzbench.kernels.sgld import sghmc_update
from boltzbench.plugins.exact.laws import linear_variance
from boltzbench.plugins.support import langevin
from boltzbench.plugins.support.langevin import Scheme, Terms, noise_scale, standard_normal, uncorrelated
from torch import Tensor

BOLTZBENCH_API = 1


def _hamiltonian(x: Tensor, g: Tensor, state: Tensor | None, xi: Tensor, radius: Tensor, inputs: Inputs) -> Terms:
    """Errors: four roundings of each term of p, and two of each term of x."""
    assert state is not None
    kept, drift = (1 - inputs["friction"]) * state, inputs["step_size"] * g
    scale = math.sqrt(2 * inputs["friction"]) * noise_scale(inputs)
    momentum = kept - drift + scale * xi
    error = 4 * (kept.abs() + drift.abs() + scale * xi.abs()) + 12 * scale * radius
    return Terms(x + momentum, error + 2 * (x.abs() + momentum.abs()), momentum, error)


SCHEME = Scheme("sghmc", sghmc_update, _hamiltonian, state="momentum", numbers={"friction": 0.2})


def quadratic_well(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """U = k x^2 / 2: position and momentum keep their exact joint distribution: see `linear_variance`.

    ``Cov(x, p) = Var(p) / 2``. Each element is a chain that starts as an exact draw of (x, p), and takes four steps.
    """
    stiffness, step_size, temperature, friction, steps = 2.0, 0.3, 0.7, 0.3, 4
    dynamics = Dynamics("sghmc", {"step_size": step_size, "friction": friction})
    variance = linear_variance(stiffness, temperature, dynamics)
    assert variance is not None
    slope, spread = step_size * stiffness / (2 - friction), 2 * step_size * temperature / (2 - friction)
    momentum_variance, covariance = slope**2 * variance + spread, slope * variance
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, langevin.CHAINS, generator=generator, dtype=torch.float64)
    x = math.sqrt(variance) * draw()
    p = (slope * x + math.sqrt(spread) * draw()).float().to(device)
    x = x.float().to(device)
    numbers = {"step_size": step_size, "temperature": temperature, "friction": friction, "seed": seed}
    noises = []
    for step in range(steps):
        drifted = (1 - friction) * p.double() - step_size * stiffness * x.double()
        given = {"parameter_0": x, "gradient_0": stiffness * x, "momentum_0": p}
        result = advance({**given, "step": step, **numbers})
        x, p = result["parameter_0"], result["momentum_0"]
        noises.append((p.double() - drifted).cpu() / math.sqrt(2 * friction * step_size * temperature))
    position, momentum = x.double().cpu(), p.double().cpu()
    false_alarm = 1e-6 / 5
    error = math.sqrt((variance * momentum_variance + covariance**2) / langevin.CHAINS)
    return harness.all_of(
        [
            *standard_normal(position / math.sqrt(variance), "x", false_alarm),
            *standard_normal(momentum / math.sqrt(momentum_variance), "p", false_alarm),
            *standard_normal(noises[-1], "noise", false_alarm),
            harness.within(
                float((position * momentum).mean()), covariance, error, what="covariance of x and p",
                false_alarm=false_alarm,
            ),
            uncorrelated(noises[0], noises[1], "the noise of two steps", false_alarm),
        ]
    )  # fmt: skip


OPERATION = langevin.operation(
    SCHEME,
    "The update of Hamiltonian dynamics with friction and noise, in place, for a list of tensors.",
    "p <- (1 - a) p - eta g + sqrt(2 a eta T) xi, x <- x + p",
    "Chen, Fox and Guestrin, ICML 2014, equation 15, with temperature",
    Law(
        "quadratic well",
        "the exact joint distribution of position and momentum of the discretised chain",
        quadratic_well,
    ),
)


register_operations, register_implementations = langevin.hooks(OPERATION, SCHEME, "hamiltonian")
