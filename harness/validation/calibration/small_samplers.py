"""Small right samplers on small targets with exact laws, in torch, whose pieces can be replaced by wrong ones.

Langevin dynamics, MALA and HMC in a quadratic well, Metropolis on four states, block Gibbs on a small restricted
Boltzmann machine. Their random numbers are a function of seed, chain, step and element.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from scipy.special import ndtr
from torch import Tensor

from ...api.samplers import Dynamics, ExactLaw, Projection, Sampler, Target, temperature_at

State = dict[str, Any]
Step = Callable[[State, Any], Tensor]
"""``step(state, temperature) -> x``."""
Advance = Callable[[Any, int, Any], State]
Noise = Callable[[State], Tensor]

# A random stream that is a function of seed, chain, step and element: splitmix64 (Steele et al. 2014), nested.

GOLDEN = -7046029254386353131


def _mixed(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64, in place."""
    z ^= (z >> 30) & (2**34 - 1)
    z *= -4658895280553007687
    z ^= (z >> 27) & (2**37 - 1)
    z *= -7723592293110705685
    z ^= (z >> 31) & (2**33 - 1)
    return z


def uniforms(seed: int, chain: int | Tensor, step: int | Tensor, elements: int) -> Tensor:
    """(chains, elements), float64, between 0 and 1. ``chain`` and ``step`` are numbers or (chains,)."""
    word = torch.tensor(seed)
    for part in (torch.as_tensor(step), torch.as_tensor(chain)):
        word = _mixed((word + 1) * GOLDEN + part)
    word = _mixed((word.reshape(-1, 1) + 1) * GOLDEN + torch.arange(elements))
    word >>= 11
    word &= 2**53 - 1
    return word.double().add_(0.5).mul_(2.0**-53)


def chains_of(state: State) -> Tensor:
    numbers: Tensor = state["first"] + torch.arange(len(state["x"]))
    return numbers


def uniform_noise(state: State) -> Tensor:
    return uniforms(state["seed"], chains_of(state), state["step"], state["x"][0].numel() + 1)


def as_normal(u: Tensor) -> Tensor:
    normal: Tensor = torch.special.erfinv(2 * u - 1)
    return math.sqrt(2) * normal


def begin(target: Target, start: Tensor, seed: int, first_chain: int) -> State:
    return {"x": start, "target": target, "seed": seed, "first": first_chain, "step": 0, "temperature": None}


def advance_by(step: Step) -> Advance:
    """``advance`` from ``step(state, temperature) -> x``, the temperature (chains, 1) or a number."""

    def advance(state: Any, steps: int, temperature: Any) -> State:
        for number in range(steps):
            t = temperature_at(temperature, number)
            state["x"] = step(state, t[:, None].double() if isinstance(t, torch.Tensor) else t)
            state["step"] += 1
        advanced: State = state
        return advanced

    return advance


# A quadratic well in two dimensions, and Langevin dynamics in it.

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


def only(kind: str) -> Callable[[Target], str | None]:
    return lambda target: None if target.kind == kind else f"made for {kind}"


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


# A law of four states, in two bits, and Metropolis in it.


