"""Hypothesis tests accept correct laws and reject wrong ones, at the stated significance level."""

import math

import numpy as np
import pytest
from boltzbench.harness.api.operations import Agreement, Status
from boltzbench.harness.api.statistics import all_of, chi_square, mean_of_draws, within
from scipy.special import chdtri, gammaln
from scipy.stats import binom, norm, poisson

BOLTZMANN = np.exp(-np.linspace(0.0, 3.0, 16))
BOLTZMANN /= BOLTZMANN.sum()


def alarms_are_about(alarms: int, draws: int, rate: float) -> bool:
    return abs(alarms - draws * rate) < 5 * math.sqrt(draws * rate * (1 - rate))


# chi_square -------------------------------------------------------------------------------------------------


def test_chi_square_agrees_with_the_textbook() -> None:
    """Mendel's peas, 315, 101, 108, 32 against 9:3:3:1: G = 0.4754 over 3 degrees of freedom, Williams' q = 1.0027."""
    agreement = chi_square([315, 101, 108, 32], np.array([9, 3, 3, 1]) / 16, false_alarm=0.05)
    assert agreement.status is Status.PASSED
    assert agreement.error == pytest.approx(0.4754 / 1.0027, abs=2e-4)
    assert agreement.bound == pytest.approx(7.815, abs=5e-4)
    assert agreement.p_value == pytest.approx(0.9244, abs=5e-4)


@pytest.mark.parametrize("rate", [0.2, 0.02])
def test_chi_square_raises_false_alarms_at_the_stated_rate(rate: float) -> None:
    draws = np.random.default_rng(1).multinomial(5_000, BOLTZMANN, size=2_000)
    alarms = sum(not chi_square(counts, BOLTZMANN, false_alarm=rate).passed for counts in draws)
    assert alarms_are_about(alarms, len(draws), rate)


def test_chi_square_keeps_its_rate_where_it_pools() -> None:
    rare = np.concatenate([np.full(4, 0.24), np.full(40, 0.001)])
    draws = np.random.default_rng(2).multinomial(500, rare, size=2_000)
    alarms = sum(not chi_square(counts, rare, false_alarm=0.1).passed for counts in draws)
    assert alarms_are_about(alarms, len(draws), 0.1)


@pytest.mark.parametrize("rate", [1e-3, 1e-6, 1e-8])
@pytest.mark.parametrize("expected", [5, 10, 100])
def test_the_rate_of_two_cells_is_exact_to_a_factor_of_two(expected: float, rate: float) -> None:
    """Summed over all counts of the rarer cell. Pearson's statistic misses the rate 250 times at 1e-8 and 10 draws."""
    draws = 100_000
    possible = range(20 * expected)
    law = [expected / draws, 1 - expected / draws]
    rejected = [n for n in possible if not chi_square([n, draws - n], law, false_alarm=rate).passed]
    assert 0.1 * rate < binom.pmf(rejected, draws, law[0]).sum() < 2 * rate


@pytest.mark.parametrize("rate", [1e-3, 1e-6, 1e-8])
@pytest.mark.parametrize(
    "law", [np.full(16, 1 / 16), np.full(256, 1 / 256), np.r_[np.full(15, 1e-3), 0.985]], ids=["16", "256", "15 rare"]
)
def test_the_rate_of_many_rare_cells_is_exact_to_a_factor_of_two(law: np.ndarray, rate: float) -> None:
    """By importance sampling from Dirichlet-multinomial counts, about as far off as the critical value.

    10 draws are expected in the rarest cell.
    """
    rng, draws, samples = np.random.default_rng(7), round(10 / law.min()), 2000
    freedom = len(law) - 1
    spread = chdtri(freedom, rate) / freedom
    alpha = (draws - spread) / (spread - 1) * law
    weights = rng.gamma(alpha, size=(samples, len(law)))
    counts = rng.multinomial(draws, weights / weights.sum(1, keepdims=True)).astype(float)
    own = (counts * np.log(law)).sum(1)
    proposal = gammaln(alpha.sum()) - gammaln(draws + alpha.sum()) + (gammaln(counts + alpha) - gammaln(alpha)).sum(1)
    rejected = np.array([not chi_square(each, law, false_alarm=rate).passed for each in counts])
    measured = np.exp(own - proposal) * rejected
    error = measured.std() / samples**0.5
    assert measured.mean() - 4 * error < 2 * rate
    assert measured.mean() + 4 * error > rate / 2
    assert error < 0.25 * rate


def test_chi_square_rejects_a_law_of_another_temperature() -> None:
    hotter = BOLTZMANN**0.95 / (BOLTZMANN**0.95).sum()
    agreement = chi_square(np.random.default_rng(3).multinomial(400_000, hotter), BOLTZMANN)
    assert agreement.status is Status.WRONG_LAW
    assert agreement.error is not None
    assert agreement.bound is not None
    assert agreement.error > agreement.bound
    assert agreement.p_value is not None
    assert agreement.p_value < 1e-6


