"""Hypothesis tests for authors of laws: each turns draws and an exact answer into a verdict.

``false_alarm`` is the significance level: the probability of rejecting a correct implementation. A law that makes n
tests divides it by n (Bonferroni) and combines the verdicts with `all_of`.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import chdtrc, chdtri, ndtr, ndtri, xlogy

from .messages import in_standard_errors
from .operations import Agreement, Status

FEWEST_EXPECTED = 10.0
"""Cells with a smaller expected count are pooled: where many are rarer, the statistic is not chi-square distributed."""
FEWEST_POOLED = 5.0
"""The last pool takes further cells until it expects this many draws."""


def chi_square(observed_counts: ArrayLike, probabilities: ArrayLike, *, false_alarm: float = 1e-6) -> Agreement:
    """The likelihood-ratio test of independent draws against an exact discrete law.

    ``observed_counts[i]`` = n_i draws of N fell into cell i, which has the exact probability ``probabilities[i]``
    = p_i. The statistic is ``2 sum n_i log(n_i / (N p_i))`` over Williams' correction
    ``1 + (sum 1 / p_i - 1) / (6 N k)``, with k degrees of freedom, one less than there are cells (Williams 1976).
    ``error`` is the statistic, ``bound`` its critical value. A draw in a cell of probability 0 fails at once.

    Cells with an expected count below `FEWEST_EXPECTED` are pooled. A true law is then rejected at most twice as often
    as ``false_alarm`` says, down to 1e-8 and for up to 1024 cells. Pearson's statistic rejects it 27 times as often at
    1e-6 where the law has 15 cells with 5 expected draws beside a common one. Raises ValueError for arguments that are
    not counts or probabilities, and for too few draws to test.
    """
    _require_false_alarm(false_alarm)
    counts = np.asarray(observed_counts, dtype=np.float64)
    chances = np.asarray(probabilities, dtype=np.float64)
    if counts.shape != chances.shape or counts.ndim != 1:
        raise ValueError(f"counts have shape {counts.shape}, probabilities {chances.shape}: want one list each")
    if not (np.isfinite(counts) & (counts >= 0) & (counts == np.round(counts))).all() or not counts.sum():
        raise ValueError("counts must be whole numbers, none negative and not all 0")
    if not (chances >= 0).all() or not math.isclose(chances.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(f"probabilities must be at least 0 and sum to 1; their sum is {chances.sum()}")

    impossible = np.flatnonzero((chances == 0) & (counts > 0))
    if impossible.size:
        cell = impossible[0]
        message = f"cell {cell} has probability 0 and was drawn {counts[cell]:.0f} times of {counts.sum():.0f}"
        return Agreement(Status.WRONG_LAW, message, error=math.inf, bound=0.0, p_value=0.0)
    expected = chances / chances.sum() * counts.sum()
    names, observed, expected = _pool(counts, expected)
    freedom = len(names) - 1
    if not freedom:
        if np.count_nonzero(chances) > 1:
            raise ValueError(f"{counts.sum():.0f} draws are too few to distinguish {np.count_nonzero(chances)} cells")
        return Agreement(Status.PASSED, "the only possible cell was drawn", error=0.0, bound=0.0, p_value=1.0)

    correction = 1 + ((counts.sum() / expected).sum() - 1) / (6 * counts.sum() * freedom)
    statistic = float(2 * xlogy(observed, observed / expected).sum() / correction)
    critical = float(chdtri(freedom, false_alarm))
    p_value = float(chdtrc(freedom, statistic))
    deviations = (observed - expected) / np.sqrt(expected * (1 - expected / counts.sum()))
    worst = int(np.abs(deviations).argmax())
    message = (
        f"chi-square {statistic:.4g} over {freedom} degrees of freedom, critical {critical:.4g}, p = {p_value:.2g}; "
        f"furthest {names[worst]}: drawn {observed[worst]:.0f} times, expected {expected[worst]:.1f} "
        f"({deviations[worst]:+.1f} standard deviations)"
    )
    status = Status.PASSED if statistic <= critical else Status.WRONG_LAW
    return Agreement(status, message, error=statistic, bound=critical, p_value=p_value)


def _pool(counts: np.ndarray, expected: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names, observed and expected counts of the possible cells, the rare ones in pools.

    Rare cells, the rarest first, fill pools of `FEWEST_EXPECTED` or more. What is left is a pool of its own from
    `FEWEST_POOLED` on, and else joins the last one, or the rarest of the others.
    """
    rarest_first = [cell for cell in np.argsort(expected, kind="stable") if expected[cell] > 0]
    pools: list[list[int]] = [[]]
    common = [cell for cell in rarest_first if expected[cell] >= FEWEST_EXPECTED]
    for cell in rarest_first[: len(rarest_first) - len(common)]:
        pools[-1].append(cell)
        if expected[pools[-1]].sum() >= FEWEST_EXPECTED:
            pools.append([])
    left = pools.pop()
    if left and expected[left].sum() < FEWEST_POOLED and pools:
        pools[-1] += left
    elif left:
        while expected[left].sum() < FEWEST_POOLED and common:
            left.append(common.pop(0))
        pools.append(left)
    common.sort()
    names = [f"cell {cell}" for cell in common]
    names += (
        [f"the pool of the {len(pools[0])} rarest cells"]
        if len(pools) == 1
        else [f"pool {number} of {len(each)} rare cells" for number, each in enumerate(pools, 1)]
    )
    cells = [[cell] for cell in common] + pools
    return names, np.array([counts[each].sum() for each in cells]), np.array([expected[each].sum() for each in cells])


