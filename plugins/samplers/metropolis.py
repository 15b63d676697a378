"""Metropolis samplers of continuous positions in torch: a random walk, and the Langevin proposal (MALA).

Their invariant distribution is the target's law exactly. With k the mean of the `curvatures` of the energy and d the
number of elements, the default step sizes are near the optimum for a normal law: ``2.4 / sqrt(k d)`` and
``2 / (k d^(1/3))`` (Roberts and Rosenthal, Statistical Science 16, 2001).
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Dynamics, Sampler, Target, Temperature, hookimpl
from boltzbench.plugins.support.samplers import (
    Purpose,
    State,
    beside,
    continuous_sampler,
    curvatures,
    energy,
    energy_and_gradient,
    normal_draws,
    rounded,
    temperatures,
    uniform_draws,
)
from torch import Tensor

BOLTZBENCH_API = 1


def _accepts(state: State, x: Tensor, step: int, log_ratio: Tensor) -> Tensor:
    """``u < min(1, exp(log_ratio))``: bool (chains,). A ratio of NaN (a proposal out of bounds) is rejected."""
    u = uniform_draws(x, 1, state, step, Purpose.ACCEPTANCE).squeeze(1)
    return u < log_ratio.clamp(max=0).exp()


# ---- random walk


def _walk(step_size: float | None, target: Target) -> Dynamics:
    if step_size is None:
        step_size = rounded(2.4 / math.sqrt(float(curvatures(target).mean()) * math.prod(target.shape)))
    return Dynamics("exact", {"step_size": step_size})


def _advance_walk(state: State, steps: int, temperature: Temperature) -> State:
    """``y = x + s sqrt(T) xi``, accepted with probability ``min(1, exp((U(x) - U(y)) / T))``."""
    target, x, accepted = state["target"], state["x"], state["accepted"]
    u = energy(target, x)
    for step, heat in enumerate(temperatures(temperature, x, steps), state["step"]):
        y = x + state["step_size"] * beside(heat.sqrt(), x) * normal_draws(x, state, step)
        u_y = energy(target, y)
        accept = _accepts(state, x, step, (u - u_y) / heat)
        x, u = torch.where(beside(accept, x).bool(), y, x), torch.where(accept, u_y, u)
        accepted = accepted + accept
    return {**state, "x": x, "accepted": accepted, "step": state["step"] + steps}


def metropolis(step_size: float | None = None) -> Sampler:
    """Random-walk Metropolis with normal steps of standard deviation ``step_size sqrt(T)`` in each element."""
    return continuous_sampler(
        "metropolis",
        "Random-walk Metropolis with normal proposals.",
        "Metropolis et al., J. Chem. Phys. 21 (1953)",
        partial(_walk, step_size),
        _advance_walk,
        adjusted=True,
        reversible=True,
    )


# ---- MALA


def _mala(step_size: float | None, target: Target) -> Dynamics:
    if step_size is None:
        step_size = rounded(2 / (float(curvatures(target).mean()) * math.prod(target.shape) ** (1 / 3)))
    return Dynamics("exact", {"step_size": step_size})


def _advance_mala(state: State, steps: int, temperature: Temperature) -> State:
    """``y = x - (eps / 2) g(x) + sqrt(eps T) xi``, accepted with probability ``min(1, r)``,
    ``log r = (U(x) - U(y)) / T + (|y - x + (eps / 2) g(x)|^2 - |x - y + (eps / 2) g(y)|^2) / (2 eps T)``."""
    target, x, accepted, eps = state["target"], state["x"], state["accepted"], state["step_size"]
    u, g = energy_and_gradient(target, x)
    for step, heat in enumerate(temperatures(temperature, x, steps), state["step"]):
        y = x - 0.5 * eps * g + beside((eps * heat).sqrt(), x) * normal_draws(x, state, step)
        u_y, g_y = energy_and_gradient(target, y)
        there = (y.double() - x + 0.5 * eps * g).flatten(1).square().sum(1)
        back = (x.double() - y + 0.5 * eps * g_y).flatten(1).square().sum(1)
        accept = _accepts(state, x, step, (u - u_y) / heat + (there - back) / (2 * eps * heat))
        chosen = beside(accept, x).bool()
        x, g, u = torch.where(chosen, y, x), torch.where(chosen, g_y, g), torch.where(accept, u_y, u)
        accepted = accepted + accept
    return {**state, "x": x, "accepted": accepted, "step": state["step"] + steps}


def mala(step_size: float | None = None) -> Sampler:
    """The Metropolis-adjusted Langevin algorithm: SGLD's move as a proposal."""
    return continuous_sampler(
        "mala",
        "Metropolis-adjusted Langevin algorithm (MALA).",
        "Roberts and Tweedie, Bernoulli 2 (1996)",
        partial(_mala, step_size),
        _advance_mala,
        adjusted=True,
        reversible=True,
    )


SAMPLERS = (metropolis(), mala())


@hookimpl
def register_samplers(register: Callable[[Sampler], None]) -> None:
    for sampler in SAMPLERS:
        register(sampler)
