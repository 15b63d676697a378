"""How often the tests of `validate` reject what is right: stated against measured rates.

An exact sampler draws new states in every step, so that every p-value of the judge should be uniform. Rates at the
level in use are too small to measure; there the tail of each kind of test is computed from an exact law.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import binom, chi2, kstwo, kstwobign

from ...api.records import Claim
from ...api.samplers import Dynamics, Sampler, State, Target, Temperature
from ...api.statistics import chi_square, mean_of_draws
from ..chains import start_of
from ..judge import validate
from ..means import ExactDraws, Moments, mean_test

LEVELS = (1e-1, 1e-2, 1e-3)
LEVEL_IN_USE = 1e-8
CHAINS = 4000
ANY = "any test on a target"
"""The kind that stands for all tests of a pair together: the rate that the closing line of `validate` states."""


class Rate(NamedTuple):
    """A kind of test, how many there were, and how many were rejected at each of `LEVELS`."""

    kind: str
    tests: int
    rejected: tuple[int, ...]

    def ratios(self) -> list[float]:
        """Measured over stated rates: 1 is right, more is too often."""
        return [count / (self.tests * level) for count, level in zip(self.rejected, LEVELS, strict=True)]

    @property
    def too_often(self) -> bool:
        """Whether twice the stated rate would hardly explain the count at one of the levels."""
        pairs = zip(self.rejected, LEVELS, strict=True)
        return any(binom.sf(count - 1, self.tests, 2 * level) < 1e-3 for count, level in pairs)


def measured_rates(targets: Iterable[Target], seeds: Iterable[int]) -> list[Rate]:
    """Rates of each kind of test over exact samplers of ``targets``, those with an exact law."""
    p_values: dict[str, list[float]] = {}
    seeds = list(seeds)
    for target in targets:
        if target.law(target.temperatures[0], Dynamics()) is None or target.clamped is not None:
            continue
        for seed in seeds:
            claims = validate(exact_sampler(), target, torch.device("cpu"), seed, chains=CHAINS)
            tests = [(kind_of(claim), claim.p_value) for claim in claims if claim.p_value is not None]
            for kind, p_value in tests:
                p_values.setdefault(kind, []).append(p_value)
            p_values.setdefault(ANY, []).append(min(p_value for _, p_value in tests) * len(tests))
    return [
        Rate(kind, len(found), tuple(int(np.sum(np.array(found) < level)) for level in LEVELS))
        for kind, found in sorted(p_values.items())
    ]


def kind_of(claim: Claim) -> str:
    """The test behind a claim with a p-value."""
    for words, kind in (
        ("chi-square", "counts of cells"), ("Kolmogorov", "Kolmogorov-Smirnov"), ("two-sample", "two samples"),
        ("measured", "mean"),
    ):  # fmt: skip
        if claim.message.startswith(words):
            return kind
    return claim.claim.partition(" after ")[0]


def exact_sampler() -> Sampler:
    """Independent exact draws in every step, for every target with an exact law."""

    def init(target: Target, start: torch.Tensor, seed: int, first_chain: int) -> State:
        return {"x": start, "target": target, "seed": seed, "first_chain": first_chain, "step": 0}

    def advance(state: State, steps: int, temperature: Temperature) -> State:
        x, target, step = state["x"], state["target"], state["step"] + steps
        if isinstance(temperature, float):
            name = f"{state['first_chain']} {step}"
            x = start_of(target, target.law(temperature, Dynamics()), len(x), state["seed"], name)
        return {**state, "x": x, "step": step}

    return Sampler("exact draws", "Independent exact draws.", "", "torch", init, advance, reversible=True)


def computed_rates() -> Iterator[tuple[str, float]]:
    """Kinds of tests, and their exact rate at `LEVEL_IN_USE` over the stated one."""
    level = LEVEL_IN_USE
    for n in (1024, 107_000):
        yield f"Kolmogorov-Smirnov, {n} draws", float(kstwo.sf(kstwobign.isf(level) / math.sqrt(n), n)) / level
    own = ExactDraws(np.random.default_rng(0).normal(size=1 << 15) ** 2).moments
    assert own is not None
    for n in (1024, 16_384):
        yield f"mean of the square of a normal number, {n} draws", _rate_of_a_square(n, level, own) / level
    for n, p in ((16_384, 0.01), (1000, 0.3)):
        by_law, by_cells = partial(_share_by_its_law, n, p), partial(_share_by_cells, n, p)
        yield f"share of {p:g} by its exact law, {n} draws", _rate_of_counts(n, p, level, by_law) / level
        yield f"two cells, one of {p:g}, {n} draws", _rate_of_counts(n, p, level, by_cells) / level


def _share_by_its_law(n: int, p: float, count: int) -> float | None:
    return mean_of_draws(count / n, (0, 1), (1 - p, p), n).p_value


def _share_by_cells(n: int, p: float, count: int) -> float | None:
    return chi_square((n - count, count), (1 - p, p)).p_value


def _rate_of_a_square(n: int, level: float, own: Moments) -> float:
    ends = []
    for sign in (-1, 1):

        def beyond(distance: float, sign: int = sign) -> float:
            p_value = mean_test(1 + sign * distance, 1.0, own, n)[2]
            return math.log(max(p_value, 1e-300) / level)

        ends.append(1 + sign * brentq(beyond, 0, 12 * math.sqrt(2 / n)))
    return float(chi2.cdf(n * ends[0], n) + chi2.sf(n * ends[1], n))


def _rate_of_counts(n: int, p: float, level: float, p_value: Callable[[int], float | None]) -> float:
    """The probability of the counts that are rejected, of the binomial law; their p-values fall on either side."""
    middle, reach = round(n * p), math.ceil(9 * math.sqrt(n * p * (1 - p))) + 40
    counts = range(max(middle - reach, 0), min(middle + reach, n) + 1)
    rejected = [k for k in counts if (p_value(k) or 0.0) < level]
    outside = binom.cdf(counts[0] - 1, n, p) + binom.sf(counts[-1], n, p)
    return float(binom.pmf(rejected, n, p).sum() + outside)
