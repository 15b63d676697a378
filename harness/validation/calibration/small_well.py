"""A quadratic well in two dimensions, and right samplers in it: Langevin dynamics, MALA and HMC."""

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.special import ndtr
from torch import Tensor

from ...api.samplers import Dynamics, ExactLaw, Projection, Sampler, Target
from .small_samplers import (
    Advance,
    Noise,
    State,
    Step,
    advance_by,
    as_normal,
    begin,
    chains_of,
    only,
    uniform_noise,
    uniforms,
)

EPS = 0.8


def gaussian() -> Target:
    stiffness = torch.tensor([1.0, 1.5])

    def law(temperature: float, dynamics: Dynamics) -> ExactLaw:
        variance = temperature / stiffness.double()
        if dynamics.name == "langevin":
            variance = variance / (1 - dynamics.numbers["step_size"] * stiffness.double() / 4)
        spread = variance.sqrt()

        def normal(name: str, of: Callable[[Tensor], Tensor], variance: Tensor) -> list[Projection]:
            deviation = float(variance) ** 0.5
            return [
                Projection(name, of, cdf=lambda x: ndtr(x / deviation), mean=0.0),
                Projection(f"{name}^2", lambda x: of(x).double() ** 2, mean=deviation**2),
            ]

        projections = [
            *normal("x_0", lambda x: x[:, 0], variance[0]),
            *normal("x_1", lambda x: x[:, 1], variance[1]),
            *normal("x_0 + x_1", lambda x: x.sum(1), variance.sum()),
        ]
        return ExactLaw(
            lambda chains, generator: spread * torch.randn(chains, 2, generator=generator, dtype=torch.float64),
            tuple(projections),
        )

    return Target(
        "gaussian", "A well.", "E = k_0 x_0^2/2 + k_1 x_1^2/2", "Gauss 1809", "gaussian", (2,), "float32",
        {"stiffness": stiffness}, lambda x: (x * x * stiffness.to(x)).sum(1) / 2, law, (0.5, 2.0),
    )  # fmt: skip


def langevin_step(
    noise: Noise = lambda state: as_normal(uniform_noise(state))[:, :2],
    heat: Callable[[Any], Any] = lambda t: t,
    drift: float = 0.5,
    eps: float = EPS,
) -> Step:
    def step(state: State, temperature: Any) -> Tensor:
        x = state["x"].double()
        gradient = state["target"].parameters["stiffness"].double() * x
        t = heat(temperature)
        diffusion = (eps * t).sqrt() if isinstance(t, torch.Tensor) else math.sqrt(eps * t)
        moved: Tensor = x - drift * eps * gradient + diffusion * noise(state)
        return moved.float()

    return step


def langevin(
    name: str = "langevin",
    init: Callable[[Target, Tensor, int, int], State] = begin,
    advance: Advance | None = None,
    eps: float = EPS,
    **pieces: Any,
) -> Sampler:
    return Sampler(
        name, "Langevin dynamics.", "Welling and Teh 2011", "torch", init,
        advance or advance_by(langevin_step(eps=eps, **pieces)),
        dynamics=lambda target: Dynamics("langevin", {"step_size": eps}), refuses=only("gaussian"),
    )  # fmt: skip


def noise_of(
    seed: Callable[[State], int] = lambda s: int(s["seed"]),
    chain: Callable[[State], int | Tensor] = chains_of,
    step: Callable[[State], int] = lambda s: int(s["step"]),
) -> Noise:
    """Normal noise of another stream."""
    return lambda state: as_normal(uniforms(seed(state), chain(state), step(state), 2)).expand(len(state["x"]), 2)


# Metropolis-adjusted samplers in the same well. Uniform number 2 of a step decides, the first two make the proposal.

Accept = Callable[[Tensor, Tensor], Tensor]
"""``accept(u, log_ratio) -> bool``, all (chains, 1)."""


def well_energy(stiffness: Tensor, x: Tensor) -> Tensor:
    return (stiffness * x * x).sum(1, keepdim=True) / 2


def _root(number: Any) -> Tensor:
    return torch.as_tensor(number, dtype=torch.float64).sqrt()