def four_states() -> Target:
    levels = torch.tensor([0.0, 0.7, -0.4, 1.1])

    def index(x: Tensor) -> Tensor:
        return x[:, 0].long() + 2 * x[:, 1].long()

    def law(temperature: float, dynamics: Dynamics) -> ExactLaw:
        chances = torch.softmax(-levels.double() / temperature, 0)

        def draw(chains: int, generator: torch.Generator) -> Tensor:
            state = torch.multinomial(chances, chains, replacement=True, generator=generator)
            return torch.stack([state % 2, state // 2], 1)

        energy = Projection("energy", lambda x: levels[index(x)], mean=float((chances * levels).sum()))
        return ExactLaw(draw, (Projection("state", index, probabilities=chances), energy))

    return Target(
        "four", "Four states.", "E = levels[x]", "by hand", "four", (2,), "uint8", {"levels": levels},
        lambda x: levels.to(x.device)[index(x)], law, (1.0, 0.5),
    )  # fmt: skip


def metropolis(
    name: str = "metropolis",
    accept: Callable[[Tensor, Tensor, State], Tensor] = lambda u, ratio, state: u.log() < ratio,
    propose: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Sampler:
    def log_ratio(state: State, proposal: Tensor, t: Any) -> Tensor:
        energy = state["target"].energy
        ratio: Tensor = (energy(state["x"]).double() - energy(proposal).double())[:, None] / t
        return ratio

    def step(state: State, t: Any) -> Tensor:
        u, x = uniform_noise(state), state["x"]
        proposal = (propose or flip)(x, u[:, :1])
        accepted = accept(u[:, 1:2], log_ratio(state, proposal, t), state)
        return torch.where(accepted, proposal, x)

    return Sampler(name, "Flips a bit.", "Metropolis 1953", "torch", begin, advance_by(step), refuses=only("four"))


def bit_by_bit(name: str = "bit by bit", order: tuple[int, ...] = (0, 1), **more: Any) -> Sampler:
    """Heat-bath Gibbs sampling of the bits in a fixed order."""

    def step(state: State, t: Any) -> Tensor:
        u, energy = uniform_noise(state), state["target"].energy
        x: Tensor = state["x"]
        for bit in order:
            zero, one = (x.index_fill(1, torch.tensor([bit]), value) for value in (0, 1))
            chance = torch.sigmoid((energy(zero) - energy(one)).double()[:, None] / t)
            x = torch.where(u[:, bit : bit + 1] < chance, one, zero)
        return x

    return Sampler(name, "", "", "torch", begin, advance_by(step), refuses=only("four"), **more)


def flip(x: Tensor, u: Tensor, first: float | Tensor = 0.5) -> Tensor:
    """Flip bit 0 with probability ``first``, else bit 1."""
    return torch.where(torch.cat([u < first, u >= first], 1), 1 - x, x)


def flip_mostly_up(x: Tensor, u: Tensor) -> Tensor:
    """Goes from 0 to 1 more often than back, in the first bit."""
    return flip(x, u, torch.where(x[:, :1] == 0, 0.7, 0.3))


# A small RBM, and block Gibbs in it.


def rbm() -> Target:
    weights = torch.tensor([[0.9, -0.7], [0.4, 0.8], [-1.1, 0.3]])
    visible_bias, hidden_bias = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([-0.6, 0.5])
    states = torch.tensor([[(n >> k) & 1 for k in range(5)] for n in range(32)], dtype=torch.uint8)
    parameters = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias}

    def energy(x: Tensor) -> Tensor:
        v, h = x[:, :3].float(), x[:, 3:].float()
        return -(v @ visible_bias + h @ hidden_bias + ((v @ weights) * h).sum(1))

    def law(temperature: float, dynamics: Dynamics) -> ExactLaw:
        chances = torch.softmax(-energy(states).double() / temperature, 0)
        powers = 2 ** torch.arange(5)

        def unit(k: int, x: Tensor) -> Tensor:
            return x[:, k].long()

        units = tuple(
            Projection(f"unit {k}", partial(unit, k), mean=float((chances * states[:, k]).sum())) for k in range(5)
        )
        return ExactLaw(
            lambda n, generator: states[torch.multinomial(chances, n, replacement=True, generator=generator)],
            (Projection("state", lambda x: (x.long() * powers).sum(1), probabilities=chances), *units),
        )

    return Target(
        "small_rbm", "3 + 2 units.", "E = -b.v - c.h - v.W.h", "Smolensky 1986", "rbm", (5,), "uint8", parameters,
        energy, law, (1.0, 2.0),
    )  # fmt: skip


def gibbs(
    name: str = "gibbs",
    hidden: bool = True,
    sign: float = 1.0,
    bias_temperature: Callable[[Any], Any] = lambda t: t,
    chance: Callable[[Tensor], Tensor] = lambda u: u,
    after: Callable[[Tensor, Tensor], Tensor] = lambda x, u: x,
    noise: Noise = uniform_noise,
    change: Callable[..., tuple[Tensor, ...]] = lambda *machine: machine,
    heat: Callable[[Any], Any] = lambda t: t,
    at_once: bool = False,
) -> Sampler:
    """``change`` gets weights, visible and hidden biases; ``at_once`` draws all units given the old ones."""

    def step(state: State, t: Any) -> Tensor:
        parameters, t = state["target"].parameters, heat(t)
        weights, b, c = change(*(parameters[key].double() for key in ("weights", "visible_bias", "hidden_bias")))
        u, v, h = chance(noise(state)), state["x"][:, :3].double(), state["x"][:, 3:].double()
        old = h
        heated = bias_temperature(t)
        if hidden:
            h = (u[:, 3:5] < torch.sigmoid(v @ weights / t + sign * c / heated)).double()
        v = (u[:, :3] < torch.sigmoid((old if at_once else h) @ weights.T / t + b / heated)).double()
        return after(torch.cat([v, h], 1), u[:, :5]).to(torch.uint8)

    return Sampler(name, "Block Gibbs.", "Hinton 2002", "torch", begin, advance_by(step), refuses=only("rbm"))
