"""Annealed importance sampling: unbiased for any schedule, and wrong samplers are detected."""

import math
import warnings
from collections import Counter

import pytest
import torch
from boltzbench.kernels import ais, native
from boltzbench.kernels.ais import (
    CollapsedWeights,
    LogPartitionEstimate,
    annealed_importance_sampling,
    ising_annealed_importance_sampling,
)
from boltzbench.kernels.machines import states, unit_draws
from boltzbench.kernels.parallel_tempering import parallel_tempering, systems
from boltzbench.kernels.parallel_tempering import reference as swap_reference
from boltzbench.kernels.philox import Stream, random_words
from boltzbench.plugins.exact.ising import kaufman
from boltzbench.plugins.exact.rbm import LOG_Z, fixture, log_partition
from scipy.special import ndtri
from support.devices import DEVICE, backends_of

BACKENDS = backends_of("rbm_gibbs")
CRITICAL = float(-ndtri(1e-6 / 2))
MACHINE = tuple(part.float().to(DEVICE) for part in fixture().values())


def ladder(steps, last=1.0):
    return torch.linspace(0, last, steps + 1, dtype=torch.float64, device=DEVICE)


def z_of_mean(found, exact):
    """The z score of the mean weight, which is unbiased, unlike its logarithm."""
    ratio = torch.exp(found.log_weights - exact)
    return float((ratio.mean() - 1) / (ratio.std() / math.sqrt(len(ratio))))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("steps", [1, 8])
def test_the_mean_weight_is_unbiased_for_short_and_long_schedules(backend, steps):
    chains = 4000 if backend == "torch" else 600
    found = annealed_importance_sampling(*MACHINE, ladder(steps), chains, seed=1, backend=backend)
    assert abs(z_of_mean(found, LOG_Z)) < CRITICAL
    assert 1 <= found.ess <= chains


def test_a_long_schedule_has_a_small_error_and_reports_it():
    short = annealed_importance_sampling(*MACHINE, ladder(5), 2000, seed=2)
    long = annealed_importance_sampling(*MACHINE, ladder(100), 2000, seed=2)
    assert long.ess > 0.9 * 2000 > short.ess
    assert long.stderr < 0.01 < short.stderr
    assert abs(long.log_z - LOG_Z) < CRITICAL * long.stderr


def test_a_base_bias_and_a_temperature():
    """A machine at inverse temperature 0.5 is the machine with half the parameters at 1."""
    base = torch.linspace(-1, 1, 10, device=DEVICE)
    found = annealed_importance_sampling(*MACHINE, ladder(10, 0.5), 3000, base_bias=base, sweeps=2, seed=3)
    half = [0.5 * part.double() for part in MACHINE]
    assert abs(z_of_mean(found, float(log_partition(*half)))) < CRITICAL


def test_without_weights_the_base_equal_to_the_machine_is_exact():
    bias = torch.linspace(-2, 2, 7, device=DEVICE)
    found = annealed_importance_sampling(
        torch.zeros(7, 3, device=DEVICE), bias, torch.zeros(3, device=DEVICE), ladder(4), 50, base_bias=bias, seed=4
    )
    exact = float(torch.nn.functional.softplus(bias.double()).sum()) + 3 * math.log(2)
    assert found.log_z == pytest.approx(exact, abs=1e-5)
    assert found.ess == pytest.approx(50, abs=1e-3)


def test_chains_split_over_calls_have_the_same_weights():
    whole = annealed_importance_sampling(*MACHINE, ladder(4), 60, seed=5)
    parts = [
        annealed_importance_sampling(*MACHINE, ladder(4), n, seed=5, first_chain=f) for f, n in ((0, 23), (23, 37))
    ]
    joined = LogPartitionEstimate.of(torch.cat([part.log_weights for part in parts]))
    torch.testing.assert_close(joined.log_weights, whole.log_weights, rtol=0, atol=1e-4)
    assert joined.log_z == pytest.approx(whole.log_z, abs=1e-4)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "triton"])  # slow when interpreted
