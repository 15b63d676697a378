"""Samplers of units and spins: block Gibbs of a restricted Boltzmann machine, checkerboard sweeps of the Ising model,
sweeps by colours of any Boltzmann machine.

All leave the target's law alone exactly. A step is a sweep: every unit or spin is drawn once.
"""

from collections.abc import Callable
from functools import partial

import torch
from boltzbench.harness import Sampler, Target, Temperature, hookimpl
from boltzbench.kernels.boltzmann_gibbs import boltzmann_gibbs, prepare_spins, prepare_units
from boltzbench.kernels.common.dispatch import BACKENDS, unavailable
from boltzbench.kernels.ising import ising_sweeps, lattice_couplings, pack_spins, unpack_spins
from boltzbench.kernels.rbm_gibbs import WEIGHT_DTYPES, gibbs
from boltzbench.plugins.support.samplers import Purpose, State, begin, stretches, temperatures, uniform_draws
from torch import Tensor

BOLTZBENCH_API = 1

# ---- block Gibbs


def _begin_gibbs(target: Target, start: Tensor, seed: int, first_chain: int) -> State:
    names = ("weights", "visible_bias", "hidden_bias")
    given = [torch.as_tensor(target.parameters[name]) for name in names]
    dtype = given[0].dtype if given[0].dtype in WEIGHT_DTYPES else torch.float32
    machine = {name: value.to(start.device, dtype) for name, value in zip(names, given, strict=True)}
    return begin(target, start, seed, first_chain) | {"machine": machine}


def _advance_gibbs(backend: str, state: State, steps: int, temperature: Temperature) -> State:
    """``steps`` sweeps of hidden given visible, then visible given hidden, at ``beta = 1 / T``.

    The hidden units of the position are replaced before they are used. If the visible ones follow their law, then so
    does (visible, new hidden) the joint one, and the new visible ones are drawn from their law given the new hidden.
    """
    x, machine = state["x"], state["machine"]
    visible_units = len(machine["visible_bias"])
    clamped = state["target"].clamped
    if clamped is not None:
        clamped = clamped[:visible_units].to(x.device)

    heat = temperatures(temperature, x, steps)
    for first, end in stretches(heat):
        step = state["step"] + first
        result = gibbs(
            x[:, :visible_units], **machine, sweeps=end - first, beta=1 / heat[first], seed=state["seed"],
            first_sweep=step, first_chain=state["first_chain"], clamped=clamped, check_values=step == 0,
            backend=backend,
        )  # fmt: skip
        x = torch.cat((result.visible, result.hidden), dim=1)
    return {**state, "x": x, "step": state["step"] + steps}


def _refuses_gibbs(target: Target) -> str | None:
    if target.kind != "rbm":
        return f"it is of kind {target.kind!r}, not 'rbm'"
    if target.clamped is not None and target.clamped[len(target.parameters["visible_bias"]) :].any():
        return "hidden units are clamped; block Gibbs clamps visible ones"
    return None


def block_gibbs(backend: str) -> Sampler:
    """Block Gibbs by the suite's kernel for ``backend``; all chains go in one call, each at its temperature.

    Weights of a precision that the kernel does not have (float64) are rounded to float32.
    """
    return Sampler(
        name=f"block_gibbs_{backend}",
        summary="Block Gibbs: all hidden units given the visible ones, then all visible ones given these.",
        source="Hinton, Neural Computation 14 (2002)",
        backend=backend,
        init=_begin_gibbs,
        advance=partial(_advance_gibbs, backend),
        refuses=_refuses_gibbs,
        unavailable=partial(unavailable, backend),
        clamps=True,
    )


# ---- Ising


def _refuses_ising(target: Target) -> str | None:
    if target.kind != "ising":
        return f"it is of kind {target.kind!r}, not 'ising'"
    length = int(target.parameters["length"])
    if length % 2:
        return f"its length {length} is odd: around the torus two neighbours would have one colour"
    return None


def _begin_ising(target: Target, start: Tensor, seed: int, first_chain: int) -> State:
    flipped = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    return begin(target, start, seed, first_chain) | {"flipped": flipped}


