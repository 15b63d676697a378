"""Annealed spin glasses: packed walkers, the same spins on every backend, exact energies, invalid arguments."""

import math

import pytest
import torch
from boltzbench.kernels import schedules
from boltzbench.kernels.ising import SpinMachine
from boltzbench.kernels.spin_glass import (
    RULES,
    anneal_spins,
    cuda_kernels,
    energies,
    lattice_glass,
    pack_walkers,
    prepare_glass,
    prepare_schedule,
    random_walkers,
    unpack_walkers,
)
from boltzbench.kernels.spin_glass import bonds as bonds_module
from boltzbench.kernels.spin_glass.bonds import thresholds
from boltzbench.kernels.spin_glass.links import factors, rates_of
from boltzbench.plugins.exact import glass as exact
from boltzbench.plugins.operations.spins import spin_glass as plugin
from support.devices import BACKENDS, DEVICE

COOLING = schedules.geometric(2, 3.0, 0.5)


CPU = torch.device("cpu")


def generator():
    return torch.Generator().manual_seed(0)


def graph(n, strength):
    upper = torch.randint(-strength, strength + 1, (n, n), generator=generator()).to(DEVICE).double().triu(1)
    return upper + upper.t()


def test_packing_is_undone_by_unpacking_and_bits_are_in_the_documented_places():
    spins = 2 * torch.randint(0, 2, (96, 5), generator=generator()).to(DEVICE) - 1
    assert torch.equal(unpack_walkers(pack_walkers(spins)), spins.to(torch.int8))
    one = torch.full((64, 3), -1, device=DEVICE)
    one[33, 2] = 1
    assert pack_walkers(one).tolist() == [[0, 0], [0, 0], [0, 2]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("couplings", [graph(5, 1), graph(5, 3), torch.tensor([[0, 3], [3, 0]], device=DEVICE)])
@pytest.mark.parametrize("rule", RULES)
def test_every_backend_gives_the_same_spins(backend, couplings, rule):
    spins = random_walkers(len(couplings), 160, generator(), CPU).to(DEVICE)
    numbers = {"rule": rule, "seed": 2**64 - 1, "first_sweep": 2**32 - 2, "first_walker": 64}
    found = anneal_spins(spins, prepare_glass(couplings), prepare_schedule(COOLING), backend=backend, **numbers)
    wanted = anneal_spins(spins, couplings, COOLING, backend="torch", **numbers)
    assert torch.equal(found.spins, wanted.spins)
    machine = SpinMachine(
        couplings.double(), torch.zeros(len(couplings), device=DEVICE).double(), torch.zeros((), device=DEVICE)
    )
    assert torch.equal(found.energies.double(), machine.energy(unpack_walkers(found.spins)))
    assert found.best == found.energies.min()


@pytest.mark.parametrize("backend", BACKENDS)
def test_cold_sweeps_never_raise_the_energy_and_metropolis_always_flips_free_spins(backend):
    couplings = lattice_glass(2, 3, generator())
    spins = random_walkers(6, 64, generator(), CPU).to(DEVICE)
    for rule in RULES:
        cold = anneal_spins(spins, couplings, schedules.constant(1, 1e-9), rule=rule, seed=1, backend=backend)
        assert bool((cold.energies <= energies(spins, couplings)).all())
    free = anneal_spins(
        spins, torch.zeros(6, 6, device=DEVICE), schedules.constant(1, 1.0), rule="metropolis", seed=1, backend=backend
    )
    assert torch.equal(unpack_walkers(free.spins), -unpack_walkers(spins))


def test_a_flip_of_probability_below_2_to_the_minus_33_never_happens():
    """The limit up to which the heat bath connects all states."""
    least = 33 * math.log(2) + torch.tensor([-0.01, 0.01], dtype=torch.float64)
    assert thresholds(8 / least, "heat_bath")[:, 0, 2].tolist() == [1, 0]  # dE = 8
    couplings, up = lattice_glass(3, 4, generator()).abs(), pack_walkers(torch.ones(64, 12))
    for temperature, stays in ((8 / 23, True), (2.0, False)):
        found = anneal_spins(up, couplings, schedules.constant(20, temperature), seed=1)
        assert torch.equal(found.spins, up) == stays


@pytest.mark.parametrize("backend", BACKENDS)
def test_thresholds_of_strong_bonds_reach_the_last_class(backend):
    """31 and 30 bonds of a spin, at a temperature where their flips are neither certain nor impossible."""
    for bonds in (30, 31):
        couplings = torch.tensor([[0, bonds], [bonds, 0]], device=DEVICE)
        spins = random_walkers(2, 4096, generator(), CPU).to(DEVICE)
        for rule in RULES:
            schedule = schedules.constant(1, 60.0)
            found = anneal_spins(spins, couplings, schedule, rule=rule, seed=1, backend=backend).spins
            wanted = anneal_spins(spins, couplings, schedule, rule=rule, seed=1, backend="torch").spins
            assert torch.equal(found, wanted)


@pytest.mark.skipif("cupy" not in BACKENDS, reason="no CUDA C here")
def test_a_ring_in_the_order_of_its_spins_has_the_exact_mean_energy():
    """``-n tanh(1 / T)`` up to ``tanh(1 / T)**n``; by Metropolis, the same walkers never reach it."""
    spins = random_walkers(256, 64, generator(), CPU).to(DEVICE)

    def run(rule):
        found = anneal_spins(
            spins, plugin.ring(256), schedules.constant(300, 1.0), rule=rule, seed=1, backend="cupy"
        ).energies.double()
        return float(found.mean()), float(found.std()) / 8

    mean, error = run("heat_bath")
    assert abs(mean + 256 * math.tanh(1.0)) < 5 * error < 15
    mean, error = run("metropolis")
    assert mean > -150


@pytest.mark.skipif("cupy" not in BACKENDS, reason="no CUDA C here")
def test_cooling_solves_a_ring_in_the_order_of_its_spins():
    spins = random_walkers(64, 320, generator(), CPU).to(DEVICE)
    found = anneal_spins(spins, plugin.ring(64), schedules.geometric(2000, 5.0, 0.1), seed=1, backend="cupy")
    assert float((found.energies == -64).double().mean()) > 0.8


def test_enumeration_and_transfer_matrices_agree():
    couplings = lattice_glass(4, 3, generator())
    each = exact.state_energies(couplings)
    states = exact.spins_of_states(torch.arange(1 << 12), 12)
    assert torch.equal(energies(pack_walkers(states), couplings).double(), each)
    assert torch.equal(exact.states_of(states), torch.arange(1 << 12))
    assert exact.torus_ground_energy(couplings, 4, 3) == float(each.min())
    law = torch.softmax(-each / 1.3, 0)
    assert exact.torus_mean_energy(couplings, 4, 3, 1.3) == pytest.approx(float(law @ each), abs=1e-10)
    for rule in RULES:
        torch.testing.assert_close(exact.after_sweep(law, each, 1.3, rule), law, rtol=0, atol=1e-15)


def test_long_cooling_finds_the_ground_state_of_a_torus():
    couplings = lattice_glass(6, 6, generator())
    backend = BACKENDS[-1] if BACKENDS[-1] != "triton" else "torch"
    spins = random_walkers(36, 256, generator(), CPU).to(DEVICE)
    found = anneal_spins(spins, couplings, schedules.geometric(200, 3.0, 0.2), seed=0, backend=backend)
    assert float(found.best) == exact.torus_ground_energy(couplings, 6, 6)


@pytest.mark.parametrize("strength", [1, 2])
@pytest.mark.parametrize("n", [2, 6, 9])
def test_the_bonds_add_up_to_the_couplings(n, strength):
    couplings = graph(n, strength)
    bonds = prepare_glass(couplings).bonds
    assert bonds.total == couplings.abs().sum() / 2
    rebuilt = torch.zeros(n, n, dtype=torch.float64, device=DEVICE)
    for i, row in enumerate(bonds.pairs.flatten(1).tolist()):
        for bond in row:
            rebuilt[i, bond // 2] += 2 * (bond % 2) - 1 if bond // 2 != i else 0
    assert torch.equal(rebuilt, couplings)


@pytest.mark.parametrize(
    ("couplings", "words"),
    [
        (torch.eye(2, device=DEVICE), "diagonal"),
        (torch.tensor([[0.0, 1.0], [2.0, 0.0]], device=DEVICE), "symmetric"),
        (torch.zeros(2, 3, device=DEVICE), "square"),
        (torch.zeros(0, 0, device=DEVICE), "at least one spin"),
        (torch.tensor([[0.0, torch.inf], [torch.inf, 0.0]], device=DEVICE), "couplings must be finite"),
        (1e308 * (torch.ones(3, 3) - torch.eye(3)).double(), "finite number"),
        (torch.zeros(3, 3, device=DEVICE), "2 spins"),
    ],
)
def test_invalid_couplings_are_rejected(couplings, words):
    with pytest.raises(ValueError, match=words):
        anneal_spins(torch.zeros(2, 1, dtype=torch.int32, device=DEVICE), couplings, COOLING, seed=0)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"spins": torch.zeros(2, 1, device=DEVICE)}, TypeError, "spins must have dtype"),
        ({"spins": torch.zeros(2, dtype=torch.int32, device=DEVICE)}, ValueError, "spins must have shape"),
        ({"temperatures": COOLING[:0]}, ValueError, "temperatures must have one"),
        ({"temperatures": 0 * COOLING}, ValueError, "temperatures must be positive"),
        ({"temperatures": COOLING.float()}, TypeError, "temperatures must have dtype"),
        ({"first_walker": 16}, ValueError, "first_walker must be a multiple of 32"),
        ({"first_sweep": 2**32 - 1}, ValueError, "first_sweep"),
        ({"seed": -1}, ValueError, "seed"),
        ({"out": torch.zeros(2, 2, dtype=torch.int32, device=DEVICE)[:, :1]}, ValueError, "out must be contiguous"),
        ({"energies_out": torch.zeros(32, device=DEVICE)}, TypeError, "energies_out must have dtype"),
        ({"energies_out": torch.zeros(64, device=DEVICE).double()}, ValueError, "energies_out must have shape"),
        ({"fields": torch.zeros(3, device=DEVICE)}, ValueError, "fields must have shape"),
        ({"fields": torch.tensor([0.0, torch.nan], device=DEVICE)}, ValueError, "fields must be finite"),
        ({"fields": torch.zeros(2, dtype=torch.bool, device=DEVICE)}, TypeError, "fields must have dtype"),
        ({"rule": "wolff"}, ValueError, "rule must be one of heat_bath, metropolis"),
        ({"backend": "numpy"}, ValueError, "backend"),
    ],
)
def test_errors_name_the_argument(changed, error, words):
    given = {
        "spins": torch.zeros(2, 1, dtype=torch.int32, device=DEVICE),
        "temperatures": COOLING,
        "seed": 0,
        **changed,
    }
    with pytest.raises(error, match=words):
        anneal_spins(given.pop("spins"), torch.zeros(2, 2, device=DEVICE), given.pop("temperatures"), **given)


