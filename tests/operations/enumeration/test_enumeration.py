"""log Z by enumeration: known answers on every backend, partly filled tiles, and rejected arguments."""

import math

import pytest
import torch
from boltzbench.kernels.common import dispatch
from boltzbench.kernels.enumeration import log_partition, rbm_log_partition
from boltzbench.kernels.enumeration.tables import machine_tables, product_tables
from boltzbench.kernels.ising import lattice_couplings, units_of
from boltzbench.kernels.rbm_training import Machine
from boltzbench.kernels.rbm_training import log_partition as log_partition_of_a_machine
from boltzbench.plugins.exact.ising import kaufman
from boltzbench.plugins.exact.rbm import LOG_Z, fixture
from boltzbench.plugins.exact.rbm import log_partition as at_once
from boltzbench.plugins.operations.machines import enumeration as plugin
from support.devices import DEVICE, backends_of
from support.threads import threads

BACKENDS = backends_of("enumeration")


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(DEVICE)


def bonds(n, seed=0, scale=1.0):
    above = random(n, n, seed=seed, scale=scale).triu(1)
    return above + above.t()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_fixture_has_its_known_log_z_with_either_layer_smaller(backend):
    weights, b, c = (part.to(DEVICE) for part in fixture().values())
    for machine in ((weights, b, c), (weights.t(), c, b)):
        found = rbm_log_partition(*machine, backend=backend)
        assert found.dtype is torch.float64
        assert float(found) == pytest.approx(LOG_Z, abs=1e-12 if backend == "torch" else 2e-6)


def test_torch_and_the_training_package_agree_with_all_states_at_once():
    for visible, hidden in ((11, 14), (14, 11)):
        machine = Machine(random(visible, hidden), random(visible, seed=1), random(hidden, seed=2))
        for beta in (0.3, 1.0):
            exact = float(at_once(*(beta * part for part in machine)))
            assert float(rbm_log_partition(*machine, beta)) == pytest.approx(exact, abs=1e-11)
            assert float(log_partition_of_a_machine(machine, beta)) == pytest.approx(exact, abs=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restricted_machine_is_a_general_machine(backend):
    weights, b, c = (part.to(DEVICE) for part in fixture().values())
    whole = torch.zeros(18, 18, dtype=torch.float64, device=DEVICE)
    whole[:10, 10:], whole[10:, :10] = weights, weights.t()
    found = log_partition(whole, torch.cat((b, c)), backend=backend)
    assert float(found) == pytest.approx(LOG_Z, abs=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_spins_mapped_to_units(backend):
    machine = units_of(lattice_couplings(4, 4).to(DEVICE), torch.zeros(16, dtype=torch.float64, device=DEVICE))
    found = float(log_partition(machine.weights, machine.biases, 0.44, backend=backend)) - 0.44 * machine.constant
    assert float(found) == pytest.approx(kaufman(4, 4, 0.44).log_z, abs=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("units", [0, 1, 8, 15, 16, 17])
def test_without_bonds_z_is_a_product_over_units(backend, units):
    biases = random(units, scale=3.0)
    exact = float(torch.nn.functional.softplus(biases).sum())
    assert float(
        log_partition(torch.zeros(units, units, device=DEVICE).double(), biases, backend=backend)
    ) == pytest.approx(exact)
    found = rbm_log_partition(random(units, 0), biases, random(0), backend=backend)
    assert float(found) == pytest.approx(exact, abs=4e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_at_beta_zero_all_states_have_equal_weight(backend):
    found = rbm_log_partition(random(9, 20), random(9), random(20), 0.0, backend=backend)
    assert float(found) == pytest.approx(29 * math.log(2), abs=1e-6)
    assert float(log_partition(bonds(9), random(9), 0.0, backend=backend)) == pytest.approx(9 * math.log(2), abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_large_bias_of_an_unconnected_unit(backend):
    """A unit of the larger layer without weights multiplies Z by 1 + e^c, also for large and small e^c."""
    weights, b, c = random(9, 12), random(9), random(12)
    alone = float(rbm_log_partition(weights, b, c, backend="torch"))
    for far in (-300.0, 0.0, 300.0):
        wider = torch.cat((weights, torch.zeros(9, 1, device=DEVICE)), 1), b, torch.cat((c, c.new_tensor([far])))
        exact = alone + float(torch.nn.functional.softplus(torch.tensor(far, dtype=torch.float64, device=DEVICE)))
        assert float(rbm_log_partition(*wider, backend=backend)) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "torch"])
def test_one_block_takes_many_tiles_and_batches(backend, monkeypatch):
    """As in machines with more tiles and batches than blocks on a device."""
    kernels = dispatch.backend_module(backend, "boltzbench.kernels.enumeration")
    if backend != "native":
        monkeypatch.setattr(kernels, "MOST_BLOCKS" if backend == "cupy" else "MOST_PROGRAMS", 1)
    machine = random(18, 18), random(18, seed=1), random(18, seed=2)
    exact = float(rbm_log_partition(*machine, backend="torch"))
    assert float(rbm_log_partition(*machine, backend=backend)) == pytest.approx(exact, abs=8e-6)
    blocks = torch.block_diag(bonds(11), bonds(11, seed=1))
    parts = (slice(11), slice(11, 22))
    exact = sum(float(log_partition(blocks[part, part], machine[1][:11], backend="torch")) for part in parts)
    found = log_partition(blocks, machine[1][:11].repeat(2), backend=backend)
    assert float(found) == pytest.approx(exact, abs=1e-11)


@pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
def test_native_results_do_not_depend_on_threads_and_take_large_parameters():
    machine, couplings = (random(19, 21), random(19, seed=1), random(21, seed=2)), bonds(19)
    found = set()
    for number in (1, 3):
        with threads(number):
            found.add(
                (
                    float(rbm_log_partition(*machine, backend="native")),
                    float(log_partition(couplings, machine[1], backend="native")),
                )
            )
    assert len(found) == 1
    for scale in (5.0, 60.0, 1000.0):  # exponents normalized after eight factors, after each, and beyond the tables
        large = random(8, 9, scale=scale), random(8), random(9)
        exact = float(rbm_log_partition(*large, backend="torch"))
        assert float(rbm_log_partition(*large, backend="native")) == pytest.approx(exact, rel=1e-13)
        large = bonds(17, scale=scale), random(17)
        exact = float(log_partition(*large, backend="torch"))
        assert float(log_partition(*large, backend="native")) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_too_large_parameters_raise_or_give_nan_except_on_a_cpu(backend):
    if backend not in BACKENDS:
        pytest.skip(str(dispatch.unavailable(backend, DEVICE)))
    machine = random(8, 9, scale=40.0), random(8), random(9)
    with pytest.raises(ValueError, match=r"weights .* too large"):
        rbm_log_partition(*machine, backend=backend)
    assert rbm_log_partition(*machine, backend=backend, check_values=False).isnan()
    assert float(rbm_log_partition(*machine)) == pytest.approx(float(at_once(*machine)), rel=1e-12)
    with pytest.raises(ValueError, match="too large"):
        log_partition(bonds(18, scale=40.0), random(18), backend=backend)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"weights": torch.zeros(3, device=DEVICE)}, ValueError, "weights must have shape"),
        ({"weights": torch.zeros(3, 2, device=DEVICE).int()}, TypeError, "weights must have dtype"),
        ({"visible_bias": torch.zeros(2, device=DEVICE)}, ValueError, "visible_bias must have shape"),
        ({"hidden_bias": torch.zeros(2, device=DEVICE).double()}, TypeError, "hidden_bias must have dtype"),
        ({"hidden_bias": torch.tensor([0.0, math.inf], device=DEVICE)}, ValueError, "hidden_bias must be finite"),
        ({"beta": -1.0}, ValueError, "beta"),
        ({"beta": math.inf}, ValueError, "beta"),
        ({"backend": "fortran"}, ValueError, "backend"),
    ],
)
def test_bad_arguments_of_a_restricted_machine_are_named(changed, error, words):
    given = {
        "weights": torch.zeros(3, 2, device=DEVICE),
        "visible_bias": torch.zeros(3, device=DEVICE),
        "hidden_bias": torch.zeros(2, device=DEVICE),
        **changed,
    }
    with pytest.raises(error, match=words):
        rbm_log_partition(**given)