def test_ising_lattices(backend):
    for coupling, field in ((1.0, 0.0), (-1.0, 0.0)):
        lattices = 1000
        found = ising_annealed_importance_sampling(
            4, 4, ladder(8, 0.3), lattices, coupling=coupling, field=field, seed=6, backend=backend
        )
        assert abs(z_of_mean(found, kaufman(4, 4, 0.3).log_z)) < CRITICAL  # the torus is bipartite


@pytest.mark.skipif("native" not in BACKENDS, reason="no C++ compiler")
def test_auto_takes_the_native_kernels_on_a_cpu(monkeypatch):
    called, call = set(), native.NativeModule.call

    def recorded(module, function, *arguments):
        called.add(function)
        call(module, function, *arguments)

    monkeypatch.setattr(native.NativeModule, "call", recorded)
    annealed_importance_sampling(*MACHINE, ladder(20), 200, seed=1)
    ising_annealed_importance_sampling(4, 4, ladder(3, 0.1), 200, seed=1)
    assert called == {"half_sweep", "free_energy", "advance_lattices"}


def test_a_schedule_of_two_steps_warns_that_its_standard_error_is_too_small():
    """The ordered states carry most of Z on this lattice, and independent spins hardly ever reach them."""
    exact = kaufman(8, 8, 0.44).log_z
    with pytest.warns(CollapsedWeights, match=r"1000 chains have an effective sample size of \d.*more distributions"):
        short = [ising_annealed_importance_sampling(8, 8, ladder(2, 0.44), 1000, seed=seed) for seed in range(5)]
    assert all(each.collapsed for each in short)
    assert sorted((each.log_z - exact) / each.stderr for each in short)[2] < -4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        long = ising_annealed_importance_sampling(4, 4, ladder(20, 0.44), 1000, seed=0)
    assert not long.collapsed
    assert abs(long.log_z - kaufman(4, 4, 0.44).log_z) < CRITICAL * long.stderr


@pytest.mark.parametrize(
    ("weights", "collapsed"),
    [
        ([0.0] * 99 + [10.0] * 101, False),
        ([-math.inf] * 800 + [0.0] * 100, False),
        ([-math.inf] * 800 + [0.0] * 99, True),
        ([-math.inf] * 100 + [0.0] * 99, True),
        ([0.0, 0.0], False),
        ([0.0, -50.0, -50.0], True),
        ([0.0] * 1000 + [20.0], True),
        ([-math.inf] * 10, True),
        ([math.nan] * 10, True),
    ],
)
def test_weights_have_collapsed_below_an_effective_sample_size_of_100_or_half_the_chains(weights, collapsed):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = LogPartitionEstimate.of(torch.tensor(weights, dtype=torch.float64, device=DEVICE))
    assert found.collapsed is collapsed
    assert [each.category for each in told] == [CollapsedWeights] * collapsed


def test_the_warning_points_to_the_call():
    with pytest.warns(CollapsedWeights) as told:
        found = annealed_importance_sampling(*MACHINE, ladder(1), 100, seed=0)
    with pytest.warns(CollapsedWeights) as again:
        LogPartitionEstimate.of(found.log_weights)
    assert told[0].filename == again[0].filename == __file__


def test_no_counter_is_used_twice_in_a_run(monkeypatch):
    """Initial states, sweeps and exchanges of importance sampling and of parallel tempering draw different counters."""
    used = Counter()

    def log(groups, seed, step, stream, tensor=0):
        used.update((group, step, int(stream)) for group in groups.flatten().tolist())
        return random_words(groups, seed, step, stream, tensor)

    for module in (ais, unit_draws, states, systems, swap_reference):
        monkeypatch.setattr(module, "random_words", log)
    annealed_importance_sampling(*MACHINE, ladder(4), 6, sweeps=2, seed=7, backend="torch")
    assert used.total() == 6 * 3 + 6 * 6 * (3 + 2)
    assert max(used.values()) == 1
    used.clear()
    replicas = systems.RbmReplicas(*MACHINE, 8, seed=7, sweeps=2, backend="torch")
    parallel_tempering(replicas, [0.0, 0.3, 0.6, 1.0], 4, burn_in=1, seed=7, backend="torch")
    exchanges = [key for key in used if key[2] == Stream.SWAP]
    assert len(exchanges) > 5
    assert max(count for key, count in used.items() if key[2] != Stream.SWAP) == 1  # pairs share a group of four words


