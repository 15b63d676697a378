"""The test of a mean holds its level far in the tails, and does not trust a law whose tail it cannot see."""

import numpy as np
import pytest
from boltzbench.harness.validation.means import ExactDraws, has_a_known_tail, mean_test
from scipy.optimize import brentq
from scipy.stats import binom, chi2, gamma, norm

DRAWS = 1 << 15

LAWS = {
    "normal": (lambda g: g.normal(size=DRAWS), 0.0, lambda n: norm(scale=n**-0.5)),
    "square of a normal": (lambda g: g.normal(size=DRAWS) ** 2, 1.0, lambda n: chi2(n, scale=1 / n)),
    "exponential": (lambda g: g.exponential(size=DRAWS), 1.0, lambda n: gamma(n, scale=1 / n)),
    "one in 5": (lambda g: (g.random(DRAWS) < 0.2) * 1.0, 0.2, lambda n: binom(n, 0.2)),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("n", [1024, 8192])
@pytest.mark.parametrize("level", [1e-3, 1e-8])
def test_the_level_holds_within_a_factor_of_two(name, n, level):
    draw, exact, law = LAWS[name]
    rates = []
    for seed in range(20):
        moments = ExactDraws(draw(np.random.default_rng(seed))).moments
        assert has_a_known_tail(moments, n)
        rates.append(rate(law(n), exact, moments, n, level, whole=name == "one in 5"))
    assert level / 2.5 < np.mean(rates) < 2 * level


def rate(law, exact, moments, n, level, *, whole):
    """The exact probability that the mean of ``n`` draws is rejected at ``level``."""
    unit = n if whole else 1  # the binomial law is one of counts
    ends = []
    for sign in (-1, 1):

        def above(distance, sign=sign):
            return np.log(max(mean_test(exact + sign * distance, exact, moments, n)[2], 1e-300)) - np.log(level)

        ends.append(unit * (exact + sign * brentq(above, 0, 12 * moments.deviation / n**0.5)))
    return law.cdf(np.ceil(ends[0]) - 1 if whole else ends[0]) + law.sf(np.floor(ends[1]) if whole else ends[1])


def test_a_heavy_tail_is_noticed():
    """The square of Student's t6 has a variance, but a single draw moves a mean far too often."""
    noticed = [
        not has_a_known_tail(ExactDraws(np.random.default_rng(i).standard_t(6, DRAWS) ** 2).moments, 100_000)
        for i in range(20)
    ]
    assert all(noticed)


def test_quantities_that_vary_too_rarely_have_no_known_tail():
    draws = np.random.default_rng(0).random(DRAWS)
    assert ExactDraws(np.zeros(DRAWS)).moments is None
    assert not has_a_known_tail(ExactDraws((draws < 1e-3) * 1.0).moments, 1000)
    assert has_a_known_tail(ExactDraws((draws < 0.5) * 1.0).moments, 1000)
