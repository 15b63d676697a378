"""Annealed Langevin walkers: the same walk on every backend, and consistency of the chain's exact results."""

import math

import pytest
import torch
from boltzbench.kernels import schedules
from boltzbench.kernels.annealed_langevin import annealed_langevin
from boltzbench.plugins.exact import double_well as exact
from boltzbench.plugins.operations.langevin import annealed_langevin as plugin
from support.devices import BACKENDS, DEVICE

STEPS = schedules.geometric(4, 1.0, 0.1)


def positions(walkers):
    return torch.randn(walkers, generator=torch.Generator().manual_seed(0)).to(DEVICE).clamp(-3, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("first_walker", [0, 2, 2**34 + 1])
def test_a_step_of_size_zero_moves_nothing_and_passages_count_from_the_start_of_the_stream(backend, first_walker):
    x = positions(9)
    still, passages = annealed_langevin(
        x, STEPS, 0.0, threshold=0.5, seed=1, first_step=10, first_walker=first_walker, backend=backend
    )
    assert torch.equal(still, x)
    assert passages.tolist() == [11 if at >= 0.5 else -1 for at in x.tolist()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_cold_walkers_fall_into_the_nearest_well(backend):
    x = torch.tensor([-1.5, -0.7, -0.1, 0.1, 0.7, 1.5], device=DEVICE)
    fallen = annealed_langevin(x, schedules.constant(45, 1e-30), 0.1, seed=0, backend=backend).x
    torch.testing.assert_close(fallen, x.sign(), rtol=0, atol=1e-5)


def test_the_input_is_not_modified_and_may_be_strided():
    x = positions(40)
    before = x.clone()
    every_other = annealed_langevin(x[::2], STEPS, 0.05, seed=3)
    assert torch.equal(x, before)
    assert torch.equal(every_other.x, annealed_langevin(x[::2].contiguous(), STEPS, 0.05, seed=3).x)
    assert every_other.passages is None


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"x": torch.zeros(4, 1, device=DEVICE)}, ValueError, "x must have shape"),
        ({"x": torch.zeros(4, device=DEVICE).double()}, TypeError, "x must have dtype"),
        ({"temperatures": STEPS.float()}, TypeError, "temperatures must have dtype"),
        ({"temperatures": STEPS[:0]}, ValueError, "temperatures must have one"),
        ({"temperatures": -STEPS}, ValueError, "temperatures must be positive"),
        ({"step_size": -0.1}, ValueError, "step_size"),
        ({"step_size": math.nan}, ValueError, "step_size"),
        ({"threshold": math.nan}, ValueError, "threshold"),
        ({"passages": torch.zeros(4, dtype=torch.int32, device=DEVICE)}, ValueError, "needs a threshold"),
        ({"passages": torch.zeros(4, device=DEVICE), "threshold": 1.0}, TypeError, "passages must have dtype"),
        (
            {"passages": torch.zeros(3, dtype=torch.int32, device=DEVICE), "threshold": 1.0},
            ValueError,
            "passages must have shape",
        ),
        ({"threshold": 1.0, "first_step": 2**31 - 4}, ValueError, "first_step"),
        ({"first_step": 2**32 - 3}, ValueError, "first_step"),
        ({"first_walker": -1}, ValueError, "first_walker"),
        ({"seed": 2**64}, ValueError, "seed"),
        ({"out": torch.zeros(8, device=DEVICE)[::2]}, ValueError, "out must be contiguous"),
        ({"backend": "numpy"}, ValueError, "backend"),
    ],
)
def test_errors_name_the_argument(changed, error, words):
    given = {"x": torch.zeros(4, device=DEVICE), "temperatures": STEPS, "step_size": 0.05, "seed": 0, **changed}
    with pytest.raises(error, match=words):
        annealed_langevin(given.pop("x"), given.pop("temperatures"), given.pop("step_size"), **given)


def test_out_may_not_be_the_input():
    x = torch.zeros(4, device=DEVICE)
    with pytest.raises(ValueError, match="out must not share memory with x"):
        annealed_langevin(x, STEPS, 0.05, seed=0, out=x)


def test_the_exact_passage_times_agree_with_each_other():
    """Kramers' formula is 4 to 20 % too low for T from 0.1 to 1; small steps approach the continuum."""
    assert exact.continuum_passage(0.25) / exact.kramers(0.25) == pytest.approx(1.14, abs=0.01)
    chances = exact.passage_probabilities(600, 1.0, 0.1)
    steps = torch.arange(1, 602, dtype=torch.float64)
    mean, truncated = exact.mean_passage(1.0, 0.1, 600)
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(chances @ steps.clamp(max=600)) == pytest.approx(truncated, rel=1e-10)
    assert truncated == pytest.approx(mean, rel=1e-3)
    assert exact.mean_passage(1.0, 0.02, 1)[0] * 0.01 == pytest.approx(exact.continuum_passage(1.0), rel=0.03)


def test_a_small_step_keeps_the_boltzmann_distribution():
    """<x^2> and <E> at T = 0.25 by quadrature: 0.917671 and 0.144829."""
    x = torch.linspace(-exact.WALL, exact.WALL, 4001, dtype=torch.float64, device=DEVICE)
    density = exact.boltzmann(0.25)(x)
    density /= density.sum()
    assert float(density @ x.square()) == pytest.approx(0.917671, abs=1e-6)
    assert float(density @ exact.energy(x)) == pytest.approx(0.144829, abs=1e-6)
    means = exact.stationary_means(0.25, 0.005)
    assert means["x squared"] == pytest.approx(0.917671, abs=2e-3)
    assert means["energy"] == pytest.approx(0.144829, abs=2e-3)


def test_the_cost_counts_steps():
    cost = plugin.cost(next(case for case in plugin.CASES if case.sizes["walkers"] == 10_000_000))
    assert (cost.items, cost.bytes_read, cost.bytes_written) == (10**9, 4 * 10**7, 4 * 10**7)
