"""The operations ``psgld`` and ``sghmc``: the Langevin update with a preconditioner, and with a momentum.

They are registered by the plugin ``sgld``.
"""

import math
from functools import partial

import torch
from boltzbench import harness
from boltzbench.harness import Advance, Agreement, Case, Dynamics, Inputs, Law, Operation
from boltzbench.kernels.sgld import psgld_update, sghmc_update
from boltzbench.plugins import langevin
from boltzbench.plugins.exact_laws import linear_variance
from boltzbench.plugins.langevin import MIXED, Scheme, Terms, case, noise_scale
from torch import Tensor


def _preconditioned(
    x: Tensor, g: Tensor, state: Tensor | None, xi: Tensor, radius: Tensor, inputs: Inputs
) -> Terms:  # fmt: skip
    """Four roundings and that of the square root's approximation make V and its root good to 5 u; with damping and a
    reciprocal (4 u), G to 12 u and its root to 8 u; the terms that they multiply have three roundings more."""
    assert state is not None
    square = inputs["decay"] * state + (1 - inputs["decay"]) * g * g
    preconditioner = 1 / (inputs["damping"] + square.sqrt())
    drift = 0.5 * inputs["step_size"] * preconditioner * g
    scale = noise_scale(inputs) * preconditioner.sqrt()
    error = 4 * x.abs() + 16 * drift.abs() + 12 * scale * xi.abs() + 12 * scale * radius
    return Terms(x - drift + scale * xi, error, square, 5 * square)


def _hamiltonian(x: Tensor, g: Tensor, state: Tensor | None, xi: Tensor, radius: Tensor, inputs: Inputs) -> Terms:
    """Four roundings of each term of p, and two of each term of x."""
    assert state is not None
    kept, drift = (1 - inputs["friction"]) * state, inputs["step_size"] * g
    scale = math.sqrt(2 * inputs["friction"]) * noise_scale(inputs)
    momentum = kept - drift + scale * xi
    error = 4 * (kept.abs() + drift.abs() + scale * xi.abs()) + 12 * scale * radius
    return Terms(x + momentum, error + 2 * (x.abs() + momentum.abs()), momentum, error)


PRECONDITIONED = Scheme(
    "psgld", psgld_update, _preconditioned, state="square", special_calls=5, numbers={"decay": 0.9, "damping": 0.01}
)
HAMILTONIAN = Scheme("sghmc", sghmc_update, _hamiltonian, state="momentum", numbers={"friction": 0.2})


def _cases(operation: str) -> tuple[Case, ...]:
    return (
        *(case(operation, 1, 2051, dtype) for dtype in MIXED),
        *(case(operation, 1, 4097, variant=variant) for variant in ("cold", "nan", "unaligned")),
        case(operation, 1, 4097, "bfloat16", "stochastic"),
        case(operation, 9, 1031, variant="mixed"),
        *(case(operation, 1, elements) for elements in (0, 1, 4096)),
        case(operation, 1, 1 << 20, purpose="bench"),
        *(
            case(operation, tensors, elements, dtype, variant, purpose="bench", preset="full")
            for dtype, variant in (("float32", ""), ("bfloat16", "stochastic"))
            for tensors, elements in ((1, 1 << 27), (200, 1 << 19))
        ),
    )


CHAINS = 100_000


def _standard_normal(scores: Tensor, what: str, false_alarm: float) -> list[Agreement]:
    """Mean 0, variance 1, and neighbours independent, for independent standard normal scores."""
    n = len(scores)
    pairs = scores[0 : n - 1 : 2] * scores[1:n:2]
    return [
        harness.within(float(scores.mean()), 0.0, n**-0.5, what=f"mean of {what}", false_alarm=false_alarm / 3),
        harness.within(
            float(scores.square().mean()), 1.0, (2 / n) ** 0.5, what=f"variance of {what}", false_alarm=false_alarm / 3
        ),
        harness.within(
            float(pairs.mean()), 0.0, len(pairs) ** -0.5, what=f"covariance of neighbours' {what}",
            false_alarm=false_alarm / 3,
        ),
    ]  # fmt: skip


