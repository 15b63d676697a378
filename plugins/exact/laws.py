"""Exact laws of targets: by enumeration, in closed form, and on a line by quadrature or a transfer operator.

All in float64. Projections receive positions in the target's dtype, on the device of the chains.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial

import numpy as np
import torch
from boltzbench.harness import Dynamics, ExactLaw, Projection
from numpy.typing import NDArray
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Law = Callable[[float, Dynamics], ExactLaw | None]
Array = NDArray[np.float64]


def cached(law: Law) -> Law:
    """``law``, computed once for each temperature and dynamics."""

    @cache
    def computed(temperature: float, name: str, numbers: tuple[tuple[str, float], ...]) -> ExactLaw | None:
        return law(temperature, Dynamics(name, dict(numbers)))

    def known(temperature: float, dynamics: Dynamics) -> ExactLaw | None:
        numbers = {} if dynamics.name == "exact" else dynamics.numbers  # an exact law does not depend on them
        return computed(temperature, dynamics.name, tuple(sorted(numbers.items())))

    return known


def enumerated(
    states: Tensor, energies: Tensor, temperature: float, cells: Mapping[str, Function], means: Mapping[str, Function]
) -> ExactLaw:
    """The Boltzmann law over ``states`` (count, *shape) with ``energies``, float64 (count,).

    ``cells`` are observables with values 0, 1, ..., with their probabilities; ``means`` are observables with their
    expectation alone.
    """
    log_weights = -energies / temperature
    law = torch.softmax(log_weights, 0)
    upto = law.cumsum(0)

    def draw(chains: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(chains, generator=generator, dtype=torch.float64)
        return states[torch.searchsorted(upto, uniform, right=True).clamp(max=len(states) - 1)]

    projections = [Projection(name, of, probabilities=torch.bincount(of(states), law)) for name, of in cells.items()]
    projections += [Projection(name, of, mean=float(law @ of(states).double())) for name, of in means.items()]
    return ExactLaw(draw, tuple(projections), float(torch.logsumexp(log_weights, 0)))


def _coordinate(x: Tensor, index: int = 0) -> Tensor:
    return x[:, index]


def _square(x: Tensor, index: int = 0) -> Tensor:
    return x[:, index].square()


def _normal_cdf(scale: float, values: Array) -> Array:
    cdf: Array = torch.special.ndtr(torch.from_numpy(np.asarray(values, np.float64)) / scale).numpy()
    return cdf


def _chi_square_cdf(freedom: int, values: Array) -> Array:
    half = torch.from_numpy(np.asarray(values, np.float64)).clamp(min=0) / 2
    cdf: Array = torch.special.gammainc(torch.full_like(half, freedom / 2), half).numpy()
    return cdf


def normal(variances: Sequence[float], energy: tuple[Function, float], log_z: float | None, dtype: str) -> ExactLaw:
    """Independent normal coordinates of mean 0: float positions (chains, len(variances)).

    ``energy`` is the function and its expectation. The projections are each coordinate and its square, the sum of
    scores, which detects noise that coordinates share, and ``sum x_i^2 / V_i``, which is chi-square if coordinates are
    independent.
    """
    scales = torch.tensor(variances, dtype=torch.float64).sqrt()
    count = len(variances)

    def draw(chains: int, generator: torch.Generator) -> Tensor:
        normals = torch.randn(chains, count, generator=generator, dtype=torch.float64)
        return (scales * normals).to(getattr(torch, dtype))

    def standardised(x: Tensor) -> Tensor:
        return x.double() / scales.to(x.device)

    projections = []
    for index, variance in enumerate(variances):
        of = partial(_coordinate, index=index)
        projections.append(Projection(f"x_{index}", of, cdf=partial(_normal_cdf, math.sqrt(variance)), mean=0.0))
        projections.append(Projection(f"x_{index} squared", partial(_square, index=index), mean=variance))
    projections += [
        Projection("sum of scores", lambda x: standardised(x).sum(1), cdf=partial(_normal_cdf, math.sqrt(count))),
        Projection("squared radius", lambda x: standardised(x).square().sum(1), cdf=partial(_chi_square_cdf, count)),
        Projection("energy", energy[0], mean=energy[1]),
    ]
    return ExactLaw(draw, tuple(projections), log_z)


def linear_variance(stiffness: float, temperature: float, dynamics: Dynamics) -> float | None:
    """Stationary variance of a position in the well ``k x^2 / 2``; None if it is unknown or does not exist.

    - ``exact``: T / k.
    - ``langevin``, ``x' = x - (eps / 2) k x + sqrt(eps T) xi``: T / (k (1 - eps k / 4)).
    - ``sghmc`` (Chen, Fox and Guestrin, ICML 2014, eq. 15, with temperature; eta is ``step_size``, a ``friction``),
      ``p' = (1 - a) p - eta k x + sqrt(2 a eta T) xi, x' = x + p'``: stationarity of Var(x), Cov(x, p) and Var(p)
      gives T (1 - a/2) / (k (1 - a/2 - eta k / 4)).

    For ``sghmc``, Cov(x, p) = Var(p) / 2. Chains that start at exact positions stay stationary if the first momentum
    is ``eta / (2 - a) grad E(x) + sqrt(2 eta T / (2 - a)) xi``, the exact conditional law for every k; with an
    independent momentum they do not.
    """
    k, numbers = stiffness, dynamics.numbers
    if dynamics.name == "exact":
        return temperature / k
    if dynamics.name == "langevin":
        shrunk = 1 - numbers["step_size"] * k / 4
        return temperature / (k * shrunk) if shrunk > 0 else None
    if dynamics.name == "sghmc":
        damped = 1 - numbers["friction"] / 2
        shrunk = damped - numbers["step_size"] * k / 4
        return temperature * damped / (k * shrunk) if shrunk > 0 else None
    return None


FINE = 8193
"""Points of a tabulated density: interpolation between them errs by at most 1e-6 in the distribution function."""
MOST_POINTS = 3000
"""Largest grid of a transfer operator; it takes a second and 72 MB to solve."""
LEAK = 1e-9
"""Largest probability per step that the chain leaves its grid; above it no stationary law is claimed."""


def _support(energy: Function, temperature: float) -> tuple[float, float]:
    """The interval outside of which the density is below exp(-50) of its maximum, widened by an eighth on each side."""
    x = torch.linspace(-64, 64, 1 << 15, dtype=torch.float64)
    values = energy(x[:, None])
    inside = x[values - values.min() < 50 * temperature]
    low, high = float(inside[0]), float(inside[-1])
    margin = (high - low) / 8
    return low - margin, high + margin


def on_a_line(energy: Function, temperature: float, dynamics: Dynamics, edges: Sequence[float]) -> ExactLaw | None:
    """The law of float32 positions (chains, 1), of the energy itself or of the ``langevin`` chain; None for others.

    ``edges`` divide the line into cells, such as wells.
    """
    low, high = _support(energy, temperature)
    x = np.linspace(low, high, FINE)
    energies = energy(torch.from_numpy(x)[:, None]).numpy()
    log_z = None
    if dynamics.name == "exact":
        lowest = energies.min()
        density = np.exp(-(energies - lowest) / temperature)
        # With both ends at 0 the trapezium rule converges faster than any power of the spacing.
        log_z = float(np.log(density.sum() * (x[1] - x[0])) - lowest / temperature)
    elif dynamics.name == "langevin":
        stationary = langevin_density(energy, temperature, dynamics.numbers["step_size"], low, high)
        if stationary is None:
            return None
        density = stationary(x)
    else:
        return None
    return _tabulated(x, density / (density.sum() * (x[1] - x[0])), energy, energies, log_z, edges)


def _tabulated(
    x: Array, density: Array, energy: Function, energies: Array, log_z: float | None, edges: Sequence[float]
) -> ExactLaw:
    """A law from its density at evenly spaced points; draws invert its distribution function."""
    spacing = x[1] - x[0]
    upto = np.concatenate(([0.0], np.cumsum((density[1:] + density[:-1]) * spacing / 2)))
    upto /= upto[-1]

    def cdf(values: Array) -> Array:
        return np.interp(values, x, upto)

    def draw(chains: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(chains, generator=generator, dtype=torch.float64).numpy()
        return torch.from_numpy(np.interp(uniform, upto, x)).float()[:, None]

    def well(position: Tensor) -> Tensor:
        return torch.bucketize(position[:, 0].contiguous(), torch.tensor(edges, device=position.device))

    def mean(values: Array) -> float:
        return float((density * values).sum() * spacing)

    chances = np.diff(np.concatenate(([0.0], cdf(np.asarray(edges)), [1.0])))
    projections = (
        Projection("x", _coordinate, cdf=cdf, mean=mean(x)),
        Projection("well", well, probabilities=torch.from_numpy(chances)),
        Projection("x squared", _square, mean=mean(x**2)),
        Projection("energy", energy, mean=mean(energies)),
    )
    return ExactLaw(draw, projections, log_z)


def langevin_density(
    energy: Function, temperature: float, step_size: float, low: float, high: float, points_per_deviation: float = 3.0
) -> Callable[[Array], Array] | None:
    """The stationary density of ``x' = x - (eps / 2) E'(x) + sqrt(eps T) xi``, from its transfer operator.

    Given x, x' is normal with deviation ``s = sqrt(eps T)``. As a function of x this density is narrower where the
    drifted position has a slope above 1. With a grid spacing of a third of that width, the sum over x equals the
    integral to 1e-10, and the stationary weights solve a linear system. Between grid points the density is that of one
    step from the grid (Nyström). Returns None if the chain has no stationary law on [low, high], or if the grid would
    exceed `MOST_POINTS`.
    """
    deviation = math.sqrt(step_size * temperature)

    def drifted(start: Tensor) -> Tensor:
        x = start[:, None].requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x).sum(), x)
        return start - step_size / 2 * gradient[:, 0]

    steepest = float(drifted(torch.linspace(low, high, FINE, dtype=torch.float64)).diff().abs().max())
    steepest *= (FINE - 1) / (high - low)
    count = max(400, math.ceil((high - low) / deviation * max(1.0, steepest) * points_per_deviation))
    if count > MOST_POINTS:
        return None
    points = torch.linspace(low, high, count, dtype=torch.float64)
    moved, spacing = drifted(points), (high - low) / (count - 1)

    def step_to(targets: Tensor) -> Tensor:
        """The density at each target (columns) after one step from each point (rows)."""
        scores = (targets - moved[:, None]) / deviation
        return torch.exp(-scores.square() / 2) / (deviation * math.sqrt(2 * math.pi))

    transfer = step_to(points) * spacing
    lost = 1 - transfer.sum(1)
    transfer[:, count // 2] += lost  # mass that leaves the grid returns in its middle; LEAK bounds the effect
    system = transfer.t() - torch.eye(count, dtype=torch.float64)
    system[-1] = 1.0  # one equation is redundant; the normalization replaces it
    weights = torch.linalg.solve(system, torch.eye(count, dtype=torch.float64)[-1])
    if not bool(((weights * lost).abs().sum() < LEAK) & (weights > -LEAK).all()):
        return None

    def density(values: Array) -> Array:
        parts = [weights @ step_to(part) for part in torch.from_numpy(values).tensor_split(len(values) // 512 + 1)]
        result: Array = torch.cat(parts).clamp(min=0).numpy()
        return result

    return density
