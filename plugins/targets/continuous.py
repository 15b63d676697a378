"""Targets of continuous positions: quadratic wells, energies on a line, and Bayesian logistic regression.

The laws of the wells and of energies on a line are known exactly; that of the regression is not.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from boltzbench.harness import Dynamics, ExactLaw, Target, hookimpl
from boltzbench.kernels.logsumexp import logsumexp
from boltzbench.plugins.exact import double_well as exact_double_well
from boltzbench.plugins.exact import flat_and_sharp as exact_flat_and_sharp
from boltzbench.plugins.exact.laws import Function, Law, cached, linear_variance, normal, on_a_line
from boltzbench.plugins.support import digits
from torch import Tensor
from torch.nn.functional import one_hot

BOLTZBENCH_API = 1


def _continuous(name: str, energy: Function, law: Law, **more: Any) -> Target:
    shape = more.pop("shape", (1,))
    return Target(
        name=name, kind="continuous", shape=shape, dtype="float32", energy=energy, law=cached(law),
        **{"parameters": {}, **more},
    )  # fmt: skip


STIFFNESSES = (0.25, 1.0, 4.0, 16.0)


def wells_energy(x: Tensor) -> Tensor:
    """``sum k_i x_i^2 / 2`` of x (chains, 4)."""
    return (x.square() * torch.tensor(STIFFNESSES, device=x.device, dtype=x.dtype)).sum(1) / 2


def wells_law(temperature: float, dynamics: Dynamics) -> ExactLaw | None:
    """Normal, for the energy itself and for the linear chains of `linear_variance`."""
    variances = [linear_variance(k, temperature, dynamics) for k in STIFFNESSES]
    known = [variance for variance in variances if variance is not None]
    if len(known) < len(variances):
        return None
    log_z = sum(0.5 * math.log(2 * math.pi * temperature / k) for k in STIFFNESSES)
    mean_energy = sum(k * variance / 2 for k, variance in zip(STIFFNESSES, known, strict=True))
    return normal(known, (wells_energy, mean_energy), log_z if dynamics.name == "exact" else None, "float32")


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
    return exact_double_well.energy(x[:, 0])


def double_well() -> Target:
    return _continuous(
        "double_well", double_well_energy, partial(on_a_line, double_well_energy, edges=(-1.0, 0.0, 1.0)),
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
        "gaussian_mixture", mixture_energy, partial(on_a_line, mixture_energy, edges=(-1.1, 0.7)),
        summary="Three normal laws of unequal weight and width on a line; log Z is 0 at temperature 1.",
        formula="E = -log sum_c w_c N(x; m_c, s_c^2)",
        source="closed form at temperature 1; quadrature; transfer operator",
        parameters={"weights": WEIGHTS, "centres": CENTRES, "deviations": DEVIATIONS}, temperatures=(1.0, 2.0),
    )  # fmt: skip


def flat_and_sharp() -> Target:
    return _continuous(
        "flat_and_sharp", exact_flat_and_sharp.energy,
        partial(on_a_line, exact_flat_and_sharp.energy, edges=(exact_flat_and_sharp.SADDLE,)),
        summary="A flat and a sharp minimum of equal depth: the flat one is sqrt(k_s / k_f) = 4 times as likely.",
        formula="E = -t log(exp(-k_f (x - m_f)^2 / 2t) + exp(-k_s (x - m_s)^2 / 2t))",
        source="Hochreiter and Schmidhuber, Neural Computation 9 (1997); quadrature; transfer operator",
        parameters={
            "flat": exact_flat_and_sharp.FLAT, "sharp": exact_flat_and_sharp.SHARP,
            "softness": exact_flat_and_sharp.SOFTNESS,
        },
        temperatures=(0.5, 1.0),
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
    return logsumexp(logits, dim=0).sum(1) - (sums * x).sum((1, 2)) + x.square().sum((1, 2)) / 2


def logistic_digits() -> Target:
    return _continuous(
        "logistic_digits", logistic_energy, lambda temperature, dynamics: None,
        shape=(digits.PIXELS + 1, digits.CLASSES),
        summary="The posterior of logistic regression on 1,437 images of digits; no exact law is known.",
        formula="E = -sum log softmax(W.x + b)_y + |W|^2 / 2 + |b|^2 / 2",
        source="Alpaydin and Kaynak, UCI 1998, as bundled with scikit-learn",
    )  # fmt: skip


@hookimpl
def register_targets(register: Callable[[Target], None]) -> None:
    for build in (quadratic_wells, double_well, gaussian_mixture, flat_and_sharp, logistic_digits):
        register(build())
