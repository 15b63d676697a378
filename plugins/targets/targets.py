"""Eight targets for samplers: laws small enough to be known exactly, and one that is not.

An RBM, free and with units clamped, the Ising model, quadratic wells, a double well, a Gaussian mixture, a flat beside
a sharp minimum, and Bayesian logistic regression.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from boltzbench.harness import Dynamics, ExactLaw, Target, hookimpl
from boltzbench.plugins.exact.laws import enumerated, linear_variance, normal, on_a_line
from boltzbench.plugins.support import digits
from torch import Tensor
from torch.nn.functional import one_hot

BOLTZBENCH_API = 1

Function = Callable[[Tensor], Tensor]
Law = Callable[[float, Dynamics], ExactLaw | None]


def _known(law: Law) -> Law:
    """The same law, computed once for each temperature and dynamics."""

    @cache
    def computed(temperature: float, name: str, numbers: tuple[tuple[str, float], ...]) -> ExactLaw | None:
        return law(temperature, Dynamics(name, dict(numbers)))

    def known(temperature: float, dynamics: Dynamics) -> ExactLaw | None:
        numbers = {} if dynamics.name == "exact" else dynamics.numbers  # no number changes an exact law
        return computed(temperature, dynamics.name, tuple(sorted(numbers.items())))

    return known


def _number(units: Tensor) -> Tensor:
    """The state of a few units (chains, units), 0 or 1, as a number: unit i is bit i."""
    return (units.long() << torch.arange(units.shape[1], device=units.device)).sum(1)


def _bits(units: int) -> Tensor:
    """All states of so many units: uint8 (2**units, units)."""
    return (torch.arange(1 << units)[:, None] >> torch.arange(units) & 1).to(torch.uint8)


VISIBLE, HIDDEN = 10, 8


def machine(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The parameters of the RBM: weights (10, 8), visible_bias (10,), hidden_bias (8,)."""
    i, j = torch.arange(VISIBLE, dtype=torch.float64), torch.arange(HIDDEN, dtype=torch.float64)
    return {
        "weights": torch.sin(1.7 * i[:, None] + 0.9 * j + 0.3).to(dtype),
        "visible_bias": (0.3 * torch.cos(i)).to(dtype),
        "hidden_bias": (-0.2 * torch.sin(j + 1)).to(dtype),
    }