def within(measured: float, exact: float, stderr: float, *, false_alarm: float = 1e-6, what: str = "") -> Agreement:
    """A two-sided z-test: ``measured`` with the standard error ``stderr`` against the exact value.

    ``error`` is the absolute z, ``bound`` its critical value; ``what`` names the quantity in the message. A measured
    value or standard error of NaN fails, since broken draws produce it. A standard error of 0 allows no deviation.
    """
    _require_false_alarm(false_alarm)
    if not math.isfinite(exact):
        raise ValueError(f"the exact value must be finite, not {exact}")
    if stderr < 0:
        raise ValueError(f"a standard error cannot be negative: {stderr}")
    critical = float(-ndtri(false_alarm / 2))
    deviation = measured - exact
    z = deviation / stderr if stderr else math.copysign(math.inf, deviation) if deviation else 0.0
    p_value = float(2 * ndtr(-abs(z)))
    name = f"{what}: " if what else ""
    far = in_standard_errors(z)
    message = f"{name}measured {measured:.9g} ± {stderr:.2g}, exact {exact:.9g}, z = {far}, p = {p_value:.2g}"
    if math.isnan(z):
        return Agreement(Status.WRONG_LAW, message, error=math.inf, bound=critical, p_value=0.0)
    status = Status.PASSED if abs(z) <= critical else Status.WRONG_LAW
    return Agreement(status, message, error=abs(z), bound=critical, p_value=p_value)


def mean_of_draws(
    measured: float,
    values: ArrayLike,
    probabilities: ArrayLike,
    draws: int,
    *,
    false_alarm: float = 1e-6,
    what: str = "",
) -> Agreement:
    """Test ``measured``, the mean of independent draws of a quantity with a known discrete law, two-sided.

    ``values[i]`` has the exact probability ``probabilities[i]``. The tail probability is Lugannani and Rice's (1980),
    from the exact cumulant generating function, with a continuity correction of half the smallest gap between values.
    It holds far in the tails, however skewed the law. ``error`` is the absolute z under the exact law, ``bound`` the
    z of a normal law at ``false_alarm``; the verdict is that of ``p_value``. Raises ValueError for other arguments.
    """
    _require_false_alarm(false_alarm)
    x, p = np.asarray(values, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if x.shape != p.shape or x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError(f"values have shape {x.shape}, probabilities {p.shape}: want one list each of finite numbers")
    if not (p >= 0).all() or not math.isclose(p.sum(), 1.0, abs_tol=1e-6):
        raise ValueError(f"probabilities must be at least 0 and sum to 1; their sum is {p.sum()}")
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    x, p = x[p > 0], p[p > 0] / p.sum()
    exact = float(p @ x)
    deviation = math.sqrt(float(p @ np.square(x - exact)))
    stderr = deviation / math.sqrt(draws)
    distance = measured - exact
    if stderr:
        z = distance / stderr
        gap = float(np.diff(np.unique(x)).min())
        nearer = math.copysign(max(abs(distance) - gap / (2 * draws), 0.0), distance) / deviation
        p_value = _tail_of_mean(nearer, (x - exact) / deviation, p, draws)
    else:
        z = math.copysign(math.inf, distance) if abs(distance) > 1e-12 * abs(exact) else 0.0
        p_value = 0.0 if z else 1.0
    name = f"{what}: " if what else ""
    far = in_standard_errors(z)
    message = f"{name}measured {measured:.9g} ± {stderr:.2g}, exact {exact:.9g}, z = {far}, p = {p_value:.2g}"
    status = Status.PASSED if p_value >= false_alarm else Status.WRONG_LAW
    error = math.inf if math.isnan(z) else abs(z)
    return Agreement(status, message, error=error, bound=float(-ndtri(false_alarm / 2)), p_value=p_value)


def _tail_of_mean(distance: float, scores: np.ndarray, p: np.ndarray, draws: int) -> float:
    """Twice the probability that the mean of so many draws of ``scores`` (mean 0, variance 1) is as far on its side."""
    if not abs(distance) * math.sqrt(draws) > 1e-3:  # the two terms below cancel there
        return 0.0 if math.isnan(distance) else 1.0
    scores, distance = math.copysign(1.0, distance) * scores, abs(distance)
    most = float(scores.max())
    if distance >= most:
        return 0.0

    def tilted(t: float) -> tuple[float, np.ndarray]:
        weights = np.exp(t * (scores - most)) * p
        return t * most + math.log(weights.sum()), weights / weights.sum()

    end = 1.0
    while tilted(end)[1] @ scores < distance:
        end *= 2
    t = brentq(lambda t: float(tilted(t)[1] @ scores) - distance, 0.0, end, xtol=1e-12)
    cumulant, law = tilted(t)
    w = math.sqrt(max(2 * draws * (t * distance - cumulant), 1e-18))
    u = t * math.sqrt(draws * float(law @ np.square(scores - distance)))
    return float(min(2 * (ndtr(-w) + math.exp(-w * w / 2) / math.sqrt(2 * math.pi) * (1 / u - 1 / w)), 1.0))


def all_of(agreements: Sequence[Agreement]) -> Agreement:
    """The worst of several verdicts: a failure before any pass, then the largest error in units of its bound."""
    if not agreements:
        raise ValueError("all_of needs at least one verdict")
    return max(agreements, key=lambda verdict: (not verdict.passed, _severity(verdict)))


def _severity(verdict: Agreement) -> float:
    if verdict.error is None or verdict.bound is None:
        return 0.0 if verdict.passed else math.inf
    if verdict.bound == 0:
        return math.inf if verdict.error else 0.0
    return verdict.error / verdict.bound


def _require_false_alarm(false_alarm: float) -> None:
    if not 0 < false_alarm < 1:
        raise ValueError(f"false_alarm is a probability between 0 and 1, not {false_alarm}")
