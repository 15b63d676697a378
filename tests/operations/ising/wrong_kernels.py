"""Wrong kernels of `ising`: see `support/wrong_kernels.py`."""

from dataclasses import replace
from unittest import mock

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from boltzbench.kernels import ising
from boltzbench.kernels.ising import reference as ising_reference
from boltzbench.kernels.ising.acceptance import thresholds
from boltzbench.kernels.ising.request import LaunchRequest
from support.wrong_kernels import WrongKernel, mutants, shipped, spoiled
from torch import Tensor

OPERATION = "ising"

ISING = "lattices=5 height=6 width=70 sweeps=1 int32"
TINY = "lattices=70 height=4 width=4 sweeps=3 int32"
HOT = "metropolis-beta-zero lattices=3 height=4 width=130 sweeps=1 int32"
LARGE_LATTICE = "lattices=2 height=64 width=128 sweeps=1 int32"
METROPOLIS, TINY_METROPOLIS = f"metropolis {ISING}", f"metropolis {TINY}"
ANTIFERROMAGNET = "metropolis-antiferromagnet lattices=3 height=10 width=66 sweeps=1 int32"
FIELD = "field lattices=3 height=4 width=130 sweeps=1 int32"


def shares_bits_between_lattices(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        for lattice in range(len(inputs["spins"])):
            one = {name: inputs[name][lattice : lattice + 1] for name in ("spins", "beta")}
            part = {"advanced": outputs["advanced"][lattice : lattice + 1]}
            shipped(OPERATION)({**inputs, **one}, part)()
        return outputs

    return launch


def updates_both_colours_at_once(inputs: Inputs, outputs: Tensors) -> Launch:
    honest = ising_reference.half_sweep
    before: list[Tensor] = []

    def blind_half_sweep(half: LaunchRequest) -> None:
        """Of the odd sites, which come second, as if the even ones were what they were before the sweep."""
        if half.colour == 0:
            before.append(half.around.clone())
            honest(half)
        else:
            honest(replace(half, around=before.pop()))

    def launch() -> Tensors:
        with mock.patch.object(ising_reference, "half_sweep", blind_half_sweep):
            return shipped(OPERATION)(inputs, outputs)()

    return launch


def always_flips_where_it_costs_nothing(inputs: Inputs, outputs: Tensors) -> Launch:
    """Leaves the distribution invariant, as flips with dE = 0 have the same probability both ways: 1 instead of 1/2."""

    def certain_at_no_cost(beta: Tensor, coupling: float, field: float, rule: str) -> Tensor:
        table = thresholds(beta, coupling, field, rule)
        table[:, 0] = 0  # the class of dE = 0: the spins that flip unless their number is less
        return table

    def launch() -> Tensors:
        with mock.patch.object(ising, "thresholds", certain_at_no_cost):
            return shipped(OPERATION)(inputs, outputs)()

    return launch


WRONG_KERNELS = (
    WrongKernel(
        "always_flips_where_it_costs_nothing", OPERATION, "ergodicity", Status.WRONG_LAW,
        always_flips_where_it_costs_nothing,
    ),
    WrongKernel(
        "shares_bits_between_lattices", OPERATION, ISING, Status.WRONG_VALUES, shares_bits_between_lattices
    ),
    *(
        WrongKernel("updates_both_colours_at_once", OPERATION, caught_by, status, updates_both_colours_at_once)
        for caught_by, status in ((TINY, Status.WRONG_VALUES), ("enumeration heat_bath", Status.WRONG_LAW))
    ),
    *spoiled(
        OPERATION,
        ("ignores_beta", ISING, Status.WRONG_VALUES, lambda inputs: {"beta": torch.ones_like(inputs["beta"])}),
        ("is_too_cold", "enumeration metropolis", Status.WRONG_LAW, lambda inputs: {"beta": 1.25 * inputs["beta"]}),
        ("is_too_cold", "Kaufman heat_bath", Status.WRONG_LAW, lambda inputs: {"beta": 1.25 * inputs["beta"]}),
        ("ignores_the_field", "enumeration metropolis field", Status.WRONG_LAW, lambda inputs: {"field": 0.0}),
        ("takes_the_heat_bath_for_metropolis", METROPOLIS, Status.WRONG_VALUES, lambda inputs: {"rule": "heat_bath"}),
        ("takes_metropolis_for_the_heat_bath", "ergodicity", Status.WRONG_LAW, lambda inputs: {"rule": "metropolis"}),
        ("repeats_the_first_sweep's_bits", "composition", Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
    ),
    *mutants(
        OPERATION,
        ("ising.cu", "flips = present;", "flips = 0;", TINY_METROPOLIS),
        ("ising.cu", "column.first + settings.last_row", "column.first", TINY),
        ("ising.cu", "mask = masks.of[part][k]", "mask = masks.of[0][k]", LARGE_LATTICE),
        ("ising.cu", "part < PARTS && ~decided", "part < 2 && ~decided", LARGE_LATTICE),
        ("ising.cu", "masks.certain[0] | ~present", "~present", HOT),
        ("ising.cu", "settings.first_word + lattice * cells", "lattice * cells", ISING),
        ("ising.cu", "settings.step + sweep", "settings.step", TINY),
        ("ising.cu", "chosen(own, mask_if_up.bit[i], mask.bit[i])", "mask.bit[i]", FIELD),
        ("ising.cu", "own ^ unsatisfied;", "CLASSES == 2 ? ~own : own ^ unsatisfied;", ANTIFERROMAGNET),
        ("ising.cu", "kept ^ (flips", "own ^ (flips", ISING),
        ("ising.cu", "kind[0] = tie, kind[1] = ones", "kind[0] = ones, kind[1] = tie", ISING),
        ("ising.cu", "- 1 ? bit :", "- 1 ? 0u :", ISING),
        ("ising.cu", "own ^ first.word[0]", "first.word[0]", ISING),
        ("triton_kernels.py", "last_bits - 1, 31)", "31, 31)", ISING),
        ("triton_kernels.py", "(count[0] | count[1] | count[2])", "(count[0] | count[1])", ISING),
        ("triton_kernels.py", "31 - 4 * part - PLACE", "31 - PLACE", LARGE_LATTICE),
        ("triton_kernels.py", "bit_mask((part == 0)", "bit_mask((part == 1)", ISING),
        ("triton_kernels.py", "EVEN_SITES + colour", "EVEN_SITES", ISING),
        ("ising.cpp", "if (CLASSES == 2) flips |= ~known;", "", TINY_METROPOLIS),
        ("ising.cpp", "here[0] << (last_bits - 1)", "here[0] << 31", ISING),
        ("ising.cpp", "first_row + row + height)", "first_row + row + (first_row + row < 0))", TINY),
        ("ising.cpp", "masks.of[4 * part + i]", "masks.of[i]", LARGE_LATTICE),
        ("ising.cpp", "settings.first_word + lattice * size", "lattice * size", ISING),
        ("machines/spins.hpp", "| (less & same);", "| less;", ISING),
    ),
)  # fmt: skip
