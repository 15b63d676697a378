"""The Ising model: packed spins, the same sweeps on every backend, Kaufman's solution, the map to units and back."""

import math

import pytest
import torch
from boltzbench.kernels.ising import (
    RULES,
    energy,
    ising_sweeps,
    lattice_couplings,
    pack_spins,
    spins_of,
    units_of,
    unpack_spins,
)
from boltzbench.kernels.ising.acceptance import CERTAIN, thresholds
from boltzbench.kernels.machines import packed_spins
from boltzbench.plugins.exact.ising import CRITICAL_BETA, all_states, energy_law, kaufman
from boltzbench.plugins.operations.spins import ising as plugin
from support.devices import BACKENDS, DEVICE


def random_spins(*shape, seed=0):
    return (
        2 * torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8).to(DEVICE) - 1
    )


@pytest.mark.parametrize("shape", [(3, 2, 2), (2, 4, 64), (2, 6, 66), (1, 10, 130), (0, 4, 4)])
def test_packing_is_undone_by_unpacking(shape):
    spins = random_spins(*shape)
    words = pack_spins(spins)
    assert words.shape == (shape[0], 2, shape[1], -(-shape[2] // 64))
    assert torch.equal(unpack_spins(words, shape[2]), spins)


def test_bits_are_in_the_documented_places():
    spins = torch.full((1, 4, 70), -1, device=DEVICE)
    spins[0, 3, 66] = 1  # 3 + 66 is odd; the site is number 33 of its colour in its row
    words = pack_spins(spins)
    assert words.nonzero().tolist() == [[0, 1, 3, 1]]
    assert words[0, 1, 3, 1] == 2


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("rule", "coupling", "field"),
    [("metropolis", 1.0, 0.0), ("heat_bath", 1.0, 0.0), ("heat_bath", -0.7, 0.0), ("heat_bath", -0.7, 0.4)],
)
def test_every_backend_and_plan_gives_the_same_spins(backend, rule, coupling, field):
    for shape in ((3, 4, 4), (2, 6, 66)):
        spins = pack_spins(random_spins(*shape))
        beta = torch.linspace(0, 1, shape[0], device=DEVICE)
        numbers = {"coupling": coupling, "field": field, "rule": rule, "seed": 2**64 - 1, "first_lattice": 5}
        wanted = ising_sweeps(spins, shape[2], 2, beta, backend="torch", **numbers)
        for plan in ("half_sweeps", "resident") if backend == "cupy" else ("auto",):
            assert torch.equal(ising_sweeps(spins, shape[2], 2, beta, backend=backend, plan=plan, **numbers), wanted)


def test_a_thread_takes_several_words():
    """1050 words of a colour, more than threads; three in a row, so that some threads of a block are idle."""
    spins = pack_spins(random_spins(1, 350, 190))
    wanted = ising_sweeps(spins, 190, beta=0.4, seed=3, backend="torch")
    for plan in ("half_sweeps", "resident"):
        assert torch.equal(ising_sweeps(spins, 190, beta=0.4, seed=3, backend="cupy", plan=plan), wanted), plan


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_infinite_beta_no_sweep_costs_energy_and_at_zero_metropolis_flips_all(backend):
    spins = random_spins(3, 8, 8)
    for rule in RULES:
        cold = ising_sweeps(pack_spins(spins), 8, 1, math.inf, rule=rule, seed=1, backend=backend)
        assert bool((energy(unpack_spins(cold, 8)) <= energy(spins)).all())
    hot = ising_sweeps(pack_spins(spins), 8, 1, 0.0, rule="metropolis", seed=1, backend=backend)
    assert torch.equal(unpack_spins(hot, 8), -spins)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("side", "beta", "sweeps", "exact"),
    [(4, 0.0, 1, 0.0), (2, 0.4, 6, -6.41)],  # one sweep and six suffice, by the exact transition matrix
    ids=["beta 0", "2 x 2"],
)
def test_a_lattice_of_equal_spins_converges(backend, side, beta, sweeps, exact):
    start = pack_spins(torch.ones(4000, side, side, device=DEVICE))
    for plan in ("half_sweeps", "resident") if backend == "cupy" else ("auto",):
        swept = unpack_spins(ising_sweeps(start, side, sweeps, beta, seed=1, plan=plan, backend=backend), side)
        found = energy(swept)
        rounded = 0.005  # of the exact value
        assert abs(float(found.mean()) - exact) < rounded + 5 * float(found.std()) / math.sqrt(4000)
        assert float(found.std()) > 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_diagonal_stripes_move(backend):
    site = torch.arange(32, device=DEVICE)
    stripes = (1 - 2 * ((site[:, None] + site) % 4 // 2))[None]
    assert bool((energy(stripes) == 0).all())

    def swept(sweeps, rule):
        return unpack_spins(ising_sweeps(pack_spins(stripes), 32, sweeps, 0.6, rule=rule, seed=1, backend=backend), 32)

    assert torch.equal(swept(6, "metropolis"), stripes.to(torch.int8))  # as the docstring says
    assert float(energy(swept(6, "heat_bath"))) < -0.5 * 32**2


def test_thresholds_are_the_probabilities_of_a_flip():
    beta = torch.tensor([0.0, 0.5, math.inf], dtype=torch.float64, device=DEVICE)
    metropolis = thresholds(beta, -2.0, 0.0, "metropolis").tolist()
    assert metropolis == [[CERTAIN] * 2, [round(math.exp(-x) * CERTAIN) for x in (4, 8)], [0, 0]]
    heat_bath = thresholds(beta, 1.0, 0.0, "heat_bath")
    assert heat_bath.tolist() == [
        [CERTAIN // 2] * 3,
        [round(CERTAIN / (1 + math.exp(x))) for x in (0, 2, 4)],
        [CERTAIN // 2, 0, 0],
    ]
    field = thresholds(beta, 1.0, 0.3, "heat_bath")
    assert (field[:, :5] + field[:, 5:] == CERTAIN).all()  # of a flip and its reverse


def test_a_flip_of_probability_below_2_to_the_minus_33_never_happens():
    """The limit up to which the heat bath connects all states."""
    least = 33 * math.log(2) + torch.tensor([-0.01, 0.01], dtype=torch.float64)
    assert thresholds(least / 8, 1.0, 0.0, "heat_bath")[:, 2].tolist() == [1, 0]  # dE = 8: all neighbours are equal
    up = pack_spins(torch.ones(2, 4, 4))
    assert torch.equal(ising_sweeps(up, 4, 20, 3.0, seed=1), up)
    assert not torch.equal(ising_sweeps(up, 4, 20, 0.2, seed=1), up)


@pytest.mark.parametrize("beta", [0.05, 0.2, CRITICAL_BETA, 0.6, 1.5])
def test_kaufman_agrees_with_enumeration(beta):
    states = all_states(4, 4)
    energies = energy(states)
    law = torch.softmax(-beta * energies, 0)
    mean = law @ energies
    exact = kaufman(4, 4, beta)
    assert exact.log_z == pytest.approx(float(torch.logsumexp(-beta * energies, 0)), rel=1e-12)
    assert exact.energy == pytest.approx(float(mean) / 16, abs=1e-10)
    assert exact.specific_heat == pytest.approx(float(beta**2 * (law @ (energies - mean) ** 2)) / 16, abs=1e-10)


@pytest.mark.parametrize("beta", [0.05, 0.2, CRITICAL_BETA, 0.6, 1.5])
def test_the_law_of_the_energy_is_that_of_all_states(beta):
    energies = energy(all_states(4, 4))
    levels, law = energy_law(4, 4, beta)
    counted = torch.zeros(17, dtype=torch.float64).index_add_(
        0, ((energies + 32) / 4).long(), torch.softmax(-beta * energies, 0)
    )
    torch.testing.assert_close(law, counted, rtol=0, atol=2e-12)
    assert levels.tolist() == list(range(-32, 33, 4))


@pytest.mark.parametrize(("side", "beta"), [(8, 0.3), (8, CRITICAL_BETA), (32, 0.4), (32, 0.625)])
def test_the_law_of_the_energy_has_kaufmans_moments(side, beta):
    levels, law = energy_law(side, side, beta)
    mean = float(law @ levels)
    exact = kaufman(side, side, beta)
    assert mean / side**2 == pytest.approx(exact.energy, abs=1e-11)
    assert beta**2 * float(law @ (levels - mean) ** 2) / side**2 == pytest.approx(exact.specific_heat, rel=1e-7)


def test_kaufman_at_the_critical_point():
    assert kaufman(4, 4, CRITICAL_BETA).energy == pytest.approx(-1.5656238, abs=5e-8)
    assert kaufman(8, 8, CRITICAL_BETA).energy == pytest.approx(-1.4915891, abs=5e-8)
    assert kaufman(128, 128, CRITICAL_BETA).energy == pytest.approx(-math.sqrt(2), abs=6e-3)  # Onsager, and 0.62 / L


@pytest.mark.parametrize("n", [1, 2, 7])
def test_spins_and_units_have_the_same_energy_up_to_the_constant(n):
    generator = torch.Generator().manual_seed(n)
    matrix = torch.randn(n, n, generator=generator, dtype=torch.float64).to(DEVICE).triu(1)
    couplings, fields = matrix + matrix.t(), torch.randn(n, generator=generator, dtype=torch.float64).to(DEVICE)
    units = torch.arange(1 << n, device=DEVICE)[:, None] >> torch.arange(n, device=DEVICE) & 1
    machine = units_of(couplings, fields)
    by_spins = -((2 * units - 1).double() @ couplings * (2 * units - 1)).sum(1) / 2 - (2 * units - 1).double() @ fields
    torch.testing.assert_close(machine.energy(units) + machine.constant, by_spins, rtol=0, atol=1e-12)
    back = spins_of(machine.weights, machine.biases)
    torch.testing.assert_close(back.couplings, couplings, rtol=0, atol=0)
    torch.testing.assert_close(back.fields, fields, rtol=0, atol=1e-14)
    torch.testing.assert_close(back.constant, -machine.constant, rtol=0, atol=1e-13)
    torch.testing.assert_close(back.energy(2 * units - 1) + back.constant, machine.energy(units), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 2), (2, 4), (4, 6)])
def test_the_lattice_has_the_energy_of_its_unit_machine(shape):
    spins = random_spins(20, *shape)
    couplings = lattice_couplings(*shape, coupling=0.5).to(DEVICE)
    machine = units_of(couplings, torch.full((len(couplings),), 0.25, dtype=torch.float64, device=DEVICE))
    units = ((spins.flatten(1) + 1) // 2).long()
    torch.testing.assert_close(machine.energy(units) + machine.constant, energy(spins, 0.5, 0.25))


@pytest.mark.parametrize(
    ("couplings", "fields", "words"),
    [
        (torch.eye(2, device=DEVICE), torch.zeros(2, device=DEVICE), "diagonal"),
        (torch.tensor([[0.0, 1.0], [0.5, 0.0]], device=DEVICE), torch.zeros(2, device=DEVICE), "symmetric"),
        (torch.zeros(2, 3, device=DEVICE), torch.zeros(2, device=DEVICE), "square"),
        (torch.full((2, 2), math.nan, device=DEVICE), torch.zeros(2, device=DEVICE), "finite"),
        (torch.zeros(2, 2, device=DEVICE), torch.tensor([0.0, math.inf], device=DEVICE), "finite"),
        (torch.zeros(2, 2, device=DEVICE), torch.zeros(3, device=DEVICE), "shape"),
        (torch.zeros(2, 2, device=DEVICE), torch.zeros(2, dtype=torch.float64, device=DEVICE), "dtype"),
    ],
)
def test_invalid_couplings_are_rejected(couplings, fields, words):
    for convert in (units_of, spins_of):
        with pytest.raises(ValueError, match=words):
            convert(couplings, fields)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"width": 5}, ValueError, "width must be even"),
        ({"width": 66}, ValueError, "spins must have shape"),
        ({"spins": torch.zeros(2, 2, 3, 1, dtype=torch.int32, device=DEVICE)}, ValueError, "height must be even"),
        ({"spins": torch.zeros(2, 2, 4, 1, device=DEVICE)}, TypeError, "spins must have dtype"),
        ({"sweeps": 0}, ValueError, "sweeps"),
        ({"beta": -0.1}, ValueError, "beta"),
        ({"beta": torch.tensor([0.1, math.nan], device=DEVICE)}, ValueError, "beta"),
        ({"beta": torch.ones(3, device=DEVICE)}, ValueError, "beta"),
        ({"coupling": math.inf}, ValueError, "coupling"),
        ({"field": math.nan}, ValueError, "field"),
        ({"rule": "wolff"}, ValueError, "rule"),
        ({"plan": "fast"}, ValueError, "plan"),
        ({"plan": "resident", "backend": "torch"}, ValueError, "resident"),
        ({"seed": -1}, ValueError, "seed"),
        ({"first_sweep": 2**32}, ValueError, "first_sweep"),
        ({"first_lattice": 2**60}, ValueError, "first_lattice"),
        (
            {"out": torch.zeros(2, 2, 4, 2, dtype=torch.int32, device=DEVICE)[..., :1]},
            ValueError,
            "out must be contiguous",
        ),
    ],
)
def test_errors_name_the_argument(changed, error, words):
    given = {"spins": torch.zeros(2, 2, 4, 1, dtype=torch.int32, device=DEVICE), "width": 4, "seed": 0, **changed}
    with pytest.raises(error, match=words):
        ising_sweeps(given.pop("spins"), given.pop("width"), **given)


