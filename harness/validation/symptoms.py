"""What single steps show of a wrong sampler: shared random numbers, elements that are wrong alone, wrong acceptance.

Each function returns words, or None. Most are asked only where a law fails; then they say what is likely, with no error
rate. `not_exchangeable` has a p-value.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import torch
from scipy.stats import binom, ks_2samp, spearmanr
from torch import Tensor

from ..api.samplers import Sampler, Target
from .chains import Chains

STARTS, COPIES = 4, 512
"""Starts, and chains from each, for the elements of a step."""
ALIKE = 0.99
"""Rank correlation from which on two elements move as one."""
FEWEST_EXPECTED = 20
"""Expected number of draws with a pair of values, below which its absence says nothing."""
PATHS, STEPS = 4096, 6
BINS = 64
DEPENDS = 0.3
"""Partial correlation of positions two steps apart, given that between, which independent noise does not reach."""
MOST_ELEMENTS = 8
CERTAIN, PLAUSIBLE = 1e-6, 1e-3
"""p-values below which something is wrong, and above which it may be right."""
SLIGHT = 0.2
"""Elements are right if their distance from the exact law is below this share of the largest."""
UPHILL = 0.6
"""Share of moves to higher energy from which on the acceptance seems to have the wrong sign; 1/2 is right."""
UNFIT = "(x, x') is not exchangeable"
FUNCTIONS = 4
"""Projections of which pairs are tested for exchangeability."""
MOST_STATES = 64
"""Different states up to which it is known which of them steps connect."""

Array = np.ndarray[Any, Any]
Draws = Callable[[int, str], Tensor]
"""Independent exact draws on the sampler's device, by number and purpose."""


def shared_numbers(run: Chains, target: Target, draws: Draws, seed: int, temperature: float) -> str | None:
    """Elements that use the same random numbers within a step, or single steps that use those of the step before."""
    if words := _between_elements(run, target, draws, seed, temperature):
        return words
    path = _path(run, draws, seed, temperature)
    if not target.torch_dtype.is_floating_point:
        return _repeated_moves(path)
    dependence = _dependence(path)
    if dependence.max() < DEPENDS or dependence.min() > DEPENDS / 3:
        return None
    step = int((dependence > DEPENDS).argmax())
    return f"steps {step + 1} and {step + 2} share random numbers: given the position between, the moves depend"


def dependent_moves(run: Chains, target: Target, draws: Draws, seed: int, temperature: float) -> str | None:
    """Whether each move depends on the one before, as with a momentum that is kept."""
    if not target.torch_dtype.is_floating_point or _dependence(_path(run, draws, seed, temperature)).min() < DEPENDS:
        return None
    return "each move depends on the one before: steps share random numbers, or a momentum is kept"


def _between_elements(run: Chains, target: Target, draws: Draws, seed: int, temperature: float) -> str | None:
    exact = _elements(draws(COPIES, "symptom of elements"))
    pairs = [*combinations(range(exact.shape[1]), 2)]
    found = set[tuple[int, int]]()
    for one in draws(STARTS, "symptom"):
        start = one.expand(COPIES, *target.shape).contiguous()
        x = _elements(run.last(start, seed, [(1, temperature)]))
        found |= {
            pair
            for pair in pairs
            if _move_as_one(x[:, pair], exact[:, pair], _elements(one[None])[0, list(pair)], target)
        }
    if not found:
        return None
    elements = sorted({element for pair in found for element in pair})
    return f"elements {_listed(elements)} move together from one start: they share random numbers within a step"


def _move_as_one(pair: Array, exact: Array, start: Array, target: Target) -> bool:
    """Whether two elements (chains, 2), a step from ``start``, are functions of one random number.

    Of two values each, they then miss one of the four pairs of values. That in which both have changed may also be
    missing because a step changes one element alone.
    """
    a, b = pair.T
    if a.std() == 0 or b.std() == 0:
        return False
    if target.torch_dtype.is_floating_point:
        return bool(abs(spearmanr(a, b).statistic) > ALIKE)
    counts, right = (
        np.array([[((x == start) == (i, j)).all(1).sum() for j in (False, True)] for i in (False, True)])
        for x in (pair, exact)
    )
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    missing = (counts == 0) & (right > 0) & (expected > FEWEST_EXPECTED)
    return bool(missing.any() and not missing[0, 0])


def _path(run: Chains, draws: Draws, seed: int, temperature: float) -> list[Array]:
    start = draws(PATHS, "symptom of steps")
    return [_elements(each) for each in (start, *run.path(start, seed, [(1, temperature)] * STEPS))]


def _dependence(path: Sequence[Array]) -> Array:
    """For each two steps in turn the partial correlation of the positions before and after, given that between."""
    return np.array(
        [
            max(_partial_correlation(*(x[:, element] for x in three)) for element in range(path[0].shape[1]))
            for three in zip(path, path[1:], path[2:], strict=False)
        ]
    )


def _partial_correlation(before: Array, between: Array, after: Array) -> float:
    """The absolute correlation of ``before`` and ``after`` among chains of about equal ``between``."""
    order = np.argsort(between, kind="stable").reshape(BINS, -1)
    parts = []
    for x in (before, after):
        binned, within = x[order], between[order]
        within = within - within.mean(1, keepdims=True)
        binned = binned - binned.mean(1, keepdims=True)
        squares = np.square(within).sum(1, keepdims=True)
        slope = np.divide((binned * within).sum(1, keepdims=True), squares, where=squares > 0, out=squares * 0)
        parts.append(binned - slope * within)
    size = np.sqrt(np.square(parts[0]).sum() * np.square(parts[1]).sum())
    return float(abs((parts[0] * parts[1]).sum()) / size) if size else 0.0


