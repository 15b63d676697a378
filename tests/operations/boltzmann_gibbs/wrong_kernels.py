"""Wrong kernels of `boltzmann_gibbs`: see `support/wrong_kernels.py`."""

from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from boltzbench.kernels.boltzmann_gibbs import PreparedMachine, draw_uniforms
from boltzbench.plugins.operations.machines import boltzmann_gibbs as boltzmann_plugin
from support.wrong_kernels import Prepare, WrongKernel, mutants, shipped, spoiled

OPERATION = "boltzmann_gibbs"

COLOURED = "chains=70 units=37 sweeps=1 float32"
ALL_COUPLED = "dense chains=33 units=70 sweeps=1 float32"
ALL_COUPLED_TO_MANY = "dense chains=17 units=200 sweeps=1 float32"
UNITS_LATTICE = "lattice chains=40 units=64 sweeps=3 float32"


def shares_uniforms_between_chains_of_units(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        for chain in range(len(inputs["states"])):
            part = {"advanced": outputs["advanced"][chain : chain + 1]}
            shipped(OPERATION)({**inputs, "states": inputs["states"][chain : chain + 1]}, part)()
        return outputs

    return launch


def _with_colours(merge: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Prepare:
    """Sweeps with merged colours: the units keep their order and their random numbers."""
    honest = boltzmann_plugin._prepared

    def prepared(inputs: Inputs) -> PreparedMachine:
        machine = honest(inputs)
        return replace(machine, sizes=merge(machine.sizes))

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            with mock.patch.object(boltzmann_plugin, "_prepared", prepared):
                return shipped(OPERATION)(inputs, outputs)()

        return launch

    return prepare


gives_coupled_units_one_colour = _with_colours(lambda sizes: (sum(sizes[:2]), *sizes[2:]))


draws_all_from_the_states_before = _with_colours(lambda sizes: (sum(sizes),))


def always_flips_where_it_costs_nothing(inputs: Inputs, outputs: Tensors) -> Launch:
    """Metropolis, colour by colour: it leaves the distribution invariant, but not every start leads there."""

    def launch() -> Tensors:
        machine, states = boltzmann_plugin._prepared(inputs), inputs["states"].float()
        weights, biases, low = inputs["weights"], inputs["biases"], -1 if inputs["spins"] else 0
        for sweep in range(inputs["sweeps"]):
            place = (inputs["seed"], inputs["first_sweep"] + sweep, inputs["first_chain"])
            u = draw_uniforms(states.shape, *place, states.device)[:, machine.rank]
            for units in torch.split(machine.order, list(machine.sizes)):
                old = states[:, units]
                other = 1 + low - old
                gain = (other - old) * (biases[units] + states @ weights[:, units])
                states[:, units] = torch.where(u[:, units] < torch.exp(inputs["beta"] * gain), other, old)
        outputs["advanced"].copy_(states)
        return outputs

    return launch


def never_draws_the_last_colour(inputs: Inputs) -> dict[str, object]:
    """Leaves the distribution invariant: so does each colour alone."""
    machine = boltzmann_plugin._prepared(inputs)
    return {"clamped": machine.rank >= machine.units - machine.sizes[-1]}


WRONG_KERNELS = (
    WrongKernel(
        "always_flips_where_it_costs_nothing", OPERATION, "ergodicity", Status.WRONG_LAW,
        always_flips_where_it_costs_nothing,
    ),
    WrongKernel(
        "shares_uniforms_between_chains", OPERATION, COLOURED, Status.WRONG_VALUES,
        shares_uniforms_between_chains_of_units,
    ),
    *(
        WrongKernel(name, OPERATION, caught_by, status, wrong)
        for name, wrong in (
            ("gives_coupled_units_one_colour", gives_coupled_units_one_colour),
            ("draws_all_from_the_states_before", draws_all_from_the_states_before),
        )
        for caught_by, status in ((COLOURED, Status.WRONG_VALUES), ("enumeration beta=1.5", Status.WRONG_LAW))
    ),
    *spoiled(
        OPERATION,
        ("ignores_beta", f"cold {COLOURED}", Status.WRONG_VALUES, lambda inputs: {"beta": 1.0}),
        ("misses_a_sweep", UNITS_LATTICE, Status.WRONG_VALUES, lambda inputs: {"sweeps": 2}),
        ("counts_each_coupling_half", f"hot {COLOURED}", Status.WRONG_VALUES,
         lambda inputs: {"weights": inputs["weights"] / 2}),
        ("counts_each_coupling_half", "enumeration beta=1.5", Status.WRONG_LAW,
         lambda inputs: {"weights": inputs["weights"] / 2}),
        ("is_too_cold", "enumeration beta=0.5", Status.WRONG_LAW, lambda inputs: {"beta": 1.25 * inputs["beta"]}),
        ("forgets_the_fields", f"spins {COLOURED}", Status.WRONG_VALUES,
         lambda inputs: {"biases": torch.zeros_like(inputs["biases"])}),
        ("unclamps", f"clamped {COLOURED}", Status.WRONG_VALUES,
         lambda inputs: {"clamped": torch.zeros_like(inputs["clamped"])}),
        ("never_draws_the_last_colour", "ergodicity", Status.WRONG_LAW, never_draws_the_last_colour),
        ("repeats_the_first_sweep's_uniforms", "composition", Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
    ),
    *mutants(
        OPERATION,
        ("boltzmann_gibbs.cu", "__syncthreads();  // all of a colour", "// all of a colour", UNITS_LATTICE),
        ("boltzmann_gibbs.cu", "own_bit), random.word[i]", "own_bit), random.word[0]", COLOURED),
        ("boltzmann_gibbs.cu", "settings.first_step + sweep", "settings.first_step", UNITS_LATTICE),
        ("boltzmann_gibbs.cu", "settings.first_chain + chain", "chain", COLOURED),
        ("boltzmann_gibbs.cu", "add_link(odd, state, b.z, b.w, own_bit);", "", UNITS_LATTICE),
        ("boltzmann_gibbs.cu", "held[order[unit] *", "held[unit *", f"clamped {COLOURED}"),
        ("boltzmann_gibbs.cu", "mine ? betas[chain]", "mine ? betas[0]", f"betas clamped {COLOURED}"),
        ("boltzmann_gibbs.cu", "__syncthreads();  // all parts", "// all parts", ALL_COUPLED),
        ("boltzmann_gibbs.cu", "part < WARPS; ++part", "part < WARPS - 1; ++part", ALL_COUPLED),
        ("boltzmann_gibbs.cu", "warp & 2 ? upper : lower", "lower", ALL_COUPLED),
        ("triton_kernels.py", "begin // UNITS * UNITS", "begin", COLOURED),
        ("triton_kernels.py", "at % 4 >= 2", "at % 4 >= 3", ALL_COUPLED),
        ("triton_kernels.py", "first_step + sweep", "first_step", UNITS_LATTICE),
        ("triton_kernels.py", "tl.where(held != 0, ", "tl.where(held != held, ", f"clamped {COLOURED}"),
        ("boltzmann_gibbs.cpp", "u[k][i], own)", "u[k][0], own)", COLOURED),
        ("boltzmann_gibbs.cpp", "settings.first_chain + chain", "chain", COLOURED),
        ("boltzmann_gibbs.cpp", "settings.order[unit] * settings", "unit * settings", f"clamped {COLOURED}"),
        ("boltzmann_gibbs.cpp", "at < 2 * i64(settings.first[unit + 1])", "at + 2 < 2 * i64(settings.first[unit + 1])",
         COLOURED),
        ("boltzmann_gibbs.cpp", "std::memset(subsets.at(i) + group, 0, own_groups);", "", ALL_COUPLED_TO_MANY),
        ("boltzmann_gibbs.cpp", "own[i][unit / BITS] >>", "own[0][unit / BITS] >>", ALL_COUPLED_TO_MANY),
    ),
)  # fmt: skip
