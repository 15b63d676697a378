"""Boltzmann machines: colours, lists of links, the same draws for units and spins, wrong arguments."""

import itertools
import math
from unittest import mock

import pytest
import torch
from boltzbench.kernels.boltzmann_gibbs import (
    boltzmann_gibbs,
    cuda_kernels,
    draw_uniforms,
    native_kernels,
    prepare_spins,
    prepare_units,
)
from boltzbench.kernels.boltzmann_gibbs.prepared import colour_units
from boltzbench.kernels.ising import SpinMachine, lattice_couplings, units_of
from boltzbench.plugins.operations.machines import boltzmann_gibbs as plugin
from support.devices import DEVICE, backends_of
from support.threads import threads

BACKENDS = backends_of("boltzmann_gibbs")


def random_machine(units, density, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(units, units, generator=generator).to(DEVICE) < density
    couplings = (torch.randn(units, units, generator=generator).to(DEVICE) * present).triu(1).to(dtype)
    return couplings + couplings.t(), torch.randn(units, generator=generator).to(DEVICE).to(dtype)


def random_spins(*shape, seed=0):
    return (
        2 * torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8).to(DEVICE) - 1
    )


# ---- colours and lists


@pytest.mark.parametrize(("units", "density"), [(0, 0.0), (1, 0.0), (9, 0.0), (9, 1.0), (40, 0.1), (40, 0.5)])
def test_coupled_units_have_different_colours(units, density):
    weights, biases = random_machine(units, density)
    machine = prepare_units(weights, biases)
    ends = machine.colours.tolist()
    assert [b - a for a, b in itertools.pairwise(ends)] == list(machine.sizes)
    assert sum(machine.sizes) == units
    for units_of_colour in machine.order.split(machine.sizes):
        assert not weights[units_of_colour][:, units_of_colour].any()
        assert units_of_colour.tolist() == sorted(units_of_colour.tolist())
    assert torch.equal(machine.order[machine.rank], torch.arange(units, device=DEVICE))


def test_numbers_of_colours():
    def ring(n):
        return torch.eye(n, device=DEVICE).roll(1, 0).bool() | torch.eye(n, device=DEVICE).roll(-1, 0).bool()

    for bonds, colours in (
        (ring(8), 2),
        (ring(7), 3),
        (~torch.eye(6, device=DEVICE).bool(), 6),
        (torch.zeros(5, 5, device=DEVICE).bool(), 1),
    ):
        assert int(colour_units(bonds).max()) + 1 == colours


@pytest.mark.parametrize("shape", [(2, 2), (2, 6), (4, 6), (8, 8)])
def test_a_lattice_is_coloured_as_a_checkerboard(shape):
    colour = colour_units(lattice_couplings(*shape) != 0).view(shape)
    row, column = torch.meshgrid(*map(torch.arange, shape), indexing="ij")
    assert torch.equal(colour, (row + column) % 2)


