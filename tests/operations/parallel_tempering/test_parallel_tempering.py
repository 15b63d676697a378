"""Parallel tempering: exchanges, acceptance rates, and log Z by thermodynamic integration against exact results."""

import math

import pytest
import torch
from boltzbench.kernels.parallel_tempering import (
    IsingReplicas,
    RbmReplicas,
    integrate,
    parallel_tempering,
    swap_replicas,
)
from boltzbench.plugins.exact.ising import kaufman
from boltzbench.plugins.exact.rbm import fixture
from support.devices import DEVICE, backends_of
from support.threads import threads

BACKENDS = backends_of("parallel_tempering")
LOG_Z = 15.116010115197419
MACHINE = tuple(part.float().to(DEVICE) for part in fixture().values())
BETAS = torch.linspace(0, 1, 7, dtype=torch.float64, device=DEVICE)


def identity(ladders, rungs):
    return torch.arange(rungs, dtype=torch.int32, device=DEVICE).expand(ladders, rungs).contiguous()


class Levels:
    """A system of three levels; each round draws its replicas exactly."""

    energies = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64, device=DEVICE)
    log_states = math.log(3)
    device = DEVICE

    def __init__(self, count):
        self.count, self.generator = count, torch.Generator().manual_seed(0)

    def advance(self, betas, round_number):
        p = torch.softmax(-betas[:, None] * self.energies, 1)
        return self.energies[torch.multinomial(p, 1, generator=self.generator)[:, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_energies_that_rise_with_beta_are_always_exchanged(backend):
    at, betas = identity(3, 6), torch.linspace(0, 1, 6, dtype=torch.float64, device=DEVICE)
    rising = torch.linspace(0, 9, 6, dtype=torch.float64, device=DEVICE).expand(3, 6)
    even = swap_replicas(at, rising, betas, seed=1, round_number=0, backend=backend)
    assert even.replica_at.tolist() == [[1, 0, 3, 2, 5, 4]] * 3
    assert even.accepted.tolist() == [[1, 0, 1, 0, 1, 0]] * 3
    odd = swap_replicas(at, rising, betas, seed=1, round_number=1, backend=backend)
    assert odd.replica_at.tolist() == [[0, 2, 1, 4, 3, 5]] * 3
    falling = swap_replicas(at, -1e4 * rising, betas, seed=1, round_number=0, backend=backend)
    assert torch.equal(falling.replica_at, at)
    assert not falling.accepted.any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("energies", [[math.nan, 1.0], [1.0, math.nan], [math.inf, math.inf]])
def test_energies_whose_difference_is_nan_are_never_exchanged(energies, backend):
    at, betas = identity(1, 2), torch.tensor([0.0, 1.0], dtype=torch.float64, device=DEVICE)
    given = torch.tensor([energies], dtype=torch.float64, device=DEVICE)
    swapped = swap_replicas(at, given, betas, seed=1, round_number=0, backend=backend)
    assert torch.equal(swapped.replica_at, at)
    assert not swapped.accepted.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_exchanges_are_as_frequent_as_their_probability(backend):
    at, betas = identity(40_000, 2), torch.tensor([0.0, 0.5], dtype=torch.float64, device=DEVICE)
    energies = torch.tensor([2.0, 0.0], dtype=torch.float64, device=DEVICE).expand(40_000, 2)
    found = swap_replicas(at, energies, betas, seed=2, round_number=0, backend=backend).accepted[:, 0].double().mean()
    p = math.exp(-1)
    assert abs(float(found) - p) < 5 * math.sqrt(p * (1 - p) / 40_000)


def test_integration_is_exact_where_the_energy_is_a_cubic_of_beta():
    betas = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, device=DEVICE)
    mean, variance = 2 - betas**3, 3 * betas**2  # d<E>/dbeta = -Var
    log_z, stderr = integrate(betas, mean.expand(4, 3), variance.expand(4, 3), 1.5)
    assert log_z == pytest.approx(1.5 - 2 + 0.25, abs=1e-14)
    assert stderr == 0


def test_a_system_of_levels_gives_its_log_z_within_its_standard_error():
    ladders = 400
    betas = torch.linspace(0, 2, 9, dtype=torch.float64, device=DEVICE)
    found = parallel_tempering(Levels(9 * ladders), betas, 60, burn_in=5, seed=1)
    exact = float(torch.logsumexp(-2 * Levels.energies, 0))
    assert abs(found.log_z - exact) < 5 * found.stderr < 0.05
    p = torch.softmax(-betas[:, None] * Levels.energies, 1)
    ratio = torch.exp((betas[:-1] - betas[1:])[:, None, None] * (Levels.energies[:, None] - Levels.energies))
    rates = (p[:-1, :, None] * p[1:, None, :] * ratio.clamp(max=1)).sum((1, 2))
    torch.testing.assert_close(found.swap_rates, rates, rtol=0, atol=0.03)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("round_number", [0, 1])
def test_a_ladder_of_one_rung_exchanges_nothing(backend, round_number):
    at = torch.zeros(3, 1, dtype=torch.int32)
    energies, betas = torch.ones(3, 1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    found = swap_replicas(at, energies, betas, seed=1, round_number=round_number, backend=backend)
    assert not torch.stack(found).any()


@pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
@pytest.mark.parametrize("rungs", [1, 2, 5, 8])
@pytest.mark.parametrize("round_number", [0, 2**32 - 1])
def test_native_exchanges_do_not_depend_on_threads_or_batches(rungs, round_number):
    generator = torch.Generator().manual_seed(1)
    energies = torch.randn(3001, rungs, generator=generator, dtype=torch.float64)
    energies[7] = -math.inf
    replica_at = torch.rand(3001, rungs, generator=generator).argsort(1).to(torch.int32)
    betas, first = torch.linspace(0, 2, rungs, dtype=torch.float64), 2**40 + 1

    def swapped(backend, rows=slice(None), first=first):
        result = swap_replicas(
            replica_at[rows], energies[rows], betas, seed=3, round_number=round_number, first_ladder=first,
            backend=backend,
        )  # fmt: skip
        return torch.stack(result)

    expected = swapped("torch")
    for number in (1, 3):
        with threads(number):
            assert torch.equal(swapped("native"), expected)
    parts = [swapped("native", slice(0, 10)), swapped("native", slice(10, None), first + 10)]
    assert torch.equal(torch.cat(parts, 1), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_restricted_machine(backend):
    ladders, rounds = (64, 40) if backend == "torch" else (32, 12)
    replicas = RbmReplicas(*MACHINE, 7 * ladders, seed=1, backend=backend)
    found = parallel_tempering(replicas, BETAS, rounds, burn_in=8, seed=1, backend=backend)
    assert abs(found.log_z - LOG_Z) < 5 * found.stderr < 0.5
    assert found.swap_rates.shape == (6,)
    assert ((found.swap_rates > 0.3) & (found.swap_rates < 1)).all()


def test_an_ising_model():
    backend = "cupy" if "cupy" in BACKENDS else "torch"
    replicas = IsingReplicas(4, 4, 6 * 64, seed=2, device=DEVICE, backend=backend)
    betas = torch.linspace(0, 0.4, 6, dtype=torch.float64, device=DEVICE)
    found = parallel_tempering(replicas, betas, 40, burn_in=8, seed=2)
    assert abs(found.log_z - kaufman(4, 4, 0.4).log_z) < 5 * found.stderr < 0.3


def test_wrong_sweeps_give_a_wrong_log_z(monkeypatch):
    """A wrong temperature and a wrong sign of the energy each shift log Z beyond its error."""
    honest = Levels.advance
    for wrong in (lambda self, b, t: honest(self, 1.2 * b, t), lambda self, b, t: 3 - honest(self, b, t)):
        monkeypatch.setattr(Levels, "advance", wrong)
        found = parallel_tempering(Levels(9 * 400), torch.linspace(0, 2, 9, device=DEVICE), 60, burn_in=5, seed=1)
        assert abs(found.log_z - float(torch.logsumexp(-2 * Levels.energies, 0))) > 5 * found.stderr


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"betas": []}, "betas must be at least two"),
        ({"betas": [0.1, 1.0]}, "betas must begin at 0"),
        ({"betas": [0.0, 1.0, 0.5]}, "betas must increase"),
        ({"betas": [0.0, 0.5, math.inf]}, r"betas\[2\] must be finite"),
        ({"replicas": Levels(3)}, "two ladders"),
        ({"replicas": Levels(7)}, "replicas must be 3 for each"),
        ({"rounds": 1}, "rounds"),
        ({"burn_in": -1}, "burn_in"),
    ],
)
def test_errors_name_the_argument_of_a_run(changed, words):
    given = {"replicas": Levels(6), "betas": [0.0, 0.5, 1.0], "rounds": 4, "burn_in": 0, "seed": 0, **changed}
    with pytest.raises(ValueError, match=words):
        parallel_tempering(given.pop("replicas"), given.pop("betas"), given.pop("rounds"), **given)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"replica_at": torch.zeros(4, dtype=torch.int32, device=DEVICE)}, ValueError, "replica_at must have shape"),
        ({"replica_at": torch.zeros(2, 3, device=DEVICE)}, TypeError, "replica_at must have dtype"),
        ({"replica_at": torch.full((2, 3), 3, dtype=torch.int32, device=DEVICE)}, ValueError, "replica_at must lie"),
        ({"energies": torch.zeros(2, 3, device=DEVICE)}, TypeError, "energies must have dtype"),
        ({"energies": torch.zeros(3, 3, device=DEVICE).double()}, ValueError, "energies must have shape"),
        ({"betas": torch.zeros(2, device=DEVICE).double()}, ValueError, "betas must have shape"),
        ({"seed": 2**64}, ValueError, "seed"),
        ({"round_number": -1}, ValueError, "round_number"),
        ({"first_ladder": -1}, ValueError, "first_ladder"),
        ({"backend": "fortran"}, ValueError, "backend"),
    ],
)
def test_errors_name_the_argument_of_an_exchange(changed, error, words):
    energies, betas = (
        torch.zeros(2, 3, dtype=torch.float64, device=DEVICE),
        torch.zeros(3, dtype=torch.float64, device=DEVICE),
    )
    given = {
        "replica_at": identity(2, 3),
        "energies": energies,
        "betas": betas,
        "seed": 0,
        "round_number": 0,
        **changed,
    }
    with pytest.raises(error, match=words):
        swap_replicas(**given)