@pytest.mark.parametrize("sides", [(3, 4), (4, 5), (0, 4)])
def test_odd_sides_are_rejected(sides):
    with pytest.raises(ValueError, match="even"):
        pack_spins(torch.ones(1, *sides, device=DEVICE))


def test_the_input_is_not_modified_and_may_be_strided():
    spins = pack_spins(random_spins(4, 6, 8))
    before = spins.clone()
    every_other = ising_sweeps(spins[::2], 8, 2, 0.4, seed=3)
    assert torch.equal(spins, before)
    assert torch.equal(every_other, ising_sweeps(spins[::2].contiguous(), 8, 2, 0.4, seed=3))


def test_the_cost_counts_spins_twice_in_bits():
    (case,) = (each for each in plugin.CASES if each.sizes["width"] == 16384 and not each.scenario)
    cost = plugin.cost(case)
    assert (cost.items, cost.bytes_read) == (4 * 16384**2, 16384**2 // 8)


def test_spins_and_units_have_the_same_conditional_probabilities():
    spins = random_spins(50, 4, 6).flatten(1).double()
    couplings, fields = (
        lattice_couplings(4, 6, -0.7).to(DEVICE),
        torch.full((24,), 0.3, dtype=torch.float64, device=DEVICE),
    )
    machine = units_of(couplings, fields)
    of_units = torch.sigmoid(machine.biases + (spins + 1) / 2 @ machine.weights)
    torch.testing.assert_close(of_units, torch.sigmoid(2 * (fields + spins @ couplings)), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            pack_spins(torch.ones(3, 4, 4, device=DEVICE)),
            ValueError,
            r"spins must have shape .*: unpack words by unpack_spins",
        ),
        (torch.ones(4, 4, device=DEVICE), ValueError, "spins must have shape"),
        (torch.randint(0, 2, (2, 4, 4), device=DEVICE), ValueError, "spins must be -1 or \\+1; units s of 0 and 1"),
        (torch.full((2, 4, 4), math.nan, device=DEVICE), ValueError, "spins must be -1 or"),
        (torch.ones(2, 4, 4, dtype=torch.uint8, device=DEVICE), TypeError, "torch.uint8 cannot hold"),
        (torch.ones(2, 4, 4, dtype=torch.bool, device=DEVICE), TypeError, "torch.bool cannot hold"),
    ],
)
def test_the_energy_of_what_is_not_unpacked_spins_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        energy(given)


def test_the_energy_of_spins_of_every_signed_dtype():
    spins = 2 * torch.randint(0, 2, (5, 3, 4), generator=torch.Generator().manual_seed(0)).to(DEVICE) - 1
    for dtype in (torch.int8, torch.int32, torch.float16, torch.float64):
        assert torch.equal(energy(spins.to(dtype)), energy(spins))
    assert energy(spins[:0]).shape == (0,)
    assert energy(torch.ones(1, 3, 4, dtype=torch.int8, device=DEVICE)).item() == -24


def test_a_warp_draws_three_groups_of_bits_and_some_more():
    """A number of which u is the part still to come is decided by the bit in which it first differs: after -log2 u."""
    u = torch.rand(4000, 32 * packed_spins.WORD, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = (-u.log2() / 4).ceil().amax(1).clamp(max=packed_spins.PARTS)
    assert pytest.approx(groups.mean().item(), abs=0.03) == packed_spins.mean_groups(32 * packed_spins.WORD)