def sweeps_at_another_temperature(monkeypatch):
    honest = ais.gibbs
    monkeypatch.setattr(ais, "gibbs", lambda *given, **more: honest(*given[:5], 2 * given[5], **more))


def forgets_the_hidden_bias(monkeypatch):
    honest = ais.gibbs
    monkeypatch.setattr(ais, "gibbs", lambda *g, **more: honest(*g[:3], torch.full_like(g[3], -1.0), *g[4:], **more))


def weighs_at_one_temperature(monkeypatch):
    honest = ais.free_energy
    monkeypatch.setattr(ais, "free_energy", lambda *given, **more: honest(*given[:4], 1.0, **more))


def starts_with_all_units_off(monkeypatch):
    monkeypatch.setattr(ais, "uniforms", lambda words: torch.ones_like(words, dtype=torch.float32))


@pytest.mark.parametrize(
    "spoil",
    [
        sweeps_at_another_temperature,
        forgets_the_hidden_bias,
        weighs_at_one_temperature,
        starts_with_all_units_off,
    ],
)
def test_a_wrong_sampler_is_detected(spoil, monkeypatch):
    spoil(monkeypatch)
    found = annealed_importance_sampling(*MACHINE, ladder(8), 8000, seed=1)
    assert abs(z_of_mean(found, LOG_Z)) > CRITICAL


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"schedule": []}, ValueError, "schedule must have at least two"),
        ({"schedule": [0.0]}, ValueError, "schedule must have at least two"),
        ({"schedule": [0.1, 1.0]}, ValueError, "schedule must begin at 0"),
        ({"schedule": [0.0, 0.5, 0.5, 1.0]}, ValueError, "schedule must increase"),
        ({"schedule": [0.0, 1.0, 0.5]}, ValueError, "schedule must increase"),
        ({"schedule": [0.0, math.nan]}, ValueError, r"schedule\[1\] must be finite"),
        ({"schedule": [0.0, math.inf]}, ValueError, r"schedule\[1\] must be finite"),
        ({"chains": 1}, ValueError, "chains"),
        ({"sweeps": 0}, ValueError, "sweeps"),
        ({"seed": -1}, ValueError, "seed"),
        ({"base_bias": torch.zeros(9, device=DEVICE)}, ValueError, "base_bias must have shape"),
        ({"base_bias": torch.zeros(10, device=DEVICE).double()}, TypeError, "base_bias must have dtype"),
        ({"weights": torch.zeros(10, 8, device=DEVICE).int()}, TypeError, "weights must have dtype"),
        ({"hidden_bias": torch.full((8,), math.nan, device=DEVICE)}, ValueError, "hidden_bias must be finite"),
        ({"backend": "fortran"}, ValueError, "backend"),
    ],
)
def test_bad_arguments_are_named(changed, error, words):
    names = ("weights", "visible_bias", "hidden_bias")
    given = {**dict(zip(names, MACHINE, strict=True)), "schedule": [0.0, 1.0], "chains": 4, "seed": 0, **changed}
    with pytest.raises(error, match=words):
        annealed_importance_sampling(**given)


def test_odd_lattices_and_single_ones_are_refused():
    with pytest.raises(ValueError, match=r"(height|width) must be (even|at least 2)"):
        ising_annealed_importance_sampling(3, 4, [0.0, 1.0], 4, seed=0)
    with pytest.raises(ValueError, match="lattices"):
        ising_annealed_importance_sampling(4, 4, [0.0, 1.0], 1, seed=0)