@pytest.mark.parametrize(
    ("weights", "biases", "words"),
    [
        (
            torch.tensor([[0.0, 1.0], [0.5, 0.0]], device=DEVICE),
            torch.zeros(2, device=DEVICE),
            "weights must be symmetric",
        ),
        (torch.eye(2, device=DEVICE), torch.zeros(2, device=DEVICE), "weights must be 0 on the diagonal"),
        (torch.zeros(2, 3, device=DEVICE), torch.zeros(2, device=DEVICE), "weights must be a square"),
        (torch.zeros(2, 2, device=DEVICE), torch.zeros(3, device=DEVICE), "biases must have shape"),
        (torch.zeros(2, 2, device=DEVICE), torch.tensor([0.0, math.nan], device=DEVICE), "biases must be finite"),
    ],
)
def test_bad_machines_are_named(weights, biases, words):
    with pytest.raises(ValueError, match=words):
        log_partition(weights, biases)


def test_more_than_forty_units_raise_and_the_message_has_the_cost():
    with pytest.raises(ValueError, match=r"41 units takes 2\*\*41 states, 9.9e\+13 terms, 9.9 s .* force=True"):
        rbm_log_partition(
            torch.zeros(45, 41, device=DEVICE), torch.zeros(45, device=DEVICE), torch.zeros(41, device=DEVICE)
        )
    with pytest.raises(ValueError, match=r"2\*\*50 states, 1.1e\+15 terms, 1.1e\+02 s"):
        log_partition(torch.zeros(50, 50, device=DEVICE), torch.zeros(50, device=DEVICE))


def test_exponents_are_normalized_after_each_factor_only_for_large_weights():
    def every(scale):
        return int(product_tables(random(8, 16, scale=scale), random(8), random(16), 64, 128).every)

    assert every(1.0) == 0
    assert every(8.0) == 1


def test_table_entries_multiply_to_the_weight_of_a_state():
    """The factors of one state of a machine with 20 units, looked up one by one."""
    w, b = bonds(20, scale=0.3), random(20)
    tables = machine_tables(w, b)
    x = (random(20, seed=5) > 0).double()
    number = (x.long() << torch.arange(20, device=DEVICE)).sum().item()
    a, low, middle = number & 15, number >> 4 & 15, number >> 8 & 255
    top = x[16:]
    log = torch.log(tables.pair[a, low] * tables.first[middle, a] * tables.second[middle, low])
    log += top @ tables.fields @ x[:16] + top @ tables.top @ top + tables.offset
    assert float(log) == pytest.approx(float(0.5 * x @ w @ x + b @ x), abs=1e-12)


def test_the_cost_counts_terms():
    cost = plugin.cost(next(case for case in plugin.CASES if case.sizes == {"visible": 30, "hidden": 32}))
    assert (cost.items, cost.flops) == (32 << 30, 96 << 30)