def test_chi_square_names_the_cell_that_is_furthest_off() -> None:
    agreement = chi_square([1000, 1000, 1300], [1 / 3, 1 / 3, 1 / 3])
    assert agreement.status is Status.WRONG_LAW
    assert "furthest cell 2: drawn 1300 times, expected 1100.0 (+7.4 standard deviations)" in agreement.message


def test_chi_square_pools_rare_cells_and_says_so() -> None:
    lopsided = chi_square([500, 440, 20, 40], [0.5, 0.494, 0.003, 0.003])
    assert lopsided.status is Status.WRONG_LAW
    assert "over 2 degrees of freedom" in lopsided.message
    assert "furthest the pool of the 2 rarest cells: drawn 60 times, expected 6.0" in lopsided.message


def test_chi_square_enlarges_a_pool_that_is_itself_too_rare() -> None:
    agreement = chi_square([500, 300, 198, 2], [0.5, 0.3, 0.198, 0.002])
    assert agreement.passed
    assert "over 2 degrees of freedom" in agreement.message


def test_cells_that_are_all_rare_share_several_pools() -> None:
    law = np.full(16, 1 / 16)
    even, lopsided = np.full(16, 4), np.r_[np.full(8, 8), np.zeros(8)]
    assert chi_square(even, law).passed
    agreement = chi_square(lopsided, law)
    assert agreement.status is Status.WRONG_LAW
    assert "over 4 degrees of freedom" in agreement.message


def test_one_draw_in_an_impossible_cell_fails() -> None:
    agreement = chi_square([10**6, 1], [1.0, 0.0])
    assert (agreement.status, agreement.p_value) == (Status.WRONG_LAW, 0.0)
    assert agreement.message == "cell 1 has probability 0 and was drawn 1 times of 1000001"


def test_a_law_with_one_possible_cell_holds_when_it_is_drawn() -> None:
    assert chi_square([7, 0], [1.0, 0.0]).passed


@pytest.mark.parametrize(
    ("counts", "probabilities", "words"),
    [
        ([1, 2], [0.5, 0.25, 0.25], "want one list each"),
        ([[1, 2]], [[0.5, 0.5]], "want one list each"),
        ([0, 0], [0.5, 0.5], "not all 0"),
        ([-1, 2], [0.5, 0.5], "none negative"),
        ([0.5, 2], [0.5, 0.5], "whole numbers"),
        ([math.nan, 2], [0.5, 0.5], "whole numbers"),
        ([10, 20], [0.5, 0.4], "sum to 1"),
        ([10, 20], [1.5, -0.5], "at least 0"),
        ([10, 20], [math.nan, 1.0], "at least 0"),
        ([2, 2], [0.5, 0.5], "4 draws are too few to distinguish 2 cells"),
    ],
)
def test_chi_square_refuses_what_it_cannot_test(counts: list[float], probabilities: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        chi_square(counts, probabilities)


# within -----------------------------------------------------------------------------------------------------


def test_within_reports_z_and_p() -> None:
    agreement = within(1.3, 1.0, 0.1, what="<x^2>")
    assert agreement.status is Status.PASSED
    assert agreement.error == pytest.approx(3.0)
    assert agreement.bound == pytest.approx(4.8916, abs=1e-4)
    assert agreement.p_value == pytest.approx(0.0026998, abs=1e-7)
    assert agreement.message == "<x^2>: measured 1.3 ± 0.1, exact 1, z = +3.00, p = 0.0027"
    assert "z = +1e+100, p = 0" in within(1e99, 1.0, 0.1).message, "no hundred digits"


@pytest.mark.parametrize("measured", [1.5, 0.5])
def test_within_rejects_on_both_sides(measured: float) -> None:
    assert within(measured, 1.0, 0.1).status is Status.WRONG_LAW


def test_within_raises_false_alarms_at_the_stated_rate() -> None:
    measured = np.random.default_rng(4).normal(2.0, 0.5, size=5_000)
    alarms = sum(not within(float(m), 2.0, 0.5, false_alarm=0.1).passed for m in measured)
    assert alarms_are_about(alarms, len(measured), 0.1)


@pytest.mark.parametrize(("measured", "stderr"), [(math.nan, 0.1), (1.0, math.nan), (math.inf, 0.1), (1.1, 0.0)])
def test_within_rejects_broken_draws_and_draws_that_never_vary(measured: float, stderr: float) -> None:
    agreement = within(measured, 1.0, stderr)
    assert (agreement.status, agreement.p_value, agreement.error) == (Status.WRONG_LAW, 0.0, math.inf)


def test_within_keeps_an_exact_value_without_error() -> None:
    assert within(1.0, 1.0, 0.0).passed


@pytest.mark.parametrize(("exact", "stderr"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, -1.0)])
def test_within_refuses_what_it_cannot_test(exact: float, stderr: float) -> None:
    with pytest.raises(ValueError, match=r"exact value must be finite|standard error cannot be negative"):
        within(1.0, exact, stderr)


