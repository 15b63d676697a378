"""Langevin samplers: SGLD on every backend, preconditioned SGLD, and Hamiltonian dynamics with friction.

They do not leave the target's law alone but one near it, that of the chain in discrete time; `Dynamics` says which.
With k the largest of the `curvatures` of the energy, the step size is ``eps = 1 / (2 k)`` by default.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Dynamics, Sampler, Target, Temperature, hookimpl
from boltzbench.kernels.common.dispatch import BACKENDS, unavailable
from boltzbench.kernels.sgld import sgld_update
from boltzbench.plugins.support.samplers import (
    Purpose,
    State,
    begin,
    beside,
    by_temperature,
    curvatures,
    energy_and_gradient,
    needs_a_gradient,
    normal_draws,
    rounded,
    temperatures,
)
from torch import Tensor

BOLTZBENCH_API = 1

ELEMENTS_OF_A_TENSOR = 1 << 13
"""The kernel numbers the elements of a tensor from 0. So chains go in tensors of about this many elements, whose number
in the stream is the chain's divided by the chains of a tensor, and a call that begins within a tensor brings rows
before its own that are not used. The noise of a chain is then its own, however chains are split over calls."""


def _begin_with_step_size(
    dynamics: Callable[[Target], Dynamics], target: Target, start: Tensor, seed: int, first_chain: int
) -> State:
    return begin(target, start, seed, first_chain) | dict(dynamics(target).numbers)


def _stiffness(target: Target) -> float:
    return float(curvatures(target).max())


# ---- SGLD


def _langevin(step_size: float | None, target: Target) -> Dynamics:
    return Dynamics("langevin", {"step_size": rounded(0.5 / _stiffness(target)) if step_size is None else step_size})


def _advance_sgld(backend: str, state: State, steps: int, temperature: Temperature) -> State:
    """``x <- x - (eps / 2) grad U(x) + sqrt(eps T) xi``."""
    x = state["x"]
    chains = max(1, ELEMENTS_OF_A_TENSOR // math.prod(x.shape[1:]))  # of a tensor

    def move(x: Tensor, first_chain: int, first_step: int, steps: int, temperature: float) -> Tensor:
        number, unused = divmod(first_chain, chains)
        rows = torch.cat((x.new_zeros((unused, *x.shape[1:])), x))
        slopes = torch.zeros_like(rows)
        tensors, gradients = torch.split(rows, chains), torch.split(slopes, chains)
        for step in range(first_step, first_step + steps):
            _, slopes[unused:] = energy_and_gradient(state["target"], rows[unused:])
            sgld_update(
                tensors, gradients, state["step_size"], temperature, seed=state["seed"], step=step,
                tensor_numbers=range(number, number + len(tensors)), backend=backend,
            )  # fmt: skip
        return rows[unused:]

    heat = temperatures(temperature, x, steps, zero=True)
    return {**state, "x": by_temperature(x, heat, state, move), "step": state["step"] + steps}


def sgld(backend: str, step_size: float | None = None) -> Sampler:
    """SGLD by the suite's kernel for ``backend``; chains of equal temperature go in one launch."""
    dynamics = partial(_langevin, step_size)
    return Sampler(
        name=f"sgld_{backend}",
        summary="Langevin dynamics with the full gradient (SGLD).",
        source="Welling and Teh, ICML 2011, with temperature",
        backend=backend,
        init=partial(_begin_with_step_size, dynamics),
        advance=partial(_advance_sgld, backend),
        dynamics=dynamics,
        refuses=needs_a_gradient,
        unavailable=partial(unavailable, backend),
    )


# ---- preconditioned SGLD


def _preconditioned(step_size: float | None, decay: float, damping: float | None, target: Target) -> Dynamics:
    k = _stiffness(target) if step_size is None or damping is None else 1.0
    damping = rounded(k**0.5) if damping is None else damping
    step_size = rounded(0.5 * damping / k) if step_size is None else step_size
    return Dynamics("psgld", {"step_size": step_size, "decay": decay, "damping": damping})


