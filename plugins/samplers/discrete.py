"""Samplers of units and spins, exactly invariant under the target's law: block Gibbs of a restricted Boltzmann machine,
checkerboard sweeps of the Ising model, and chromatic Gibbs sampling of any Boltzmann machine.

A step is a sweep, which updates every unit or spin once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from boltzbench.harness import Sampler, Target, Temperature, hookimpl
from boltzbench.kernels.boltzmann_gibbs import boltzmann_gibbs, prepare_spins, prepare_units
from boltzbench.kernels.common.dispatch import unavailable
from boltzbench.kernels.ising import ising_sweeps, lattice_couplings, pack_spins, unpack_spins
from boltzbench.kernels.rbm_gibbs import WEIGHT_DTYPES, gibbs
from boltzbench.plugins.support.samplers import (
    Purpose,
    State,
    acceptance_rate,
    begin,
    begin_counting,
    by_backends,
    stretches,
    temperatures,
    uniform_draws,
)
from torch import Tensor

BOLTZBENCH_API = 1


def _by_kernel(
    name: str, summary: str, source: str, backend: str, init: Callable[[Target, Tensor, int, int], State],
    advance: Callable[[str, State, int, Temperature], State], refuses: Callable[[Target], str | None],
    clamps: bool = False,
) -> Sampler:  # fmt: skip
    """A sampler by the suite's kernel for ``backend``; ``advance`` receives the backend first."""
    return Sampler(
        name=f"{name}_{backend}",
        summary=summary,
        source=source,
        backend=backend,
        init=init,
        advance=partial(advance, backend),
        refuses=refuses,
        unavailable=partial(unavailable, backend),
        clamps=clamps,
    )


def _swept(state: State, x: Tensor, steps: int, temperature: Temperature, sweep: Callable[..., Tensor]) -> Tensor:
    """``x`` after ``steps`` sweeps: ``sweep(x, sweeps, beta, seed=, first_sweep=)`` for each run at constant beta."""
    heat = temperatures(temperature, state["x"], steps)
    for first, end in stretches(heat):
        x = sweep(x, end - first, 1 / heat[first], seed=state["seed"], first_sweep=state["step"] + first)
    return x


# ---- block Gibbs


def _begin_gibbs(target: Target, start: Tensor, seed: int, first_chain: int) -> State:
    names = ("weights", "visible_bias", "hidden_bias")
    given = [torch.as_tensor(target.parameters[name]) for name in names]
    dtype = given[0].dtype if given[0].dtype in WEIGHT_DTYPES else torch.float32
    machine = {name: value.to(start.device, dtype) for name, value in zip(names, given, strict=True)}
    return begin(target, start, seed, first_chain) | {"machine": machine}


def _advance_gibbs(backend: str, state: State, steps: int, temperature: Temperature) -> State:
    """``steps`` sweeps of hidden given visible, then visible given hidden, at ``beta = 1 / T``.

    A sweep replaces the hidden units before it uses them. If the visible units have their marginal law, then
    (visible, new hidden) have the joint law, and so have the new visible units, drawn given the new hidden.
    """
    x, machine = state["x"], state["machine"]
    visible_units = len(machine["visible_bias"])
    clamped = state["target"].clamped
    if clamped is not None:
        clamped = clamped[:visible_units].to(x.device)

    def sweep(x: Tensor, sweeps: int, beta: Tensor, *, seed: int, first_sweep: int) -> Tensor:
        result = gibbs(
            x[:, :visible_units], **machine, sweeps=sweeps, beta=beta, seed=seed, first_sweep=first_sweep,
            first_chain=state["first_chain"], clamped=clamped, check_values=first_sweep == 0, backend=backend,
        )  # fmt: skip
        return torch.cat((result.visible, result.hidden), dim=1)

    return {**state, "x": _swept(state, x, steps, temperature, sweep), "step": state["step"] + steps}


def _refuses_gibbs(target: Target) -> str | None:
    if target.kind != "rbm":
        return f"it is of kind {target.kind!r}, not 'rbm'"
    if target.clamped is not None and target.clamped[len(target.parameters["visible_bias"]) :].any():
        return "hidden units are clamped; block Gibbs clamps visible ones"
    return None


def block_gibbs(backend: str) -> Sampler:
    """Block Gibbs by the suite's kernel for ``backend``: one call for all chains, each at its temperature.

    Weights in a precision that the kernel lacks (float64) are rounded to float32.
    """
    return _by_kernel(
        "block_gibbs",
        "Block Gibbs: all hidden units given the visible ones, then all visible ones given these.",
        "Hinton, Neural Computation 14 (2002)",
        backend,
        _begin_gibbs,
        _advance_gibbs,
        _refuses_gibbs,
        clamps=True,
    )


# ---- Ising


def _refuses_ising(target: Target) -> str | None:
    if target.kind != "ising":
        return f"it is of kind {target.kind!r}, not 'ising'"
    length = int(target.parameters["length"])
    if length % 2:
        return f"its length {length} is odd: around the torus two neighbours would have the same colour"
    return None


