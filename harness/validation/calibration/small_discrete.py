"""Targets of a few bits and right samplers of them: Metropolis and Gibbs on four states, block Gibbs on a small RBM."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...api.samplers import Dynamics, ExactLaw, Projection, Sampler, Target
from .small_samplers import Noise, State, advance_by, begin, only, uniform_noise


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
