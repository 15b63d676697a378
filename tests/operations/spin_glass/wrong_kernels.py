"""Wrong kernels of `spin_glass`: see `support/wrong_kernels.py`."""

from unittest import mock

import torch
from boltzbench.harness import Inputs, Launch, Status, Tensors
from boltzbench.kernels.spin_glass import energies, pack_walkers, prepared, unpack_walkers
from boltzbench.kernels.spin_glass import reference as glass_reference
from boltzbench.kernels.spin_glass.bonds import thresholds
from support.wrong_kernels import WrongKernel, mutants, shipped, spoiled
from torch import Tensor

OPERATION = "spin_glass"

GLASS = "spins=9 walkers=4128 sweeps=1 int32"
DENSE = "dense spins=6 walkers=1056 sweeps=1 int32"
METROPOLIS_DENSE = "metropolis-dense spins=6 walkers=96 sweeps=1 int32"
REAL = "real spins=9 walkers=1056 sweeps=2 int32"
METROPOLIS_REAL = "metropolis-real spins=9 walkers=1056 sweeps=2 int32"
LARGE_COLD = "metropolis-large-cold spins=4 walkers=96 sweeps=1 int32"
FIELDS = "fields spins=4 walkers=64 sweeps=1 int32"
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

    def certain_at_no_cost(temperatures: Tensor, rule: str) -> Tensor:
        table = thresholds(temperatures, rule)
        table[:, 0, 0] = 0  # the first class of an even number of bonds: no spin ends against its field
        return table

    def launch() -> Tensors:
        with mock.patch.object(prepared, "thresholds", certain_at_no_cost):
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
        ("ignores_fields", "enumeration heat_bath real", Status.WRONG_LAW, lambda inputs: {"fields": None}),
        ("takes_fields_for_their_signs", "enumeration metropolis real", Status.WRONG_LAW,
         lambda inputs: {"fields": inputs["fields"].sign()}),
        ("rounds_real_couplings", "enumeration heat_bath real", Status.WRONG_LAW,
         lambda inputs: {"couplings": inputs["couplings"].round()}),
        ("takes_metropolis_for_the_heat_bath_of_links", "ergodicity links", Status.WRONG_LAW,
         lambda inputs: {"rule": "metropolis"}),
        ("reuses_the_numbers_of_walkers", "composition links", Status.WRONG_LAW, lambda inputs: {"first_walker": 0}),
        ("reuses_its_numbers", "composition", Status.WRONG_LAW, lambda inputs: {"first_sweep": 0}),
    ),
    *mutants(
        OPERATION,
        ("spin_glass.cu", "plane[0] ^= a ^ b;", "plane[0] ^= a;", GLASS),
        ("spin_glass.cu", "(start & 1) * BITS", "0", DENSE),
        ("spin_glass.cu", "settings.first_group + group", "group", GLASS),
        ("spin_glass.cu", "part < PARTS && ~decided", "part < 1 && ~decided", GLASS),
        ("spin_glass.cu", "sweep * 2 + odd", "odd", CYCLIC),
        ("spin_glass.cu", "? flips ^ cheap : flips", "? flips : flips", GLASS),
        ("spin_glass.cu", "? flips ^ cheap : flips", "? flips ^ cheap : ~decided", METROPOLIS_DENSE),
        ("spin_glass.cu", "(start & 1) ? 0u : ~cheap", "~cheap", DENSE),
        ("spin_glass.cu", "plane[p] ^ cheap", "plane[p]", GLASS),
        ("spin_glass.cu", "count[p] ^= bit ^ carry", "count[p] ^= bit", GLASS),
        ("spin_glass.cu", "settings.bonds -", "settings.sites -", GLASS),
        ("links.cu", "(fields[i].x + 2 * sum)", "(2 * sum)", REAL),
        ("links.cu", "(i32)fields[i].y", "0", REAL),
        ("links.cu", "238330987u", "138330987u", REAL),
        ("links.cu", "t >> 31 ? 0u : value", "value", LARGE_COLD),
        ("links.cu", "rates[sweep]", "rates[0]", REAL),
        ("links.cu", " + settings.exponent", "", REAL),
        ("links.cu", "settings.first_walker + group", "group", REAL),
        ("links.cu", "~number", "number", REAL),
        ("links.cu", "(field >= 0)", "(field > 0)", FIELDS),
        ("links.cu", "(was ? field : -field)", "field", METROPOLIS_REAL),
        ("links.cu", "sum += b.w", "sum += b.y", REAL),
        ("spin_glass.cpp", "plane[0] ^= a ^ b;", "plane[0] ^= a;", GLASS),
        ("spin_glass.cpp", "carry = odd ? W{} : ~cheap", "carry = ~cheap", DENSE),
        ("spin_glass.cpp", "lane % WORDS) * u64(sites)", "lane % WORDS) * u64(1)", GLASS),
        ("spin_glass.cpp", "double(bonds.total - satisfied)", "double(satisfied)", GLASS),
        ("spin_glass.cpp", "(even >> 32) | (odd &", "(even >> 33) | (odd &", REAL),
        ("spin_glass.cpp", "links.rates[2 * sweep + 1]", "links.rates[1]", REAL),
        ("spin_glass.cpp", "was ? f : -f", "f", METROPOLIS_REAL),
        ("triton_links.py", "tl.load(fields + 2 * i) + 2", "2", REAL),
        ("triton_links.py", "number ^ 0xFFFFFFFF", "number", REAL),
        ("triton_links.py", "(i & 2) == 2", "(i & 2) == 0", REAL),
        ("triton_links.py", "rates + 2 * sweep + 1", "rates + 1", REAL),
        ("triton_links.py", "tl.where(was, field, -field)", "field", METROPOLIS_REAL),
        ("triton_links.py", "both, -both", "both, both", REAL),
        ("triton_kernels.py", "planes[0] & word", "word", GLASS),
        ("triton_kernels.py", "_mask(bond & 1)", "_mask(bond & 0)", GLASS),
        ("triton_kernels.py", "31 - 4 * part - j", "31 - j", GLASS),
        ("triton_kernels.py", "(start & 1)) * _MOST", "0) * _MOST", DENSE),
        ("triton_kernels.py", "p0 ^ cheap", "p0", GLASS),
        ("triton_kernels.py", "flips = flips ^ cheap", "flips = flips", GLASS),
        ("triton_kernels.py", "(start & 1) ^ 1", "(start & 1) | 1", DENSE),
    ),
)  # fmt: skip