@pytest.mark.parametrize("density", [0.0, 0.2, 1.0])
def test_lists_hold_each_coupling_once(density):
    weights, biases = random_machine(23, density)
    machine = prepare_units(weights, biases)
    found = torch.zeros(23, 23, device=DEVICE)
    first = (2 * machine.first).tolist()
    assert all(begin % 4 == 0 for begin in first)
    for unit in range(23):
        for place, bits in machine.links[first[unit] : first[unit + 1]]:
            found[unit, place // 4] += bits.view(torch.float32)
    expected = weights.float()[machine.order][:, machine.order]
    assert torch.equal(found, expected)
    assert torch.equal(machine.weights[:, :23], expected)
    assert not machine.weights[:, 23:].any()
    assert torch.equal(machine.biases, biases.float()[machine.order])


# ---- both forms


def direct_spins(spins, couplings, fields, machine, sweeps, beta, seed):
    """Draw each spin in turn from ``P(s_i = 1) = 1 / (1 + exp(-2 beta (h_i + sum_j J_ij s_j)))``, in float64.

    Also returns the least distance of a random number from its probability.
    """
    s, nearest = spins.double(), 1.0
    for step in range(sweeps):
        u = draw_uniforms(spins.shape, seed, step, 0, DEVICE).double()
        for rank, unit in enumerate(machine.order.tolist()):
            p = torch.sigmoid(2 * beta * (fields[unit] + s @ couplings[unit]))
            s[:, unit] = torch.where(u[:, rank] < p, 1.0, -1.0)
            nearest = min(nearest, float((u[:, rank] - p).abs().min()))
    return s.to(torch.int8), nearest


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("couplings", "fields"),
    [
        random_machine(11, 0.4, seed=1),
        random_machine(13, 1.0, seed=2),
        (lattice_couplings(4, 6, 0.4).to(DEVICE), torch.full((24,), 0.1, dtype=torch.float64, device=DEVICE)),
    ],
    ids=["sparse", "dense", "lattice"],
)
def test_units_and_spins_draw_the_same(backend, couplings, fields):
    spins, beta, seed = random_spins(50, len(fields)), 0.8, 2**64 - 1
    of_units = units_of(couplings, fields)
    in_spins = prepare_spins(couplings, fields)
    by_spins = boltzmann_gibbs(spins, in_spins, 2, beta, seed=seed, backend=backend)
    units = ((spins + 1) // 2).to(torch.uint8)
    by_units = boltzmann_gibbs(
        units, prepare_units(of_units.weights, of_units.biases), 2, beta, seed=seed, backend=backend
    )
    assert by_spins.dtype is torch.int8
    assert torch.equal(by_spins, 2 * by_units.to(torch.int8) - 1)
    direct, nearest = direct_spins(spins, couplings, fields, in_spins, 2, beta, seed)
    assert nearest > 1e-5  # far from ties that float32 could decide differently
    assert torch.equal(by_spins, direct)
    energy = SpinMachine(couplings, fields, torch.zeros((), device=DEVICE)).energy(by_spins)
    torch.testing.assert_close(of_units.energy(by_units) + of_units.constant, energy, rtol=0, atol=1e-12)


# ---- draws


@pytest.mark.parametrize("backend", BACKENDS)
def test_certain_units_and_fair_coins_at_beta_zero(backend):
    weights, biases = random_machine(6, 0.5, dtype=torch.float32)
    biases[0], biases[1] = 80.0, -80.0
    states = torch.zeros(4000, 6, dtype=torch.uint8, device=DEVICE)
    machine = prepare_units(weights, biases)
    x = boltzmann_gibbs(states, machine, seed=1, backend=backend)
    assert bool(x[:, 0].all())
    assert not bool(x[:, 1].any())
    fair = boltzmann_gibbs(states, machine, 1, 0.0, seed=1, backend=backend).double().mean(0)
    assert bool((fair - 0.5).abs().max() < 5 * 0.5 / math.sqrt(4000))


def test_strided_states_are_read_and_not_modified():
    machine = prepare_units(*random_machine(12, 0.3))
    states = (random_spins(12, 9).t() > 0).to(torch.uint8)
    before = states.clone()
    for backend in ("torch", "cupy"):
        result = boltzmann_gibbs(states, machine, 2, seed=3, backend=backend)
        assert torch.equal(states, before)
        assert torch.equal(result, boltzmann_gibbs(states.contiguous(), machine, 2, seed=3, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("chains", "units"), [(0, 5), (3, 0)])
def test_empty_batches_and_machines(backend, chains, units):
    machine = prepare_units(*random_machine(units, 0.5))
    states = torch.zeros(chains, units, dtype=torch.uint8, device=DEVICE)
    assert boltzmann_gibbs(states, machine, seed=0, backend=backend).shape == (chains, units)


def test_warps_share_units_for_small_colours_and_long_lists():
    assert cuda_kernels.shares_units(prepare_units(*random_machine(40, 1.0)))
    assert not cuda_kernels.shares_units(prepare_units(*random_machine(20, 1.0)))
    assert not cuda_kernels.shares_units(
        prepare_units(lattice_couplings(8, 8).to(DEVICE), torch.zeros(64, dtype=torch.float64, device=DEVICE))
    )


@pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
@pytest.mark.parametrize(("units", "density", "many"), [(70, 0.1, False), (70, 0.1, True), (41, 1.0, True)])
def test_native_states_do_not_depend_on_threads_or_batches(monkeypatch, units, density, many):
    monkeypatch.setattr(native_kernels, "has_many_bonds", lambda machine: many)
    machine, chains = prepare_units(*random_machine(units, density)), 300
    states = (random_spins(chains, units) > 0).to(torch.uint8)
    beta, clamped = torch.linspace(0.2, 2, chains), random_spins(units, chains, seed=1).t() > 0

    def advanced(backend, first=0, end=chains):
        return boltzmann_gibbs(
            states[first:end], machine, 2, beta[first:end], seed=1, first_sweep=2**32 - 2, first_chain=2**33 + first,
            clamped=clamped[first:end], backend=backend,
        )  # fmt: skip

    whole = advanced("native")
    assert torch.equal(whole, advanced("torch"))
    for number in (1, 3):
        with threads(number):
            assert torch.equal(whole, advanced("native"))
    parts = ((0, 1), (1, 4), (4, 37), (37, chains))
    assert torch.equal(whole, torch.cat([advanced("native", *part) for part in parts]))


# ---- arguments


@pytest.mark.parametrize(
    ("matrix", "vector", "error", "words"),
    [
        (torch.eye(2, device=DEVICE), torch.zeros(2, device=DEVICE), ValueError, "{matrix} must be 0 on the diagonal"),
        (
            torch.tensor([[0.0, 1.0], [0.5, 0.0]], device=DEVICE),
            torch.zeros(2, device=DEVICE),
            ValueError,
            "{matrix} must be symmetric",
        ),
        (
            torch.full((2, 2), math.nan, device=DEVICE),
            torch.zeros(2, device=DEVICE),
            ValueError,
            "{matrix} must be finite",
        ),
        (
            torch.zeros(2, 2, device=DEVICE),
            torch.tensor([0.0, math.inf], device=DEVICE),
            ValueError,
            "{vector} must be finite",
        ),
        (torch.zeros(2, 3, device=DEVICE), torch.zeros(2, device=DEVICE), ValueError, "{matrix} must be a square"),
        (torch.zeros(2, 2, device=DEVICE), torch.zeros(3, device=DEVICE), ValueError, "{vector} must have shape"),
        (
            torch.zeros(2, 2, dtype=torch.float16, device=DEVICE),
            torch.zeros(2, device=DEVICE),
            TypeError,
            "{matrix} must have dtype",
        ),
        (
            torch.zeros(2, 2, device=DEVICE),
            torch.zeros(2, device=DEVICE).double(),
            TypeError,
            "{vector} must have dtype",
        ),
        (
            torch.zeros(2, 2, device=DEVICE).double(),
            torch.full((2,), 1e300, dtype=torch.float64, device=DEVICE),
            ValueError,
            "range of float32",
        ),
    ],
)
def test_errors_of_prepare_units_and_prepare_spins(matrix, vector, error, words):
    for prepare, names in ((prepare_units, ("weights", "biases")), (prepare_spins, ("couplings", "fields"))):
        with pytest.raises(error, match=words.format(matrix=names[0], vector=names[1])):
            prepare(matrix, vector)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"machine": torch.zeros(4, 4, device=DEVICE)}, TypeError, "machine must come from"),
        ({"states": torch.zeros(3, 5, dtype=torch.uint8, device=DEVICE)}, ValueError, "states must have shape"),
        ({"states": torch.zeros(3, 4, dtype=torch.int8, device=DEVICE)}, TypeError, "states must have dtype uint8"),
        (
            {"states": torch.full((3, 4), 2, dtype=torch.uint8, device=DEVICE)},
            ValueError,
            "states must hold only 0 and 1",
        ),
        ({"sweeps": 0}, ValueError, "sweeps"),
        ({"beta": -1.0}, ValueError, "beta"),
        ({"beta": math.inf}, ValueError, "beta"),
        ({"beta": torch.ones(4, device=DEVICE)}, ValueError, "beta must be a number"),
        ({"beta": torch.full((3,), math.nan, device=DEVICE)}, ValueError, "beta must be finite"),
        ({"seed": -1}, ValueError, "seed"),
        ({"first_sweep": 2**32}, ValueError, "first_sweep"),
        ({"first_chain": -1}, ValueError, "first_chain"),
        ({"clamped": torch.zeros(3, dtype=torch.bool, device=DEVICE)}, ValueError, "clamped must have shape"),
        ({"out": torch.zeros(3, 8, dtype=torch.uint8, device=DEVICE)[:, ::2]}, ValueError, "out must be contiguous"),
        ({"backend": "fast"}, ValueError, "backend"),
    ],
)
def test_errors_name_the_wrong_argument(changed, error, words):
    machine = prepare_units(*random_machine(4, 0.5))
    given = {"states": torch.zeros(3, 4, dtype=torch.uint8, device=DEVICE), "machine": machine, "seed": 0, **changed}
    with pytest.raises(error, match=words):
        boltzmann_gibbs(given.pop("states"), given.pop("machine"), **given)


