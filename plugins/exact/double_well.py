"""Exact answers for the Langevin chain in the double well ``E = (x^2 - 1)^2``, in float64.

The chain ``x' = x - (eps / 2) E'(x) + sqrt(eps T) xi`` has a transition density that is normal in x'. Integrals over x
use Gauss-Legendre points that lie closer than a quarter of the noise's deviation.
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from boltzbench.harness import Dynamics, ExactLaw
from boltzbench.plugins.exact import laws as exact_laws
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

WALL = 2.75
"""At temperatures up to 1, the Boltzmann law puts less than exp(-42) beyond it."""


def energy(x: Tensor) -> Tensor:
    """``(x^2 - 1)^2``."""
    return (x.square() - 1).square()


def drifted(x: Tensor, step_size: float) -> Tensor:
    """``x - (eps / 2) E'(x)``."""
    return x - 2 * step_size * x * (x.square() - 1)


@functools.cache
def _legendre(count: int) -> tuple[Array, Array]:
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights


def _points(low: float, high: float, deviation: float) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre points and weights on [low, high]."""
    count = math.ceil(6.5 * (high - low) / deviation)  # in the middle the spacing is pi / 2 times the mean
    points, weights = _legendre(count)
    middle, half = (high + low) / 2, (high - low) / 2
    return torch.from_numpy(middle + half * points), torch.from_numpy(half * weights)


def _density_of_a_step(start: Tensor, end: Tensor, temperature: float, step_size: float) -> Tensor:
    """The density at each end (columns) after one step from each start (rows)."""
    deviation = math.sqrt(step_size * temperature)
    scores = (end - drifted(start, step_size)[:, None]) / deviation
    return torch.exp(-scores.square() / 2) / (deviation * math.sqrt(2 * math.pi))


def boltzmann(temperature: float) -> Callable[[Tensor], Tensor]:
    """The density ``exp(-E / T) / Z`` of continuous time."""
    x = torch.linspace(-WALL, WALL, 1 << 13, dtype=torch.float64)
    z = torch.exp(-energy(x) / temperature).sum() * (x[1] - x[0])
    return lambda x: torch.exp(-energy(x) / temperature) / z


def law_after(
    density: Callable[[Tensor], Tensor], temperatures: Tensor, step_size: float
) -> Callable[[Tensor], Tensor]:
    """The distribution function of walkers that start from ``density``, after a step at each of the temperatures."""
    points, weights = _points(-WALL, WALL, math.sqrt(step_size * float(temperatures.min())))
    masses = weights * density(points)
    for temperature in temperatures[:-1].tolist():
        masses = weights * (masses @ _density_of_a_step(points, points, temperature, step_size))
    deviation = math.sqrt(step_size * float(temperatures[-1]))
    moved = drifted(points, step_size)

    def upto(x: Tensor) -> Tensor:
        result: Tensor = masses @ torch.special.ndtr((x - moved[:, None]) / deviation)
        return result

    return upto


@functools.cache
def stationary_means(temperature: float, step_size: float) -> dict[str, float]:
    """``<x^2>`` and ``<E>`` under the chain's stationary law."""
    law = exact_laws.langevin_density(lambda x: energy(x[:, 0]), temperature, step_size, -WALL, WALL)
    if law is None:
        raise ValueError(f"no stationary law is known at temperature {temperature} and step size {step_size}")
    x = torch.linspace(-WALL, WALL, exact_laws.FINE, dtype=torch.float64)
    density = torch.from_numpy(law(x.numpy()))
    density /= density.sum()
    return {"x squared": float(density @ x.square()), "energy": float(density @ energy(x))}


@functools.cache
def stationary_law(temperature: float, step_size: float) -> ExactLaw:
    """The chain's stationary law, with draws and projections of positions (walkers, 1)."""
    dynamics = Dynamics("langevin", {"step_size": step_size})
    law = exact_laws.on_a_line(lambda x: energy(x[:, 0]), temperature, dynamics, (-1.0, 0.0, 1.0))
    if law is None:
        raise ValueError(f"no stationary law is known at temperature {temperature} and step size {step_size}")
    return law


def _below(temperature: float, step_size: float, start: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Weighted transition densities within ``x < threshold``: from ``start`` to the points, and between the points."""
    points, weights = _points(-WALL, threshold, math.sqrt(step_size * temperature))
    first = weights * _density_of_a_step(torch.tensor([start]).double(), points, temperature, step_size)[0]
    return first, weights * _density_of_a_step(points, points, temperature, step_size)


@functools.cache
def passage_probabilities(
    steps: int, temperature: float, step_size: float, start: float = -1.0, threshold: float = 1.0
) -> Tensor:
    """Probabilities of a first passage after 1, 2, ..., ``steps`` steps, and of a later one: float64 (steps + 1,)."""
    masses, step = _below(temperature, step_size, start, threshold)
    survival = [1.0, float(masses.sum())]
    for _ in range(steps - 1):
        masses = masses @ step
        survival.append(float(masses.sum()))
    left = torch.tensor(survival, dtype=torch.float64)
    return torch.cat((-left.diff(), left[-1:]))


@functools.cache
def mean_passage(
    temperature: float, step_size: float, most: int, start: float = -1.0, threshold: float = 1.0
) -> tuple[float, float]:
    """The exact means of the first passage step t and of ``min(t, most)``.

    With Q the transition operator below the threshold, ``sum_(t < most) Q^t 1 = (1 - Q)^-1 (1 - Q^most 1)``.
    """
    masses, step = _below(temperature, step_size, start, threshold)
    one = torch.ones(len(step), dtype=torch.float64)
    mean = torch.linalg.solve(torch.eye(len(step), dtype=torch.float64) - step, one)
    late = torch.linalg.matrix_power(step, most - 1) @ mean
    return 1 + float(masses @ mean), 1 + float(masses @ (mean - late))


def continuum_passage(temperature: float) -> float:
    """``(1 / T) int_-1^1 e^(E / T) int_-inf^y e^(-E / T)``, the mean passage time from -1 to 1.

    In the time of ``dx = -E' dt + sqrt(2 T) dW``, of which a step of size eps takes ``eps / 2``.
    """
    x = torch.linspace(-WALL, 1, 1 << 14, dtype=torch.float64)
    inner = torch.cumulative_trapezoid(torch.exp(-energy(x) / temperature), x)
    upto = np.interp(np.linspace(-1, 1, 4001), x[1:].numpy(), inner.numpy())
    y = np.linspace(-1, 1, 4001)
    return float(np.trapezoid(np.exp((y**2 - 1) ** 2 / temperature) * upto, y) / temperature)


def kramers(temperature: float) -> float:
    """``2 pi / sqrt(E''(-1) |E''(0)|) exp(1 / T)``, the mean escape time from a well at small T."""
    return 2 * math.pi / math.sqrt(8 * 4) * math.exp(1 / temperature)
