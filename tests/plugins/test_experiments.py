"""The suite's own experiments pass, and fail with wrong kernels."""

import warnings

import pytest
import torch
from boltzbench.harness import Findings, Status
from boltzbench.harness.validation.experiments import conduct
from boltzbench.kernels.ais import CollapsedWeights
from boltzbench.plugins.experiments import (
    contrastive_divergence,
    flat_minima,
    ising_thermodynamics,
    label_noise,
    partition_function,
)
from support.fakes import CPU


def experiment_of(plugin):
    given = []
    plugin.register_experiments(register=given.append)
    return given[0]


def failing(plugin):
    return {each.claim for each in conduct(experiment_of(plugin), CPU, 1).failed}


@pytest.fixture
def small_ising(monkeypatch):
    monkeypatch.setattr(ising_thermodynamics, "TEMPERATURES", (2.0, 3.0))
    monkeypatch.setattr(ising_thermodynamics, "SIDE", 4)


def test_ising_thermodynamics(small_ising, monkeypatch):
    outcome = conduct(experiment_of(ising_thermodynamics), CPU, 1)
    assert outcome.status is Status.PASSED, outcome
    assert len(outcome.tried) == 4
    right = ising_thermodynamics.ising_sweeps

    def too_cold(spins, width, sweeps, beta, **more):
        return right(spins, width, sweeps, 1.2 * beta, **more)

    monkeypatch.setattr(ising_thermodynamics, "ising_sweeps", too_cold)
    assert "energy of a spin, T = 3" in failing(ising_thermodynamics)


def test_contrastive_divergence(monkeypatch):
    monkeypatch.setattr(contrastive_divergence, "SWEEPS", (1, 2))
    monkeypatch.setattr(contrastive_divergence, "SAMPLED_UPDATES", 200)
    outcome = conduct(experiment_of(contrastive_divergence), CPU, 1)
    assert outcome.status is Status.PASSED, outcome
    gain = outcome.findings.estimates[-1]
    assert (gain.claim, gain.status) == ("nats gained on the digits", None)
    assert gain.measured > 2
    (picture,) = outcome.findings.pictures
    pixels = torch.tensor(picture.rows)
    assert pixels.shape == (40, 80)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    one, *others = pixels.unfold(0, 10, 10).unfold(1, 10, 10).flatten(0, 1)
    assert min((each - one).abs().mean() for each in others) > 0.05, "two sampled images are alike"
    right = contrastive_divergence.gibbs

    def one_sweep_more(data, weights, visible_bias, hidden_bias, sweeps, **more):
        return right(data, weights, visible_bias, hidden_bias, sweeps + 1, **more)

    monkeypatch.setattr(contrastive_divergence, "gibbs", one_sweep_more)
    assert failing(contrastive_divergence) == {"bias of CD-1", "bias of CD-2"}


def test_occupancy_of_flat_minima(monkeypatch):
    monkeypatch.setattr(flat_minima, "TEMPERATURES", (2.0,))
    monkeypatch.setattr(flat_minima, "STEPS", {0.1: 250})
    (found,) = flat_minima.occupancy(4096, CPU, 1).estimates
    assert abs(found.measured - found.exact) < 4 * found.stderr
    assert found.exact - flat_minima.flat_share(2.0, 0.0) > 6 * found.stderr, "the step size has no effect"
    right = flat_minima.sgld_update

    def without_the_half(x, gradient, *numbers, **more):
        right(x, 2 * gradient, *numbers, **more)

    monkeypatch.setattr(flat_minima, "sgld_update", without_the_half)
    (wrong,) = flat_minima.occupancy(4096, CPU, 1).estimates
    assert abs(wrong.measured - wrong.exact) > 6 * wrong.stderr


def test_the_largest_eigenvalue_is_that_of_the_hessian():
    a = torch.diag(torch.tensor([1.0, 2.0, 7.0]))
    x = torch.ones(2, 1, 3, requires_grad=True)
    scale = torch.tensor([1.0, 3.0])

    def loss():
        return (scale * torch.einsum("sij,jk,sik->s", x, a, x)).sum() / 2

    found = flat_minima._largest_eigenvalue(loss, [x])
    torch.testing.assert_close(found, 7 * scale, rtol=1e-4, atol=0)


def test_the_network_trains_for_every_seed(monkeypatch):
    monkeypatch.setattr(flat_minima, "HEATED_STEPS", 60)
    monkeypatch.setattr(flat_minima, "QUENCHED_STEPS", 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    sharpness, accuracy = flat_minima.network((0.0, 0.05), range(2), CPU)
    torch.set_num_threads(threads)
    assert (accuracy[0] > 0.75).all()
    assert (sharpness > 0).all()
    assert (accuracy[1] < accuracy[0]).all(), "strong noise does not reduce the accuracy"


def test_label_noise(monkeypatch):
    monkeypatch.setattr(label_noise, "CPU_EPOCHS", 2)
    monkeypatch.setattr(label_noise, "CPU_SEEDS", 2)
    outcome = conduct(experiment_of(label_noise), CPU, 1)
    assert outcome.status is Status.PASSED, outcome.message
    assert [each.claim for each in outcome.findings.estimates][1:3] == [
        "gain in accuracy, noise 0.2",
        "gain in accuracy, noise 0.4",
    ]
    assert not outcome.tried
    (plot,) = outcome.findings.plots
    assert [each.name for each in plot.curves] == ["cross-entropy", "q = 0.7"]


def test_only_collapsed_weights_are_counted_and_other_warnings_are_shown(monkeypatch):
    def warn(device, seed):
        warnings.warn("few chains", CollapsedWeights, stacklevel=1)
        warnings.warn("an old name", FutureWarning, stacklevel=1)
        return Findings(())

    monkeypatch.setattr(partition_function, "_run", warn)
    with pytest.warns(FutureWarning, match="an old name") as shown:
        (several,) = partition_function.run(CPU, 1).estimates
    assert len(shown) == 1
    assert several.measured == 1


def test_partition_function(monkeypatch):
    small = partition_function.Budget(200, (5, 20), 20, 32, (10, 30), 60, 40)
    monkeypatch.setitem(partition_function.BUDGETS, "cpu", small)
    outcome = conduct(experiment_of(partition_function), CPU, 1)
    assert outcome.status is Status.PASSED, outcome
    assert len(outcome.tried) == 7
    measured = {each.claim: each.measured for each in outcome.findings.estimates}
    assert measured["log p of a held-out digit, AIS"] < 0 < measured["effective sample size, AIS, digits"] <= 200
    assert measured["AIS runs with collapsed weights"] == 2  # 5 steps, and 20 on the torus: 200 chains are few
    monkeypatch.setitem(partition_function.BUDGETS, "cpu", small._replace(steps=(1, 2, 20)))
    coarse = conduct(experiment_of(partition_function), CPU, 1).findings.estimates[-1]
    assert (coarse.claim, coarse.measured) == ("AIS runs with collapsed weights", 3)
    monkeypatch.setitem(partition_function.BUDGETS, "cpu", small)
    right = partition_function.parallel_tempering

    def too_hot(replicas, betas, *given, **more):
        honest = replicas.advance
        replicas.advance = lambda of_replicas, number: honest(0.7 * of_replicas, number)
        return right(replicas, betas, *given, **more)

    monkeypatch.setattr(partition_function, "parallel_tempering", too_hot)
    assert failing(partition_function) == {"log Z, RBM, tempering", "log Z, torus, tempering"}