def _advance_ising(heat_bath: bool, state: State, steps: int, temperature: Temperature) -> State:
    """Sweeps over the even sites, then over the odd ones, of the square lattice with periodic boundaries.

    The field is ``h_i = J sum_j s_j`` over the four neighbours. Metropolis flips ``s_i`` with probability
    ``min(1, exp(-2 s_i h_i / T))``; the heat bath draws ``s_i = 1`` with probability ``1 / (1 + exp(-2 h_i / T))``.
    ``"accepted"`` adds up the flipped fraction of each sweep.
    """
    target, start = state["target"], state["x"]
    length, coupling = int(target.parameters["length"]), float(target.parameters["coupling"])
    spins = start.reshape(len(start), length, length)
    site = torch.arange(length, device=start.device)
    odd = (site[:, None] + site) % 2 == 1
    flipped = state["accepted"]
    for step, heat in enumerate(temperatures(temperature, start, steps), state["step"]):
        factor = (2 * coupling / heat).to(torch.float32).view(-1, 1, 1)
        u = uniform_draws(start, length * length, state, step, Purpose.ACCEPTANCE).view(spins.shape)
        before = spins
        for colour in (~odd, odd):
            neighbours = spins.roll(1, 1) + spins.roll(-1, 1) + spins.roll(1, 2) + spins.roll(-1, 2)
            if heat_bath:
                drawn = torch.where(u < torch.sigmoid(factor * neighbours), 1, -1).to(spins.dtype)
            else:
                drawn = torch.where(u < torch.exp(-factor * (spins * neighbours)), -spins, spins)
            spins = torch.where(colour, drawn, spins)
        flipped = flipped + (spins != before).double().mean((1, 2))
    return {**state, "x": spins.reshape(start.shape), "accepted": flipped, "step": state["step"] + steps}


def ising(rule: str) -> Sampler:
    """Checkerboard sweeps by ``rule``, ``metropolis`` or ``heat_bath``, on lattices of even length.

    Metropolis does not converge from every start: see `boltzbench.kernels.ising.ising_sweeps`.
    """
    heat_bath = rule == "heat_bath"
    words = ("heat bath", "Geman and Geman, IEEE PAMI 6 (1984)")
    if not heat_bath:
        words = ("Metropolis", "Metropolis et al., J. Chem. Phys. 21 (1953)")
    return Sampler(
        name=f"ising_{rule}",
        summary=f"Sweeps of the Ising model by {words[0]}, even sites, then odd ones.",
        source=words[1],
        backend="torch",
        init=begin_counting,
        advance=partial(_advance_ising, heat_bath),
        refuses=_refuses_ising,
        accepted=None if heat_bath else acceptance_rate,
    )


def _advance_packed(backend: str, state: State, steps: int, temperature: Temperature) -> State:
    parameters = state["target"].parameters
    length, coupling = int(parameters["length"]), float(parameters["coupling"])

    def sweep(spins: Tensor, sweeps: int, beta: Tensor, **stream: Any) -> Tensor:
        return ising_sweeps(
            spins, length, sweeps, beta, coupling=coupling, first_lattice=state["first_chain"], backend=backend,
            **stream,
        )  # fmt: skip

    spins = _swept(state, pack_spins(state["x"]), steps, temperature, sweep)
    return {**state, "x": unpack_spins(spins, length), "step": state["step"] + steps}


def ising_packed(backend: str) -> Sampler:
    """Heat-bath sweeps by the suite's kernel for ``backend``, 32 spins to a word."""
    return _by_kernel(
        "ising_packed",
        "Sweeps of the Ising model by heat bath, 32 spins to a word.",
        "Block, Virnau and Preis, Comput. Phys. Commun. 181 (2010)",
        backend,
        begin,
        _advance_packed,
        _refuses_ising,
    )


# ---- any couplings


def _begin_by_colours(target: Target, start: Tensor, seed: int, first_chain: int) -> State:
    parameters, device = target.parameters, start.device
    if target.kind == "ising":
        length = int(parameters["length"])
        couplings = lattice_couplings(length, length, float(parameters["coupling"])).to(device)
        machine = prepare_spins(couplings, torch.zeros(length * length, dtype=torch.float64, device=device))
    else:
        machine = prepare_units(*(torch.as_tensor(parameters[name]).to(device) for name in ("weights", "biases")))
    return begin(target, start, seed, first_chain) | {"machine": machine}


def _advance_by_colours(backend: str, state: State, steps: int, temperature: Temperature) -> State:
    clamped = state["target"].clamped
    if clamped is not None:
        clamped = clamped.flatten().to(state["x"].device)

    def sweep(x: Tensor, sweeps: int, beta: Tensor, **stream: Any) -> Tensor:
        return boltzmann_gibbs(
            x, state["machine"], sweeps, beta, first_chain=state["first_chain"], clamped=clamped, backend=backend,
            **stream,
        )  # fmt: skip

    x = _swept(state, state["x"].flatten(1), steps, temperature, sweep)
    return {**state, "x": x.view(state["x"].shape), "step": state["step"] + steps}


def _refuses_by_colours(target: Target) -> str | None:
    if target.kind in ("boltzmann", "ising"):
        return None
    return f"it is of kind {target.kind!r}, not 'boltzmann' or 'ising'"


def gibbs_by_colours(backend: str) -> Sampler:
    """Chromatic Gibbs sampling by the suite's kernel for ``backend``, for units or spins with any couplings."""
    return _by_kernel(
        "gibbs_by_colours",
        "Heat-bath Gibbs: all units of a colour given the others, colour by colour.",
        "Gonzalez, Low, Gretton and Guestrin, AISTATS 2011",
        backend,
        _begin_by_colours,
        _advance_by_colours,
        _refuses_by_colours,
        clamps=True,
    )


SAMPLERS = (
    *by_backends(block_gibbs, "boltzbench.kernels.rbm_gibbs"),
    *(ising(rule) for rule in ("metropolis", "heat_bath")),
    *by_backends(ising_packed, "boltzbench.kernels.ising", ("cupy", "native")),
    *by_backends(gibbs_by_colours, "boltzbench.kernels.boltzmann_gibbs", ("cupy", "native")),
)


@hookimpl
def register_samplers(register: Callable[[Sampler], None]) -> None:
    for sampler in SAMPLERS:
        register(sampler)
