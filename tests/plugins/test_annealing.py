"""The annealing experiment passes, and fails with wrong kernels."""

import pytest
from boltzbench.harness import Status
from boltzbench.harness.validation.experiments import conduct
from boltzbench.plugins.experiments import annealing
from support.fakes import CPU


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(annealing, "TEMPERATURES", (0.7, 1.0))
    monkeypatch.setattr(annealing, "SMALL_WAYS", (("one cooling", 1, (4,)), ("any of 2 cycles", 2, (8,))))
    monkeypatch.setattr(annealing, "LARGE_SWEEPS", (16, 32))
    monkeypatch.setattr(annealing, "GLASSES", 2)


def test_annealing(small, monkeypatch):
    outcome = conduct(annealing.EXPERIMENT, CPU, 1)
    assert outcome.status is Status.PASSED, outcome
    assert len(outcome.tried) == 2 + 2 + 2
    assert len(outcome.findings.estimates) == len(outcome.tried) + 4
    assert [len(plot.curves) for plot in outcome.findings.plots] == [4, 4, 3]
    walk, anneal = annealing.annealed_langevin, annealing.anneal_spins

    def too_hot(x, temperatures, step_size, **more):
        return walk(x, 1.3 * temperatures, step_size, **more)

    def too_cold(spins, bonds, temperatures, **more):
        return anneal(spins, bonds, 0.8 * temperatures, **more)

    monkeypatch.setattr(annealing, "annealed_langevin", too_hot)
    monkeypatch.setattr(annealing, "anneal_spins", too_cold)
    failed = {each.claim for each in conduct(annealing.EXPERIMENT, CPU, 1).failed}
    assert "mean passage time, T = 1" in failed
    assert "4 x 4 in 4: one cooling" in failed
    assert "energy of 8 x 8, T = 1.5" in failed