def _advance_psgld(state: State, steps: int, temperature: Temperature) -> State:
    """``V <- decay V + (1 - decay) g^2``, ``G = 1 / (damping + sqrt(V))``,
    ``x <- x - (eps / 2) G g + sqrt(eps T G) xi``; V is ``g^2`` before the first step."""
    x, square = state["x"], state.get("square")
    eps, decay = state["step_size"], state["decay"]
    for step, heat in enumerate(temperatures(temperature, x, steps, zero=True), state["step"]):
        noise = beside((eps * heat).sqrt(), x)
        _, g = energy_and_gradient(state["target"], x)
        square = g * g if square is None else decay * square + (1 - decay) * g * g
        preconditioner = 1 / (state["damping"] + square.sqrt())
        x = x - 0.5 * eps * preconditioner * g + noise * preconditioner.sqrt() * normal_draws(x, state, step)
    return {**state, "x": x, "square": square, "step": state["step"] + steps}


def psgld(step_size: float | None = None, decay: float = 0.99, damping: float | None = None) -> Sampler:
    """SGLD with the preconditioner of RMSprop, without its correction term, as is usual.

    Its stationary law is not known in closed form, so its dynamics have a name of their own. The damping is
    ``sqrt(k)`` by default and the step size such that no direction is stepped further than by SGLD's default.
    """
    dynamics = partial(_preconditioned, step_size, decay, damping)
    return Sampler(
        name="psgld",
        summary="Langevin dynamics preconditioned by a running mean of squared gradients (pSGLD).",
        source="Li, Chen, Carlson and Carin, AAAI 2016",
        backend="torch",
        init=partial(_begin_with_step_size, dynamics),
        advance=_advance_psgld,
        dynamics=dynamics,
        refuses=needs_a_gradient,
    )


# ---- SGHMC


def _hamiltonian(step_size: float | None, friction: float, target: Target) -> Dynamics:
    step_size = rounded(0.25 / _stiffness(target)) if step_size is None else step_size
    return Dynamics("sghmc", {"step_size": step_size, "friction": friction})


def _advance_sghmc(state: State, steps: int, temperature: Temperature) -> State:
    """``p <- (1 - a) p - eta grad U(x) + sqrt(2 a eta T) xi``, then ``x <- x + p``.

    On ``U = k x^2 / 2`` the chain is stationary with ``var x = T / (k (1 - eta k / (2 (2 - a))))`` and, given x,
    ``p ~ N(eta grad U(x) / (2 - a), 2 eta T / (2 - a))``, in which k does not occur. So the first momentum is drawn
    from that, at the first step's temperature: on a quadratic energy a start that is exact in x is exact in (x, p).
    """
    x, p = state["x"], state.get("momentum")
    eta, a = state["step_size"], state["friction"]
    for step, each in enumerate(temperatures(temperature, x, steps, zero=True), state["step"]):
        heat = beside(each, x)
        _, g = energy_and_gradient(state["target"], x)
        if p is None:
            p = eta / (2 - a) * g + (2 * eta / (2 - a) * heat).sqrt() * normal_draws(x, state, step, Purpose.MOMENTUM)
        p = (1 - a) * p - eta * g + (2 * a * eta * heat).sqrt() * normal_draws(x, state, step)
        x = x + p
    return {**state, "x": x, "momentum": p, "step": state["step"] + steps}


def sghmc(step_size: float | None = None, friction: float = 0.1) -> Sampler:
    """SGHMC, equation 15, with temperature. ``friction`` is a, in (0, 1]; at 1 it is SGLD with ``eps = 2 eta``.

    The step size eta is ``1 / (4 k)`` by default.
    """
    dynamics = partial(_hamiltonian, step_size, friction)
    return Sampler(
        name="sghmc",
        summary="Hamiltonian dynamics with friction and noise (SGHMC).",
        source="Chen, Fox and Guestrin, ICML 2014, equation 15, with temperature",
        backend="torch",
        init=partial(_begin_with_step_size, dynamics),
        advance=_advance_sghmc,
        dynamics=dynamics,
        refuses=needs_a_gradient,
    )


SAMPLERS = (*(sgld(backend) for backend in BACKENDS), psgld(), sghmc())


@hookimpl
def register_samplers(register: Callable[[Sampler], None]) -> None:
    for sampler in SAMPLERS:
        register(sampler)
