"""The exact laws of targets: by enumeration, in closed form, and on a line by quadrature or a transfer operator.

All in float64. A projection sees a position in the target's own dtype and on its own device.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from boltzbench.harness import Dynamics, ExactLaw, Projection
from numpy.typing import NDArray
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Array = NDArray[np.float64]


def enumerated(
    states: Tensor, energies: Tensor, temperature: float, cells: Mapping[str, Function], means: Mapping[str, Function]
) -> ExactLaw:
    """The law of a target that has few enough states, (count, *shape), of given energies, float64 (count,).

    ``cells`` are functions with values 0, 1, ...; ``means`` are those of which the expectation alone is told.
    """
    log_weights = -energies / temperature
    law = torch.softmax(log_weights, 0)
    upto = law.cumsum(0)

    def draw(chains: int, generator: torch.Generator) -> Tensor:
        uniform = torch.rand(chains, generator=generator, dtype=torch.float64)
        return states[torch.searchsorted(upto, uniform, right=True).clamp(max=len(states) - 1)]

    seen = [Projection(name, of, probabilities=torch.bincount(of(states), law)) for name, of in cells.items()]
    seen += [Projection(name, of, mean=float(law @ of(states).double())) for name, of in means.items()]
    return ExactLaw(draw, tuple(seen), float(torch.logsumexp(log_weights, 0)))


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

    ``energy`` is the function and its expectation. Seen are each coordinate and its square; the sum of all, which
    betrays noise shared by coordinates; and ``sum x_i^2 / V_i``, which is chi-square if all are independent.
    """
    scales = torch.tensor(variances, dtype=torch.float64).sqrt()
    count = len(variances)

    def draw(chains: int, generator: torch.Generator) -> Tensor:
        normals = torch.randn(chains, count, generator=generator, dtype=torch.float64)
        return (scales * normals).to(getattr(torch, dtype))

    def standardised(x: Tensor) -> Tensor:
        return x.double() / scales.to(x.device)

    seen = []
    for index, variance in enumerate(variances):
        of = partial(_coordinate, index=index)
        seen.append(Projection(f"x_{index}", of, cdf=partial(_normal_cdf, math.sqrt(variance)), mean=0.0))
        seen.append(Projection(f"x_{index} squared", partial(_square, index=index), mean=variance))
    seen += [
        Projection("sum of scores", lambda x: standardised(x).sum(1), cdf=partial(_normal_cdf, math.sqrt(count))),
        Projection("squared radius", lambda x: standardised(x).square().sum(1), cdf=partial(_chi_square_cdf, count)),
        Projection("energy", energy[0], mean=energy[1]),
    ]
    return ExactLaw(draw, tuple(seen), log_z)


def linear_variance(stiffness: float, temperature: float, dynamics: Dynamics) -> float | None:
    """Stationary variance of a position in the well ``k x^2 / 2``; None where unknown, or where there is none.

    - ``exact``: T / k.
    - ``langevin``, ``x' = x - (eps / 2) k x + sqrt(eps T) xi``: T / (k (1 - eps k / 4)).
    - ``sghmc`` (Chen, Fox and Guestrin, ICML 2014, eq. 15, with temperature; eta is ``step_size``, a ``friction``),
      ``p' = (1 - a) p - eta k x + sqrt(2 a eta T) xi, x' = x + p'``: stationarity of Var(x), Cov(x, p) and Var(p)
      gives T (1 - a/2) / (k (1 - a/2 - eta k / 4)).

    In the last one positions and momenta are correlated, Cov(x, p) = Var(p) / 2. Chains that start at exact positions
    keep their law if the first momentum is ``eta / (2 - a) grad E(x) + sqrt(2 eta T / (2 - a)) xi``, which is the
    exact conditional law for every k; an independent momentum does not keep it.
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
"""Points at which a density on a line is tabulated: between them its distribution function is off by 1e-6 or less."""
MOST_POINTS = 3000
"""A transfer operator with more of them is not solved: a second and 72 MB."""
LEAK = 1e-9
"""A discretised chain may leave its grid with this probability in a step; beyond it no stationary law is claimed."""


def _support(energy: Function, temperature: float) -> tuple[float, float]:
    """Where a density on a line lies: beyond, it is below exp(-50) of its largest value; and an eighth more."""
    x = torch.linspace(-64, 64, 1 << 15, dtype=torch.float64)
    values = energy(x[:, None])
    inside = x[values - values.min() < 50 * temperature]
    low, high = float(inside[0]), float(inside[-1])
    margin = (high - low) / 8
    return low - margin, high + margin


def on_a_line(energy: Function, temperature: float, dynamics: Dynamics, edges: Sequence[float]) -> ExactLaw | None:
    """The law of float32 positions (chains, 1) in an energy, exact or of the ``langevin`` chain; None for others.

    ``edges`` part the line into cells, such as wells.
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
    """A law from its density at evenly spaced points: drawn by the inverse of its distribution function."""
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
    seen = (
        Projection("x", _coordinate, cdf=cdf, mean=mean(x)),
        Projection("well", well, probabilities=torch.from_numpy(chances)),
        Projection("x squared", _square, mean=mean(x**2)),
        Projection("energy", energy, mean=mean(energies)),
    )
    return ExactLaw(draw, seen, log_z)


def langevin_density(
    energy: Function, temperature: float, step_size: float, low: float, high: float, points_per_deviation: float = 3.0
) -> Callable[[Array], Array] | None:
    """The stationary density of ``x' = x - (eps / 2) E'(x) + sqrt(eps T) xi``, from its transfer operator.

    The density of x' given x is normal, of deviation ``s = sqrt(eps T)``; as a function of x it is narrower by the
    slope of the drifted position where that is steeper than 1. On a grid of a third of this width the sum over x is
    the integral, but for 1e-10 or less, and the stationary weights solve a linear system. Between the points, the
    density is that of one step from the grid (Nyström). None where the chain has no stationary law on [low, high], or
    the grid would be too large.
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
        """Density at each target (columns) after a step from each point (rows)."""
        scores = (targets - moved[:, None]) / deviation
        return torch.exp(-scores.square() / 2) / (deviation * math.sqrt(2 * math.pi))

    transfer = step_to(points) * spacing
    lost = 1 - transfer.sum(1)
    transfer[:, count // 2] += lost  # what leaves the grid comes back in its middle: that must not matter
    system = transfer.t() - torch.eye(count, dtype=torch.float64)
    system[-1] = 1.0  # one equation follows from the others; in its place, the weights sum to 1
    weights = torch.linalg.solve(system, torch.eye(count, dtype=torch.float64)[-1])
    if not bool(((weights * lost).abs().sum() < LEAK) & (weights > -LEAK).all()):
        return None

    def density(values: Array) -> Array:
        parts = [weights @ step_to(part) for part in torch.from_numpy(values).tensor_split(len(values) // 512 + 1)]
        result: Array = torch.cat(parts).clamp(min=0).numpy()
        return result

    return density
