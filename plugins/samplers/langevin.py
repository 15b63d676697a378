"""Langevin samplers: SGLD on every backend, preconditioned SGLD, and Hamiltonian dynamics with friction.

Their invariant distribution is not the target's law but that of the chain in discrete time, which `Dynamics` names.
With k the largest of the `curvatures` of the energy, the default step size of SGLD is ``eps = 1 / (2 k)``.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Dynamics, Sampler, Target, Temperature, hookimpl
from boltzbench.kernels.common.dispatch import unavailable
from boltzbench.kernels.sgld import sgld_update
from boltzbench.plugins.support.samplers import (
    Purpose,
    State,
    beside,
    by_backends,
    by_temperature,
    continuous_sampler,
    curvatures,
    energy_and_gradient,
    normal_draws,
    rounded,
    temperatures,
)
from torch import Tensor

BOLTZBENCH_API = 1

ELEMENTS_OF_A_TENSOR = 1 << 13
"""Approximate elements of the tensors that hold the chains.

The kernel numbers the elements of a tensor from 0. So that the noise of a chain does not depend on how chains are split
over calls, the tensor of a chain has the chain's number divided by the chains in a tensor. A call that begins within a
tensor adds unused rows before its own.
"""


def _stiffness(target: Target) -> float:
    return float(curvatures(target).max())


# ---- SGLD


def _langevin(step_size: float | None, target: Target) -> Dynamics:
    return Dynamics("langevin", {"step_size": rounded(0.5 / _stiffness(target)) if step_size is None else step_size})


def _advance_sgld(backend: str, state: State, steps: int, temperature: Temperature) -> State:
    """``x <- x - (eps / 2) grad U(x) + sqrt(eps T) xi``."""
    x = state["x"]
    chains = max(1, ELEMENTS_OF_A_TENSOR // math.prod(x.shape[1:]))  # in a tensor

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
    """SGLD by the suite's kernel for ``backend``; chains of equal temperature share a launch."""
    return continuous_sampler(
        f"sgld_{backend}",
        "Langevin dynamics with the full gradient (SGLD).",
        "Welling and Teh, ICML 2011, with temperature",
        partial(_langevin, step_size),
        partial(_advance_sgld, backend),
        backend=backend,
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
    """SGLD with the preconditioner of RMSprop, without the correction term, as is usual.

    No stationary law is known in closed form, so the dynamics have their own name. The default damping is ``sqrt(k)``,
    and the default step size moves no direction further than SGLD's default does.
    """
    return continuous_sampler(
        "psgld",
        "Langevin dynamics preconditioned by a running mean of squared gradients (pSGLD).",
        "Li, Chen, Carlson and Carin, AAAI 2016",
        partial(_preconditioned, step_size, decay, damping),
        _advance_psgld,
    )


# ---- SGHMC


def _hamiltonian(step_size: float | None, friction: float, target: Target) -> Dynamics:
    step_size = rounded(0.25 / _stiffness(target)) if step_size is None else step_size
    return Dynamics("sghmc", {"step_size": step_size, "friction": friction})


def _advance_sghmc(state: State, steps: int, temperature: Temperature) -> State:
    """``p <- (1 - a) p - eta grad U(x) + sqrt(2 a eta T) xi``, then ``x <- x + p``.

    On ``U = k x^2 / 2`` the stationary law has ``var x = T / (k (1 - eta k / (2 (2 - a))))`` and, given x,
    ``p ~ N(eta grad U(x) / (2 - a), 2 eta T / (2 - a))``, which does not depend on k. The first momentum is drawn from
    this law at the first step's temperature: on a quadratic energy, a start that is exact in x is exact in (x, p).
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
    """SGHMC, equation 15, with temperature. ``friction`` is a, in (0, 1]; at 1 this is SGLD with ``eps = 2 eta``.

    The default step size eta is ``1 / (4 k)``.
    """
    return continuous_sampler(
        "sghmc",
        "Hamiltonian dynamics with friction and noise (SGHMC).",
        "Chen, Fox and Guestrin, ICML 2014, equation 15, with temperature",
        partial(_hamiltonian, step_size, friction),
        _advance_sghmc,
    )


SAMPLERS = (*by_backends(sgld, "boltzbench.kernels.sgld"), psgld(), sghmc())


@hookimpl
def register_samplers(register: Callable[[Sampler], None]) -> None:
    for sampler in SAMPLERS:
        register(sampler)
