"""Wrong kernels of `spin_glass`: see `support/wrong_kernels.py`."""

from unittest import mock

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from boltzbench.kernels import spin_glass
from boltzbench.kernels.spin_glass import energies, pack_walkers, unpack_walkers
from boltzbench.kernels.spin_glass import reference as glass_reference
from boltzbench.kernels.spin_glass.bonds import thresholds
from support.wrong_kernels import WrongKernel, mutants, shipped, spoiled
from torch import Tensor

OPERATION = "spin_glass"

GLASS = "spins=9 walkers=4128 sweeps=1 int32"
DENSE = "dense spins=6 walkers=1056 sweeps=1 int32"
METROPOLIS_DENSE = "metropolis-dense spins=6 walkers=96 sweeps=1 int32"
CYCLIC = "cyclic spins=3 walkers=96 sweeps=4 int32"


def updates_all_spins_at_once(inputs: Inputs, outputs: Tensors) -> Launch:
    def launch() -> Tensors:
        spins, couplings = unpack_walkers(inputs["spins"]).double(), inputs["couplings"].double()
        groups = torch.arange(inputs["spins"].shape[1])
        for sweep, temperature in enumerate(inputs["temperatures"]):
            number = glass_reference.draw_numbers(groups, spins.shape[1], inputs["seed"], sweep)
            change = 2 * spins * (spins @ couplings)
            spins = torch.where(number < 2.0**32 * torch.sigmoid(-change / temperature), -spins, spins)
        outputs["annealed"].copy_(pack_walkers(spins))
        outputs["energies"].copy_(energies(outputs["annealed"], couplings))
        return outputs

    return launch


def always_flips_where_it_costs_nothing(inputs: Inputs, outputs: Tensors) -> Launch:
    """Leaves the distribution invariant, as flips with dE = 0 have the same probability both ways: 1 instead of 1/2."""

    def certain_at_no_cost(temperatures: Tensor, size: int, rule: str) -> Tensor:
        table = thresholds(temperatures, size, rule)
        table[:, 0, 0] = 0  # the first class of an even number of bonds: no spin ends against its field
        return table

    def launch() -> Tensors:
        with mock.patch.object(spin_glass, "thresholds", certain_at_no_cost):
            return shipped(OPERATION)(inputs, outputs)()

    return launch


WRONG_KERNELS = (
    WrongKernel(
        "always_flips_where_it_costs_nothing", OPERATION, "ergodicity", Status.WRONG_LAW,
        always_flips_where_it_costs_nothing,
    ),
    WrongKernel(
        "updates_all_spins_at_once", OPERATION, "schedule heat_bath", Status.WRONG_LAW, updates_all_spins_at_once
    ),
    *spoiled(
        OPERATION,
        ("stays_at_the_first_temperature", CYCLIC, Status.WRONG_VALUES,
         lambda inputs: {"temperatures": inputs["temperatures"][:1].expand(4)}),
        ("takes_all_couplings_for_positive", "schedule heat_bath", Status.WRONG_LAW,
         lambda inputs: {"couplings": inputs["couplings"].abs()}),
        ("takes_all_couplings_for_one", "enumeration metropolis", Status.WRONG_LAW,
         lambda inputs: {"couplings": inputs["couplings"].sign()}),
        ("cools_too_fast", "schedule metropolis", Status.WRONG_LAW,
         lambda inputs: {"temperatures": 0.7 * inputs["temperatures"]}),
        ("takes_metropolis_for_the_heat_bath", "ergodicity", Status.WRONG_LAW, lambda inputs: {"rule": "metropolis"}),
        ("reuses_its_numbers", "composition", Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
    ),
    *mutants(
        OPERATION,
        ("spin_glass.cu", "plane[0] ^= a ^ b;", "plane[0] ^= a;", GLASS),
        ("spin_glass.cu", "(start & 1) * BITS", "0", DENSE),
        ("spin_glass.cu", "settings.first_group + group", "group", GLASS),
        ("spin_glass.cu", "part < PARTS && open", "part < 1 && open", GLASS),
        ("spin_glass.cu", "sweep * 2 + odd", "odd", CYCLIC),
        ("spin_glass.cu", "? flips ^ cheap : flips", "? flips : flips", GLASS),
        ("spin_glass.cu", "? flips ^ cheap : flips", "? flips ^ cheap : open", METROPOLIS_DENSE),
        ("spin_glass.cu", "(start & 1) ? 0u : ~cheap", "~cheap", DENSE),
        ("spin_glass.cu", "plane[p] ^ cheap", "plane[p]", GLASS),
        ("triton_kernels.py", "_mask(bond & 1)", "_mask(bond & 0)", GLASS),
        ("triton_kernels.py", "31 - 4 * part - j", "31 - j", GLASS),
        ("triton_kernels.py", "(start & 1)) * CLASSES", "0) * CLASSES", DENSE),
        ("triton_kernels.py", "p0 ^ cheap", "p0", GLASS),
        ("triton_kernels.py", "flips = flips ^ cheap", "flips = flips", GLASS),
        ("triton_kernels.py", "(start & 1) ^ 1", "(start & 1) | 1", DENSE),
    ),
)  # fmt: skip