def test_walkers_that_fill_no_word_are_rejected():
    with pytest.raises(ValueError, match="multiple of 32"):
        pack_walkers(torch.ones(33, 2, device=DEVICE))
    with pytest.raises(ValueError, match="multiple of 32"):
        random_walkers(2, 33, generator(), CPU)


def real_graph(n):
    upper = torch.randn(n, n, generator=generator()).triu(1)
    return upper + upper.t(), torch.randn(n, generator=generator())


def large_graph(n):
    upper = torch.randint(-(10**8), 10**8, (n, n), generator=generator()).triu(1)
    return upper + upper.t(), None


def star(n):
    couplings = torch.zeros(n, n)
    couplings[0, 1:] = couplings[1:, 0] = 1
    return couplings


LINKS = {
    "real": real_graph(9),
    "doubles": tuple(each.double() / 3 for each in real_graph(6)),
    "large": large_graph(7),
    "fields": (lattice_glass(2, 3, generator()), torch.arange(-2, 4)),
    "one": (torch.zeros(1, 1), torch.ones(1)),
    "many bonds": (star(33), None),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("rule", RULES)
def test_every_backend_gives_the_same_spins_of_a_glass_of_links(backend, name, rule):
    couplings, fields = LINKS[name]
    spins = random_walkers(len(couplings), 96, generator(), CPU)
    glass, heat = prepare_glass(couplings, fields), float(couplings.abs().max()) + 0.5
    assert glass.bonds is None
    numbers = {"rule": rule, "seed": 2**64 - 1, "first_sweep": 2**32 - 2, "first_walker": 2**40}
    found = anneal_spins(spins, glass, prepare_schedule(heat * COOLING), backend=backend, **numbers)
    wanted = anneal_spins(spins, couplings, heat * COOLING, fields=fields, backend="torch", **numbers)
    assert torch.equal(found.spins, wanted.spins)
    assert torch.equal(found.energies, wanted.energies)
    rounding = glass.links.unit * len(couplings) ** 2 if couplings.is_floating_point() else 0.0
    error = (found.energies - energies(found.spins, couplings, fields)).abs().max()
    assert float(error) <= rounding


def test_integers_that_add_up_to_less_than_2_to_the_30_are_exact():
    couplings = torch.tensor([[0, 2**30 - 2, 1], [2**30 - 2, 0, -1], [1, -1, 0]])
    spins = random_walkers(3, 64, generator(), CPU)
    found = anneal_spins(spins, couplings, COOLING, seed=1, backend="torch")
    assert torch.equal(found.energies, energies(found.spins, couplings))
    assert float(found.best) == -(2**30 - 2)


@pytest.mark.parametrize("scale", [1e-280, 1e-12, 1e12, 1e300])
def test_couplings_and_temperatures_may_have_any_scale(scale):
    couplings, fields = (each.double() for each in real_graph(5))
    spins = random_walkers(5, 512, generator(), CPU)
    found = anneal_spins(spins, scale * couplings, scale * COOLING, fields=scale * fields, seed=1, backend="torch")
    wanted = anneal_spins(spins, couplings, COOLING, fields=fields, seed=1, backend="torch")
    assert torch.equal(found.spins, wanted.spins)


def test_probabilities_of_links_are_within_their_documented_error():
    field = torch.cat((torch.arange(2000), torch.randint(0, 2**30, (20000,), generator=generator())))
    for temperature in (1e-300, 1e-5, 0.3, 1.0, 7.7, 1e3, 1e8, 1e300):
        for exponent in (-40, 0, 27):
            rate = rates_of(torch.tensor([temperature], dtype=torch.float64))[0]
            found = factors(field, rate, exponent).double()
            exact = 2.0**32 * torch.exp(-2 * field.double() * 2.0**-exponent / temperature)
            assert bool(((found - exact).abs() <= 2.0**-25 * exact + 1).all())
            assert bool((found < 2.0**32).all())


def test_a_choice_of_kernels_is_by_the_data(monkeypatch):
    assert prepare_glass(lattice_glass(26, 26, generator())).bonds is not None
    with monkeypatch.context() as patch:
        patch.setattr(bonds_module, "MOST_BONDS", 2 * 26 * 26)  # as many as the kernels can count is too many
        assert prepare_glass(lattice_glass(26, 26, generator())).bonds is None
    pair = torch.tensor([[0, 31], [31, 0]])
    assert prepare_glass(pair).bonds is not None
    assert prepare_glass(pair, torch.zeros(2)).bonds is not None
    assert prepare_glass(pair, torch.ones(2)).bonds is None
    assert prepare_glass(pair + pair.sign()).bonds is None
    assert prepare_glass(0.5 * pair).bonds is None


@pytest.mark.skipif("cupy" not in BACKENDS, reason="no CUDA C here")
@pytest.mark.parametrize("glass", [real_graph(9), (graph(9, 1), None), (graph(6, 3), None)])
def test_spins_that_do_not_fit_in_shared_memory_stay_in_device_memory(monkeypatch, glass):
    couplings, fields = glass
    spins = random_walkers(len(couplings), 160, generator(), CPU)
    for rule in RULES:
        wanted = anneal_spins(spins, couplings, COOLING, fields=fields, rule=rule, seed=1, backend="cupy")
        with monkeypatch.context() as patch:
            patch.setattr(cuda_kernels, "BLOCK_BYTES", 35)
            patch.setattr(cuda_kernels, "most_shared_bytes", lambda device: 35)
            found = anneal_spins(spins, couplings, COOLING, fields=fields, rule=rule, seed=1, backend="cupy")
        assert torch.equal(found.spins, wanted.spins)
        assert torch.equal(found.energies, wanted.energies)


@pytest.mark.skipif("cupy" not in BACKENDS, reason="no CUDA C here")
def test_a_glass_of_2000_spins_runs():
    spins, couplings = random_walkers(2000, 32, generator(), CPU), plugin.ring(2000)
    found = anneal_spins(spins, couplings, schedules.constant(30, 1.0), seed=0, backend="cupy")
    assert torch.equal(found.energies, energies(found.spins, couplings))
    assert abs(float(found.energies.mean()) / 2000 + math.tanh(1.0)) < 0.02


def test_what_is_prepared_must_be_current():
    couplings, fields = real_graph(4)
    temperatures = COOLING.clone()
    spins = random_walkers(4, 32, generator(), CPU)
    glass, schedule = prepare_glass(couplings, fields), prepare_schedule(temperatures)
    with pytest.raises(ValueError, match="fields must be given to prepare_glass"):
        anneal_spins(spins, glass, schedule, fields=fields, seed=0)
    with pytest.raises(ValueError, match="couplings must be prepared on cpu, got meta"):
        anneal_spins(spins, prepare_glass(couplings, device=torch.device("meta")), schedule, seed=0)
    temperatures[0] = 2.0
    with pytest.raises(ValueError, match="temperatures are out of date"):
        anneal_spins(spins, glass, schedule, seed=0)
    fields[0] = 2.0
    with pytest.raises(ValueError, match="couplings are out of date"):
        anneal_spins(spins, glass, COOLING, seed=0)


def test_no_walkers_have_no_best_energy():
    found = anneal_spins(torch.zeros(2, 0, dtype=torch.int32), torch.zeros(2, 2), COOLING, seed=0)
    assert found.energies.shape == (0,)
    with pytest.raises(ValueError, match="no walkers"):
        _ = found.best


def test_the_input_is_not_modified_and_may_be_strided():
    couplings = graph(4, 1)
    spins = random_walkers(4, 128, generator(), CPU).to(DEVICE)
    before = spins.clone()
    every_other = anneal_spins(spins[:, ::2], couplings, COOLING, seed=3)
    assert torch.equal(spins, before)
    assert torch.equal(every_other.spins, anneal_spins(spins[:, ::2].contiguous(), couplings, COOLING, seed=3).spins)


def test_the_cost_counts_flips():
    cost = plugin.cost(next(case for case in plugin.CASES if case.sizes["walkers"] == 1 << 22))
    assert (cost.items, cost.bytes_read) == (64 * 20 << 22, 8 << 22)