def constant_preconditioner(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """With decay 1, V stays: in a quadratic well each element is then a Langevin chain of step size ``eps G``.

    V differs from element to element. Each starts as an exact draw of its chain, and takes three steps.
    """
    stiffness, step_size, temperature, damping, steps = 2.0, 0.3, 0.7, 0.5, 3
    square = torch.tensor([0.0, 0.25, 4.0, 9.0], dtype=torch.float64).repeat(CHAINS // 4)
    steps_of_each = step_size / (damping + square.sqrt())
    variance = temperature / (stiffness * (1 - steps_of_each * stiffness / 4))
    generator = torch.Generator().manual_seed(seed)
    x = (variance.sqrt() * torch.randn(CHAINS, generator=generator, dtype=torch.float64)).float().to(device)
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
    two_steps = noises[0] * noises[1]
    return harness.all_of(
        [
            *_standard_normal(x.double().cpu() / variance.sqrt(), "x", false_alarm),
            *_standard_normal(noises[-1], "noise", false_alarm),
            harness.within(
                float(two_steps.mean()), 0.0, CHAINS**-0.5, what="covariance of the noise of two steps",
                false_alarm=false_alarm,
            ),
        ]
    )  # fmt: skip


def quadratic_well(advance: Advance, device: torch.device, seed: int) -> Agreement:
    """U = k x^2 / 2: position and momentum keep their exact joint law, see `linear_variance`.

    ``Cov(x, p) = Var(p) / 2``. Each element is a chain that starts as an exact draw of (x, p) and takes four steps.
    """
    stiffness, step_size, temperature, friction, steps = 2.0, 0.3, 0.7, 0.3, 4
    dynamics = Dynamics("sghmc", {"step_size": step_size, "friction": friction})
    variance = linear_variance(stiffness, temperature, dynamics)
    assert variance is not None
    slope, spread = step_size * stiffness / (2 - friction), 2 * step_size * temperature / (2 - friction)
    momentum_variance, covariance = slope**2 * variance + spread, slope * variance
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, CHAINS, generator=generator, dtype=torch.float64)
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
    false_alarm, two_steps = 1e-6 / 5, noises[0] * noises[1]
    error = math.sqrt((variance * momentum_variance + covariance**2) / CHAINS)
    return harness.all_of(
        [
            *_standard_normal(position / math.sqrt(variance), "x", false_alarm),
            *_standard_normal(momentum / math.sqrt(momentum_variance), "p", false_alarm),
            *_standard_normal(noises[-1], "noise", false_alarm),
            harness.within(
                float((position * momentum).mean()), covariance, error, what="covariance of x and p",
                false_alarm=false_alarm,
            ),
            harness.within(
                float(two_steps.mean()), 0.0, CHAINS**-0.5, what="covariance of the noise of two steps",
                false_alarm=false_alarm,
            ),
        ]
    )  # fmt: skip


def _operation(scheme: Scheme, summary: str, formula: str, source: str, law: Law) -> Operation:
    return Operation(
        name=scheme.operation,
        summary=summary,
        formula=formula,
        source=source,
        kind="sampler",
        cases=_cases(scheme.operation),
        make_inputs=partial(langevin.make_inputs, scheme),
        make_outputs=partial(langevin.make_outputs, scheme),
        reference=partial(langevin.expected, scheme),
        cost=partial(langevin.cost, scheme),
        laws=(law,),
    )


PSGLD = _operation(
    PRECONDITIONED,
    "The Langevin update preconditioned by a running mean of squared gradients, in place, for a list of tensors.",
    "V <- d V + (1 - d) g^2, G = 1 / (c + sqrt(V)), x <- x - (eps / 2) G g + sqrt(eps T G) xi",
    "Li, Chen, Carlson and Carin, AAAI 2016, without the correction term",
    Law("constant preconditioner", "with V kept, the exact law of the discretised chain", constant_preconditioner),
)
SGHMC = _operation(
    HAMILTONIAN,
    "The update of Hamiltonian dynamics with friction and noise, in place, for a list of tensors.",
    "p <- (1 - a) p - eta g + sqrt(2 a eta T) xi, x <- x + p",
    "Chen, Fox and Guestrin, ICML 2014, equation 15, with temperature",
    Law("quadratic well", "the exact joint law of position and momentum of the discretised chain", quadratic_well),
)