def test_wrong_spins_raise():
    with pytest.raises(ValueError, match="states must hold only -1 and 1"):
        boltzmann_gibbs(
            torch.zeros(2, 4, dtype=torch.int8, device=DEVICE), prepare_spins(*random_machine(4, 0.5)), seed=0
        )


def test_a_machine_out_of_date_raises():
    weights, biases = random_machine(4, 0.5)
    machine = prepare_units(weights, biases)
    biases += 1
    with pytest.raises(ValueError, match="prepare it again"):
        boltzmann_gibbs(torch.zeros(3, 4, dtype=torch.uint8, device=DEVICE), machine, seed=0)


def test_a_machine_too_large_for_shared_memory_raises():
    machine = prepare_units(*random_machine(9, 0.5))
    with (
        mock.patch.object(cuda_kernels, "MOST_SHARED_BYTES", cuda_kernels.PARTS_BYTES + 32),
        pytest.raises(ValueError, match="machine must have at most 8 units for backend cupy"),
    ):
        boltzmann_gibbs(torch.zeros(3, 9, dtype=torch.uint8, device=DEVICE), machine, seed=0, backend="cupy")


def test_the_example_of_the_laws_has_odd_cycles():
    machine = prepare_units(*plugin.example(plugin.UNITS))
    assert len(machine.sizes) > 2