def rbm_energy(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """``E(v, h) = -b.v - c.h - v.W.h`` of units (chains, visible + hidden), in the parameters' dtype."""
    weights, b, c = (parameters[name].to(x.device) for name in ("weights", "visible_bias", "hidden_bias"))
    units = x.to(weights.dtype)
    v, h = units[:, : len(b)], units[:, len(b) :]
    energy: Tensor = -v @ b - h @ c - (v @ weights * h).sum(1)
    return energy


def rbm_law(
    parameters: dict[str, Tensor], held: Sequence[int], temperature: float, dynamics: Dynamics
) -> ExactLaw | None:
    """All 2**18 states, or those whose first units are as ``held``.

    Cells: some visible units, the hidden ones, and four of each together.
    """
    if dynamics.name != "exact":
        return None
    states = _bits(VISIBLE + HIDDEN)
    states = states[(states[:, : len(held)] == torch.tensor(held, dtype=torch.uint8)).all(1)]
    wide = {name: value.double() for name, value in parameters.items()}
    cells: dict[str, Function] = {
        "v_0..v_7": lambda x: _number(x[:, :8]),
        "hidden": lambda x: _number(x[:, VISIBLE:]),
        "v_6..v_9, h_0..h_3": lambda x: _number(x[:, VISIBLE - 4 : VISIBLE + 4]),
    }
    means: dict[str, Function] = {
        "v_9": lambda x: x[:, VISIBLE - 1].float(),
        "energy": partial(rbm_energy, parameters),
    }
    return enumerated(states, rbm_energy(wide, states), temperature, cells, means)


def rbm() -> Target:
    parameters = machine()
    return Target(
        name="rbm",
        summary="A restricted Boltzmann machine of 10 visible and 8 hidden units, enumerated.",
        formula="E(v, h) = -b.v - c.h - v.W.h, W_ij = sin(1.7 i + 0.9 j + 0.3), b_i = 0.3 cos i, c_j = -0.2 sin(j + 1)",
        source="Smolensky 1986; enumeration",
        kind="rbm",
        shape=(VISIBLE + HIDDEN,),
        dtype="uint8",
        parameters=parameters,
        energy=partial(rbm_energy, parameters),
        law=_known(partial(rbm_law, parameters, ())),
        temperatures=(1.0, 0.5, 2.0),
    )


HELD = (1, 0, 1)
"""The states at which `rbm_clamped` holds its first visible units."""


def rbm_clamped() -> Target:
    parameters = machine()
    return Target(
        name="rbm_clamped",
        summary="The same machine with its first three visible units held at 1, 0, 1: what it makes of evidence.",
        formula="E(v, h) as of rbm, given v_0 = 1, v_1 = 0, v_2 = 1",
        source="Smolensky 1986; enumeration",
        kind="rbm",
        shape=(VISIBLE + HIDDEN,),
        dtype="uint8",
        parameters=parameters,
        energy=partial(rbm_energy, parameters),
        law=_known(partial(rbm_law, parameters, HELD)),
        temperatures=(1.0, 2.0),
        clamped=torch.arange(VISIBLE + HIDDEN) < len(HELD),
    )


LENGTH, COUPLING = 4, 1.0
CRITICAL = 2 / math.log(1 + math.sqrt(2))


def ising_energy(x: Tensor) -> Tensor:
    """``-J sum s_i s_j`` over the bonds to the right and downwards, periodic; x (chains, L, L), float32 (chains,)."""
    s = x.float()
    return -COUPLING * (s * (s.roll(1, 1) + s.roll(1, 2))).sum((1, 2))


def ising_law(temperature: float, dynamics: Dynamics) -> ExactLaw | None:
    """All 65,536 states. Cells: levels of the energy, the magnetisation, the first row, and the first column."""
    if dynamics.name != "exact":
        return None
    sites = LENGTH * LENGTH
    states = (2 * _bits(sites).to(torch.int8) - 1).view(-1, LENGTH, LENGTH)
    cells: dict[str, Function] = {
        "energy level": lambda x: ((ising_energy(x) / COUPLING).long() + 2 * sites) // 4,
        "magnetisation": lambda x: (x.long().sum((1, 2)) + sites) // 2,
        "first row": lambda x: _number(x[:, 0] > 0),
        "first column": lambda x: _number(x[:, :, 0] > 0),
    }
    means = {"energy": ising_energy, "absolute magnetisation": lambda x: x.float().sum((1, 2)).abs()}
    return enumerated(states, ising_energy(states).double(), temperature, cells, means)


def ising() -> Target:
    return Target(
        name="ising",
        summary="The Ising model on a periodic square of 4 x 4 spins, enumerated.",
        formula="E = -J sum over bonds s_i s_j, J = 1",
        source="Onsager, Phys. Rev. 65 (1944); enumeration",
        kind="ising",
        shape=(LENGTH, LENGTH),
        dtype="int8",
        parameters={"length": LENGTH, "coupling": COUPLING},
        energy=ising_energy,
        law=_known(ising_law),
        temperatures=(CRITICAL, 1.5, 4.0),
    )


STIFFNESSES = (0.25, 1.0, 4.0, 16.0)


def wells_energy(x: Tensor) -> Tensor:
    """``sum k_i x_i^2 / 2`` of x (chains, 4)."""
    return (x.square() * torch.tensor(STIFFNESSES, device=x.device, dtype=x.dtype)).sum(1) / 2


def wells_law(temperature: float, dynamics: Dynamics) -> ExactLaw | None:
    """Normal, also for the linear chains of `linear_variance`."""
    variances = [linear_variance(k, temperature, dynamics) for k in STIFFNESSES]
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(variances):
        return None
    log_z = sum(0.5 * math.log(2 * math.pi * temperature / k) for k in STIFFNESSES)
    mean_energy = sum(k * variance / 2 for k, variance in zip(STIFFNESSES, known, strict=True))
    return normal(known, (wells_energy, mean_energy), log_z if dynamics.name == "exact" else None, "float32")


def _continuous(name: str, energy: Function, law: Law, **more: Any) -> Target:
    shape = more.pop("shape", (1,))
    return Target(
        name=name, kind="continuous", shape=shape, dtype="float32", energy=energy, law=_known(law),
        **{"parameters": {}, **more},
    )  # fmt: skip


def quadratic_wells() -> Target:
    return _continuous(
        "quadratic_wells", wells_energy, wells_law, shape=(len(STIFFNESSES),),
        summary="Four independent quadratic wells, of stiffness 1/4 to 16.",
        formula="E = sum k_i x_i^2 / 2",
        source="Uhlenbeck and Ornstein, Phys. Rev. 36 (1930); the discretised chains are linear",
        parameters={"stiffnesses": STIFFNESSES}, temperatures=(1.0, 0.25),
    )  # fmt: skip


def double_well_energy(x: Tensor) -> Tensor:
    """``(x^2 - 1)^2`` of x (chains, 1)."""
    return (x[:, 0].square() - 1).square()


def _line_law(energy: Function, edges: tuple[float, ...], temperature: float, dynamics: Dynamics) -> ExactLaw | None:
    return on_a_line(energy, temperature, dynamics, edges)


def double_well() -> Target:
    return _continuous(
        "double_well", double_well_energy, partial(_line_law, double_well_energy, (-1.0, 0.0, 1.0)),
        summary="Two minima at -1 and 1 with a barrier of height 1 between them.",
        formula="E = (x^2 - 1)^2",
        source="Kramers, Physica 7 (1940); quadrature, and the transfer operator of the discretised chain",
        temperatures=(0.25, 1.0),
    )  # fmt: skip


WEIGHTS, CENTRES, DEVIATIONS = (0.5, 0.2, 0.3), (-2.5, 0.0, 2.0), (0.6, 0.4, 0.8)


def mixture_energy(x: Tensor) -> Tensor:
    """``-log sum_c w_c N(x; m_c, s_c^2)`` of x (chains, 1)."""
    weights, centres, deviations = (
        torch.tensor(values, device=x.device, dtype=x.dtype) for values in (WEIGHTS, CENTRES, DEVIATIONS)
    )
    scores = (x - centres) / deviations
    log_densities = -scores.square() / 2 - torch.log(deviations) - math.log(2 * math.pi) / 2
    return -torch.logsumexp(torch.log(weights) + log_densities, 1)


def gaussian_mixture() -> Target:
    return _continuous(
        "gaussian_mixture", mixture_energy, partial(_line_law, mixture_energy, (-1.1, 0.7)),
        summary="Three normal laws of unequal weight and width on a line; at temperature 1 its log Z is 0.",
        formula="E = -log sum_c w_c N(x; m_c, s_c^2)",
        source="closed form at temperature 1; quadrature; transfer operator",
        parameters={"weights": WEIGHTS, "centres": CENTRES, "deviations": DEVIATIONS}, temperatures=(1.0, 2.0),
    )  # fmt: skip


FLAT, SHARP = (-1.5, 1.0), (1.5, 16.0)
"""Where the two minima lie, and how stiff they are."""
SOFTNESS = 0.25
SADDLE = 0.9
"""Where both parabolas are equally high."""


def flat_and_sharp_energy(x: Tensor) -> Tensor:
    """``-t log(exp(-k_f (x - m_f)^2 / 2t) + exp(-k_s (x - m_s)^2 / 2t))`` with t = 1/4, of x (chains, 1).

    The smooth minimum of two parabolas that touch 0: depths are equal to 1e-8.
    """
    centres, stiffnesses = torch.tensor([FLAT, SHARP], device=x.device, dtype=x.dtype).t()
    return -SOFTNESS * torch.logsumexp(-stiffnesses * (x - centres).square() / (2 * SOFTNESS), 1)


def flat_and_sharp() -> Target:
    return _continuous(
        "flat_and_sharp", flat_and_sharp_energy, partial(_line_law, flat_and_sharp_energy, (SADDLE,)),
        summary="A flat and a sharp minimum of equal depth: the flat one holds sqrt(k_sharp / k_flat) = 4 times more.",
        formula="E = -t log(exp(-k_f (x - m_f)^2 / 2t) + exp(-k_s (x - m_s)^2 / 2t))",
        source="Hochreiter and Schmidhuber, Neural Computation 9 (1997); quadrature; transfer operator",
        parameters={"flat": FLAT, "sharp": SHARP, "softness": SOFTNESS}, temperatures=(0.5, 1.0),
    )  # fmt: skip


@cache
def _training(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Pixels with a last column of ones, (1437, 65), and their sums over the images of each class, (65, 10)."""
    pixels, labels = (part[: digits.TRAINING_IMAGES] for part in digits.images())
    pixels = torch.cat((pixels, torch.ones(len(pixels), 1)), 1).to(device, dtype)
    return pixels, pixels.t() @ one_hot(labels.to(device), digits.CLASSES).to(dtype)


def logistic_energy(x: Tensor) -> Tensor:
    """Negative log likelihood of the training images plus ``|x|^2 / 2``; x (chains, 65, 10), the last row the bias."""
    pixels, sums = _training(x.device, x.dtype)
    chains, weights, classes = x.shape
    logits = (x.permute(2, 0, 1).reshape(-1, weights) @ pixels.t()).view(classes, chains, -1)
    return torch.logsumexp(logits, 0).sum(1) - (sums * x).sum((1, 2)) + x.square().sum((1, 2)) / 2


def logistic_digits() -> Target:
    return _continuous(
        "logistic_digits", logistic_energy, lambda temperature, dynamics: None,
        shape=(digits.PIXELS + 1, digits.CLASSES),
        summary="The posterior of logistic regression on 1,437 images of digits; its law is not known.",
        formula="E = -sum log softmax(W.x + b)_y + |W|^2 / 2 + |b|^2 / 2",
        source="Alpaydin and Kaynak, UCI 1998, as bundled with scikit-learn",
    )  # fmt: skip


@hookimpl
def register_targets(register: Callable[[Target], None]) -> None:
    builders = (
        rbm,
        rbm_clamped,
        ising,
        quadratic_wells,
        double_well,
        gaussian_mixture,
        flat_and_sharp,
        logistic_digits,
    )
    for build in builders:
        register(build())
