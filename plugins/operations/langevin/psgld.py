"""The operation ``psgld``: the Langevin update preconditioned by a running mean of squared gradients."""

import math

import torch
from boltzbench import harness
from boltzbench.harness import Advance, Agreement, Inputs, Law
from boltzbench.kernels.sgld import psgld_update
from boltzbench.plugins.support import langevin
from boltzbench.plugins.support.langevin import Scheme, Terms, noise_scale, standard_normal, uncorrelated
from torch import Tensor

BOLTZBENCH_API = 1


def _preconditioned(
    x: Tensor, g: Tensor, state: Tensor | None, xi: Tensor, radius: Tensor, inputs: Inputs
) -> Terms:  # fmt: skip
    """Errors: V and its root 5 u, four roundings and the approximate square root; G 12 u and its root 8 u, with the
    damping and a reciprocal (4 u); the terms that they multiply have three more roundings."""
    assert state is not None
    square = inputs["decay"] * state + (1 - inputs["decay"]) * g * g
    preconditioner = 1 / (inputs["damping"] + square.sqrt())
    drift = 0.5 * inputs["step_size"] * preconditioner * g
    scale = noise_scale(inputs) * preconditioner.sqrt()
    error = 4 * x.abs() + 16 * drift.abs() + 12 * scale * xi.abs() + 12 * scale * radius
    return Terms(x - drift + scale * xi, error, square, 5 * square)


SCHEME = Scheme(
    "psgld", psgld_update, _preconditioned, state="square", special_calls=5, numbers={"decay": 0.9, "damping": 0.01}
)


def constant_preconditioner(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """With decay 1, V is constant: in a quadratic well each element is then a Langevin chain of step size ``eps G``.

    V differs from element to element. Each element starts as an exact draw of its chain, and takes three steps.
    """
    stiffness, step_size, temperature, damping, steps = 2.0, 0.3, 0.7, 0.5, 3
    square = torch.tensor([0.0, 0.25, 4.0, 9.0], dtype=torch.float64).repeat(langevin.CHAINS // 4)
    steps_of_each = step_size / (damping + square.sqrt())
    variance = temperature / (stiffness * (1 - steps_of_each * stiffness / 4))
    generator = torch.Generator().manual_seed(seed)
    x = (variance.sqrt() * torch.randn(langevin.CHAINS, generator=generator, dtype=torch.float64)).float().to(device)
    numbers = {"step_size": step_size, "temperature": temperature, "decay": 1.0, "damping": damping, "seed": seed}
    false_alarm, noises = 1e-6 / 4, []
    for step in range(steps):
        before = x.double().cpu()
        given = {"parameter_0": x, "gradient_0": stiffness * x, "square_0": square.float().to(device)}
        result = advance({**given, "step": step, **numbers})
        x = result["parameter_0"]
        drifted = before * (1 - steps_of_each * stiffness / 2)
        noises.append((x.double().cpu() - drifted) / (steps_of_each * temperature).sqrt())
        if not torch.equal(result["square_0"], given["square_0"]):
            return Agreement(harness.Status.WRONG_LAW, "V changed although its decay is 1", error=math.inf, bound=0.0)
    return harness.all_of(
        [
            *standard_normal(x.double().cpu() / variance.sqrt(), "x", false_alarm),
            *standard_normal(noises[-1], "noise", false_alarm),
            uncorrelated(noises[0], noises[1], "the noise of two steps", false_alarm),
        ]
    )


OPERATION = langevin.operation(
    SCHEME,
    "The Langevin update preconditioned by a running mean of squared gradients, in place, for a list of tensors.",
    "V <- d V + (1 - d) g^2, G = 1 / (c + sqrt(V)), x <- x - (eps / 2) G g + sqrt(eps T G) xi",
    "Li, Chen, Carlson and Carin, AAAI 2016, without the correction term",
    Law(
        "constant preconditioner",
        "with constant V, the exact distribution of the discretised chain",
        constant_preconditioner,
    ),
)


register_operations, register_implementations = langevin.hooks(OPERATION, SCHEME, "preconditioned")