def _decide(state: State, x: Tensor, y: Tensor, log_ratio: Tensor, accept: Accept) -> Tensor:
    accepted = accept(uniform_noise(state)[:, 2:3], log_ratio)
    state["accepted"] = state.get("accepted", 0) + accepted.squeeze(1).double()
    return torch.where(accepted, y, x).float()


def _adjusted(name: str, step: Step, step_size: float, **more: Any) -> Sampler:
    return Sampler(
        name, "", "", "torch", begin, advance_by(step), lambda target: Dynamics("exact", {"step_size": step_size}),
        only("gaussian"), accepted=lambda state: state["accepted"] / state["step"], **more,
    )  # fmt: skip


def mala_step(
    noise: Noise = lambda state: as_normal(uniform_noise(state))[:, :2],
    accept: Accept = lambda u, log_ratio: u.log() < log_ratio,
    energy: Callable[[Tensor, Tensor], Tensor] = well_energy,
    heat: Callable[[Any], Any] = lambda t: t,
    drift: float = 0.5,
    density: float = 1.0,
    eps: float = EPS,
) -> Step:
    """``heat`` is applied to the temperature of the energies, ``drift`` belongs to the proposal alone, and the
    acceptance has the logarithms of the proposals' densities ``density`` times."""

    def step(state: State, t: Any) -> Tensor:
        x, k = state["x"].double(), state["target"].parameters["stiffness"].double()
        y = x - drift * eps * k * x + _root(eps * t) * noise(state)
        there, back = (y - x + eps / 2 * k * x).square(), (x - y + eps / 2 * k * y).square()
        log_densities = (there - back).sum(1, keepdim=True) / (2 * eps * t)
        log_ratio = (energy(k, x) - energy(k, y)) / heat(t) + density * log_densities
        return _decide(state, x, y, log_ratio, accept)

    return step


def mala(name: str = "mala", eps: float = EPS, swap: Accept | None = None, **pieces: Any) -> Sampler:
    """The Metropolis-adjusted Langevin algorithm.

    With ``swap`` an exchange of the two coordinates is proposed after each step, as between two replicas.
    """
    step = mala_step(eps=eps, **pieces)
    return _adjusted(name, _swapping(step, swap) if swap else step, eps, reversible=swap is None)


LEAP = 0.7


def hmc(
    name: str = "hmc",
    noise: Noise = lambda state: as_normal(uniform_noise(state))[:, :2],
    accept: Accept = lambda u, log_ratio: u.log() < log_ratio,
    heat: Callable[[Any], Any] = lambda t: t,
    momentum_heat: Callable[[Any], Any] = lambda t: t,
    kinetic: float = 1.0,
    last_half: float = 0.5,
    leaps: int = 3,
    leap: float = LEAP,
) -> Sampler:
    """Hamiltonian Monte Carlo with new momenta in each step. The acceptance has ``kinetic`` times their energy, and the
    last update of the momenta is ``last_half`` of a whole one."""

    def step(state: State, t: Any) -> Tensor:
        x, k = state["x"].double(), state["target"].parameters["stiffness"].double()
        p, y = _root(momentum_heat(t)) * noise(state), x
        before = well_energy(k, x) + kinetic * p.square().sum(1, keepdim=True) / 2
        p = p - leap / 2 * k * y
        for number in range(leaps):
            y = y + leap * p
            p = p - (leap if number < leaps - 1 else leap * last_half) * k * y
        after = well_energy(k, y) + kinetic * p.square().sum(1, keepdim=True) / 2
        return _decide(state, x, y, (before - after) / heat(t), accept)

    return _adjusted(name, step, leap, reversible=True)


def _swapping(step: Step, accept: Accept) -> Step:
    def both(state: State, t: Any) -> Tensor:
        x, k = step(state, t), state["target"].parameters["stiffness"].double()
        log_ratio = (well_energy(k, x.double()) - well_energy(k, x.double().flip(1))) / t
        u = uniforms(state["seed"], chains_of(state), -1 - state["step"], 1)
        return torch.where(accept(u, log_ratio), x.flip(1), x)

    return both