@pytest.mark.parametrize("false_alarm", [0.0, 1.0, -0.1, math.nan])
def test_a_false_alarm_rate_is_a_probability(false_alarm: float) -> None:
    with pytest.raises(ValueError, match="false_alarm"):
        within(1.0, 1.0, 1.0, false_alarm=false_alarm)
    with pytest.raises(ValueError, match="false_alarm"):
        chi_square([10, 10], [0.5, 0.5], false_alarm=false_alarm)


# mean_of_draws ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("draws", "p"), [(1000, 0.3), (16384, 0.01), (100, 0.5)])
@pytest.mark.parametrize("z", [-4.0, 0.3, 6.0])
def test_the_tail_of_a_share_is_the_binomial_one(draws: int, p: float, z: float) -> None:
    count = round(draws * p + z * math.sqrt(draws * p * (1 - p)))
    exact = binom.sf(count - 1, draws, p) if z > 0 else binom.cdf(count, draws, p)
    found = mean_of_draws(count / draws, [0.0, 1.0], [1 - p, p], draws).p_value
    assert found == pytest.approx(min(2 * exact, 1.0), rel=0.1)


def test_the_tail_of_a_skewed_mean_is_exact_where_a_normal_one_is_wrong() -> None:
    """Squares of the energies of 300 cold lattices with few excitations, against their convolution."""
    chances, draws = poisson.pmf(np.arange(20), 1.15), 300
    chances /= chances.sum()
    values = (4 * np.arange(20) - 5) ** 2
    law = np.zeros(1 << 21)
    law[values] = chances
    total = np.fft.irfft(np.fft.rfft(law) ** draws, len(law))
    count = int(np.searchsorted(-np.cumsum(total[::-1])[::-1], -3.5e-8))
    found = mean_of_draws(count / draws, values, chances, draws)
    assert found.p_value == pytest.approx(7e-8, rel=0.1)
    assert 2 * norm.sf(found.error) < 1e-3 * found.p_value


def test_impossible_and_broken_means_fail_and_constants_pass() -> None:
    for measured in (1.1, math.nan, math.inf, -math.inf):
        assert not mean_of_draws(measured, [0.0, 1.0], [0.5, 0.5], 10).passed
    assert mean_of_draws(1.0, [0.0, 1.0], [0.5, 0.5], 10).p_value == pytest.approx(2 * 0.5**10, rel=0.5)
    assert mean_of_draws(2.0, [2.0, 3.0], [1.0, 0.0], 10).p_value == 1.0
    assert not mean_of_draws(2.1, [2.0, 3.0], [1.0, 0.0], 10).passed


@pytest.mark.parametrize(
    ("values", "probabilities", "draws", "words"),
    [
        ([0.0, 1.0], [1.0], 5, "one list each"),
        ([0.0, math.nan], [0.5, 0.5], 5, "finite numbers"),
        ([0.0, 1.0], [0.5, 0.6], 5, "sum to 1"),
        ([0.0, 1.0], [0.5, 0.5], 0, "draws must be at least 1, got 0"),
    ],
)
def test_a_mean_needs_a_law_and_draws(values: list[float], probabilities: list[float], draws: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mean_of_draws(0.5, values, probabilities, draws)


# all_of -----------------------------------------------------------------------------------------------------


def test_all_of_returns_a_failure_before_any_pass_and_then_the_worst() -> None:
    near = Agreement(Status.PASSED, error=0.9, bound=1.0)
    far = Agreement(Status.PASSED, error=5.0, bound=100.0)
    exact = Agreement(Status.PASSED, error=0.0, bound=0.0)
    silent = Agreement(Status.PASSED)
    wrong = Agreement(Status.WRONG_LAW, error=2.0, bound=1.0)
    broken = Agreement(Status.ERROR, "raised")
    low = Agreement(Status.WRONG_LAW, error=0.1, bound=1.0)  # of a law whose statistic is too small

    assert all_of([exact, far, near, silent]) is near
    assert all_of([near, wrong, far]) is wrong
    assert all_of([wrong, broken]) is broken
    assert all_of([near, low]) is low
    assert all_of([exact]) is exact
    assert all_of([exact, Agreement(Status.WRONG_VALUES, error=1e-9, bound=0.0), wrong]).bound == 0.0


def test_all_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one verdict"):
        all_of([])