def _advance_ising(heat_bath: bool, state: State, steps: int, temperature: Temperature) -> State:
    """Sweeps over the even sites, then over the odd ones, of the square lattice with periodic boundaries.

    The field is ``h_i = J sum_j s_j`` over the four neighbours. Metropolis turns ``s_i`` with probability
    ``min(1, exp(-2 s_i h_i / T))``; the heat bath draws ``s_i = 1`` with probability ``1 / (1 + exp(-2 h_i / T))``.
    """
    target, start = state["target"], state["x"]
    length, coupling = int(target.parameters["length"]), float(target.parameters["coupling"])
    spins = start.reshape(len(start), length, length)
    site = torch.arange(length, device=start.device)
    odd = (site[:, None] + site) % 2 == 1
    flipped = state["flipped"]
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
    return {**state, "x": spins.reshape(start.shape), "flipped": flipped, "step": state["step"] + steps}


def _flipped(state: State) -> Tensor:
    """The fraction of spins turned in a sweep, float64 (chains,)."""
    fraction: Tensor = state["flipped"] / max(1, state["step"])
    return fraction


def ising(rule: str) -> Sampler:
    """Checkerboard sweeps by ``rule``, ``metropolis`` or ``heat_bath``, on lattices of even length."""
    heat_bath = rule == "heat_bath"
    words = ("heat bath", "Geman and Geman, IEEE PAMI 6 (1984)")
    if not heat_bath:
        words = ("Metropolis", "Metropolis et al., J. Chem. Phys. 21 (1953)")
    return Sampler(
        name=f"ising_{rule}",
        summary=f"Sweeps of the Ising model by {words[0]}, even sites, then odd ones.",
        source=words[1],
        backend="torch",
        init=_begin_ising,
        advance=partial(_advance_ising, heat_bath),
        refuses=_refuses_ising,
        accepted=None if heat_bath else _flipped,
    )


def _advance_packed(backend: str, state: State, steps: int, temperature: Temperature) -> State:
    target, x = state["target"], state["x"]
    length, coupling = int(target.parameters["length"]), float(target.parameters["coupling"])
    spins, heat = pack_spins(x), temperatures(temperature, x, steps)
    for first, end in stretches(heat):
        spins = ising_sweeps(
            spins, length, end - first, 1 / heat[first], coupling=coupling, seed=state["seed"],
            first_sweep=state["step"] + first, first_lattice=state["first_chain"], backend=backend,
        )  # fmt: skip
    return {**state, "x": unpack_spins(spins, length), "step": state["step"] + steps}


def ising_packed(backend: str) -> Sampler:
    """Metropolis sweeps by the suite's kernel for ``backend``, 32 spins to a word."""
    return Sampler(
        name=f"ising_packed_{backend}",
        summary="Sweeps of the Ising model by Metropolis, 32 spins to a word.",
        source="Block, Virnau and Preis, Comput. Phys. Commun. 181 (2010)",
        backend=backend,
        init=begin,
        advance=partial(_advance_packed, backend),
        refuses=_refuses_ising,
        unavailable=partial(unavailable, backend),
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
    x, clamped = state["x"].flatten(1), state["target"].clamped
    heat = temperatures(temperature, x, steps)
    for first, end in stretches(heat):
        x = boltzmann_gibbs(
            x, state["machine"], end - first, 1 / heat[first], seed=state["seed"],
            first_sweep=state["step"] + first, first_chain=state["first_chain"],
            clamped=None if clamped is None else clamped.flatten().to(x.device), backend=backend,
        )  # fmt: skip
    return {**state, "x": x.view(state["x"].shape), "step": state["step"] + steps}


def _refuses_by_colours(target: Target) -> str | None:
    if target.kind in ("boltzmann", "ising"):
        return None
    return f"it is of kind {target.kind!r}, not 'boltzmann' or 'ising'"


def gibbs_by_colours(backend: str) -> Sampler:
    """Sweeps by colours by the suite's kernel for ``backend``, of units or spins with any couplings."""
    return Sampler(
        name=f"gibbs_by_colours_{backend}",
        summary="Heat-bath Gibbs: all units of a colour given the others, colour by colour.",
        source="Gonzalez, Low, Gretton and Guestrin, AISTATS 2011",
        backend=backend,
        init=_begin_by_colours,
        advance=partial(_advance_by_colours, backend),
        refuses=_refuses_by_colours,
        unavailable=partial(unavailable, backend),
        clamps=True,
    )


SAMPLERS = (
    *(block_gibbs(backend) for backend in BACKENDS),
    *(ising(rule) for rule in ("metropolis", "heat_bath")),
    ising_packed("cupy"),  # of these two the other backends would take a minute and more on a CPU
    gibbs_by_colours("cupy"),
)


@hookimpl
def register_samplers(register: Callable[[Sampler], None]) -> None:
    for sampler in SAMPLERS:
        register(sampler)