def _repeated_moves(path: Sequence[Array]) -> str | None:
    """Steps after which far more chains stay where they are than after the steps before and after."""
    still = np.array([(x == y).all(1).mean() for x, y in pairwise(path)])
    for step in range(1, len(still) - 1):
        if still[step] > 0.1 + 1.5 * max(still[step - 1], still[step + 1]):
            return (
                f"steps {step} and {step + 1} share random numbers: {still[step]:.0%} of the chains stay in place in "
                f"step {step + 1}, {still[step - 1]:.0%} in the step before"
            )
    return None


def wrong_elements(x: Tensor, exact: Tensor) -> str | None:
    """Whether few elements of ``x`` have another law than in ``exact``, and the others the same. Both (chains, ...)."""
    here, right = (each.flatten(1).double().numpy() for each in (x, exact))
    count = here.shape[1]
    if not 1 < count <= MOST_STATES:
        return None
    tests = [ks_2samp(here[:, element], right[:, element], method="asymp") for element in range(count)]
    distance = np.array([each.statistic for each in tests])
    p_values = np.array([each.pvalue for each in tests]) * count
    wrong = np.flatnonzero((distance > SLIGHT * distance.max()) & (p_values < PLAUSIBLE))
    if p_values.min() > CERTAIN or len(wrong) > max(1, count // 4):
        return None
    numbers = [
        f"mean {here[:, each].mean():.3g} and deviation {here[:, each].std():.3g} instead of "
        f"{right[:, each].mean():.3g} and {right[:, each].std():.3g}"
        for each in wrong
    ]
    return f"the law of element {_listed(wrong)} alone is wrong: {'; '.join(numbers)}"


def wrong_acceptance(sampler: Sampler, target: Target, start: Tensor, x: Tensor) -> str | None:
    """What the moves from exact draws ``start`` to ``x``, a step later, show of a step that accepts or rejects.

    Of a sampler that neither counts what it accepts nor claims detailed balance, only a wrong sign is named, and only
    where real numbers that stay as they are show that it rejects.
    """
    moved = (x != start).flatten(1).any(1)
    known = sampler.accepted is not None or sampler.reversible
    if not known and (moved.all() or not target.torch_dtype.is_floating_point):
        return None
    change = (target.energy(x).double() - target.energy(start).double())[moved].numpy()
    up, down = int((change > 0).sum()), int((change < 0).sum())
    if not up + down:
        return None
    share = up / (up + down)
    if moved.all() and share > 0.5 and binom.sf(up - 1, up + down, 0.5) < CERTAIN:
        return "no proposal is rejected: the acceptance is ignored"
    if share > UPHILL:
        return (
            f"{share:.0%} of the moves from exact draws go up in energy, 50% is right: the acceptance's sign is wrong"
        )
    if not known:
        return None
    if min(binom.sf(up - 1, up + down, 0.5), binom.cdf(up, up + down, 0.5)) < CERTAIN:
        return (
            f"{UNFIT}: {share:.1%} of the moves from exact draws go up in energy, 50% is right: the "
            "acceptance does not fit the proposal"
        )
    return None


def not_exchangeable(values: Mapping[str, tuple[Array, Array]]) -> tuple[float, str]:
    """p-value and words: whether (x, x') and (x', x) have different laws, for exact draws x and a step from each to x'.

    ``values`` holds f(x) and f(x') of each projection, (chains,). Under detailed balance f(x) g(x') - g(x) f(x') is as
    often positive as negative for all f and g, so the number of positive ones is binomial.
    """
    centred = {"1": (np.ones(1), np.ones(1))}
    for name, (before, after) in [*values.items()][:FUNCTIONS]:
        mean = (before.mean() + after.mean()) / 2  # the same for (x', x)
        centred[name] = before - mean, after - mean
    smallest, words, tests = 1.0, "no projections differ", 0
    for (one, f), (two, g) in combinations(centred.items(), 2):
        change = f[0] * g[1] - g[0] * f[1]
        up, down = int((change > 0).sum()), int((change < 0).sum())
        p_value = 2 * float(binom.cdf(min(up, down), up + down, 0.5))
        tests += 1
        if p_value < smallest:
            smallest = p_value
            words = f"{two} rises {up} times and falls {down} times" if one == "1" else (
                f"{one} before {two} is larger {up} times, {two} before {one} {down} times"
            )  # fmt: skip
    return min(smallest * tests, 1.0), f"{words} (worst of {tests})"


def separate_classes(path: Tensor) -> int:
    """The number of classes of states that no step of ``path`` (steps + 1, chains, ...) connects; 1 if it is unknown.

    Known of at most `MOST_STATES` different states.
    """
    rows = path.flatten(2).flatten(0, 1)
    states, number = torch.unique(rows, dim=0, return_inverse=True)
    if len(states) > MOST_STATES:
        return 1
    number = number.view(path.shape[:2])
    linked = torch.eye(len(states), dtype=torch.float64)
    linked[number[:-1].flatten(), number[1:].flatten()] = 1
    linked = linked + linked.T
    for _ in range(len(states).bit_length()):
        linked = ((linked @ linked) > 0).double()
    return len(torch.unique(linked, dim=0))


def _elements(x: Tensor) -> Array:
    first: Array = x.cpu().flatten(1)[:, :MOST_ELEMENTS].double().numpy()
    return first


def _listed(numbers: Sequence[int] | Array) -> str:
    *most, last = (str(each) for each in numbers)
    return f"{', '.join(most)} and {last}" if most else last
