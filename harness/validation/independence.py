"""Tests of paths that need no exact law: chains that differ, that never move, or that depend on each other.

Each verdict has a p-value, except that of equal bits. None depends on the distribution of the moves.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import binom, hypergeom
from torch import Tensor

RARELY = 0.02
"""Where no move at all is seen, the hypothesis under test is that a step makes one with at least this probability."""
ROUNDED = 1 / 32
"""Share of chains that may differ after several steps when the same numbers are computed in another order."""
FLIPPED = 2
"""Chains of a few hundred that may differ after one step. Rounding changes a decision with a probability of about 1e-6
for a chain, so three of 256 do with a probability of 3e-12."""
ONE_STEP = 1e-5
"""Largest difference of a float32 position after one step from rounding, relative to the largest position."""

Array = np.ndarray[Any, Any]


def differs(x: Tensor, once: Tensor, *, rounded: bool = False) -> str | None:
    """The chains in which ``x`` differs from ``once``, in words; None if none does. ``rounded`` tolerates rounding."""
    if rounded and x.dtype.is_floating_point:
        return _differing(~torch.isclose(x, once, rtol=1e-3, atol=1e-4 * float(once.abs().max())), ROUNDED * len(x))
    return _differing(x != once, FLIPPED if rounded else 0)


def differs_after_one_step(x: Tensor, once: Tensor) -> str | None:
    """`differs` at the size of rounding in one step, for every chain but `FLIPPED`."""
    if x.dtype.is_floating_point:
        scale = ONE_STEP * max(torch.finfo(x.dtype).eps / torch.finfo(torch.float32).eps, 1.0)
        return _differing(~torch.isclose(x, once, rtol=scale, atol=scale * float(once.abs().max())), FLIPPED)
    return _differing(x != once, FLIPPED)


def _differing(wrong: Tensor, allowed: float) -> str | None:
    chains = wrong.reshape(len(wrong), -1).any(1)
    count = int(chains.sum())
    if count <= allowed:
        return None
    return f"{count} of {len(chains)} chains differ, the first is chain {int(chains.nonzero()[0])}"


def never_changed(path: Tensor) -> tuple[float, str]:
    """p-value and words: whether some element never changes in ``path`` (steps + 1, chains, elements).

    ``path[0]`` is the start. The hypothesis is that it changes in a step of a chain with probability `RARELY` or more.
    """
    moved = path[1:] != path[:-1]
    varied = (path[0] != path[0, 0]).any(0)
    still = (varied & ~moved.any(1).any(0)).nonzero().flatten().tolist()
    if not still:
        return 1.0, "every element changes"
    words = f"no chain ever changed element {still[0]} ({len(still)} of {path.shape[2]} elements) in {len(moved)} steps"
    return float((1 - RARELY) ** (len(moved) * path.shape[1])), words


def idle_chains(path: Tensor) -> list[int]:
    """The chains that never move in ``path`` (steps + 1, chains, elements)."""
    idle: list[int] = (path == path[0]).all(2).all(0).nonzero().flatten().tolist()
    return idle


def never_left(copies: Tensor, steps: int) -> float:
    """The p-value of a chain that stays at its start for ``steps`` steps, by ``copies`` of it (steps + 1, copies, ...).

    Until its first move, each step of each chain leaves the start with the same probability. Given how many do so
    among all steps made there, the p-value is Fisher's.
    """
    left = (copies != copies[0]).flatten(2).any(2)
    first = torch.where(left.any(0), left.int().argmax(0), len(copies) - 1)
    trials, moves = int(first.sum()), int(left.any(0).sum())
    return float(hypergeom.pmf(0, trials + steps, moves, steps))


def repeats(again: Tensor, control: Tensor, path: Tensor) -> float:
    """The p-value of moves ``again`` that all equal those of ``path``, where other random numbers give ``control``.

    All are (chains, ...). Fisher's exact test of how often both are equal. 1 unless all chains are.
    """
    chains = len(path)
    if not torch.equal(again, path):
        return 1.0
    equal = int((control == path).flatten(1).all(1).sum())
    return float(hypergeom.sf(chains - 1, 2 * chains, chains + equal, chains))


def same_paths(paths: Mapping[str, Tensor]) -> tuple[float, str]:
    """p-value and words: whether chains at some distance take the same path from one start more often than others.

    ``paths`` has (chains, steps * elements) of four steps by the name of the run. Of independent chains, each pair is
    equal with the same probability, which all pairs together tell. The pairs at one distance make two sets of disjoint
    pairs, so the number of equal ones in each is binomial. Chains with fewer than two moves count as different.
    """
    rows = torch.cat(list(paths.values()))
    names = [f"chain {chain} of {name}" for name, path in paths.items() for chain in range(len(path))]
    steps = rows.view(len(rows), 4, -1)
    moved = ((steps[:, 1:] != steps[:, :-1]).flatten(2).any(2).sum(1) >= 2).numpy()
    _, group = torch.unique(rows, dim=0, return_inverse=True)
    label = np.where(moved, group.numpy(), -1 - np.arange(len(rows)))
    sizes = np.unique(label, return_counts=True)[1].astype(np.float64)
    count = len(rows)
    share = float((sizes * (sizes - 1)).sum()) / (count * (count - 1))
    if not share:
        return 1.0, "no two chains take the same path"
    equal = np.array([np.count_nonzero(label[lag:] == label[:-lag]) for lag in range(1, count)])
    half = np.ceil((count - np.arange(1, count)) / 2)
    p_values = 2 * binom.sf(np.ceil(equal / 2) - 1, half, share)
    lag = int(p_values.argmin()) + 1
    first = int(np.flatnonzero(label[lag:] == label[:-lag])[0]) if equal[lag - 1] else 0
    words = f"{names[first]} and {names[first + lag]} take the same path from one start"
    return min(float(p_values.min()) * count, 1.0), f"{words}, as do {equal[lag - 1]} pairs at this distance"


def above_the_median(path: Tensor) -> Array:
    """(steps * elements, chains): 1 where a move is above the median of all chains. Uses at most four elements."""
    elements = _few_elements(path.flatten(2)).double().cpu().numpy()
    moves = np.diff(elements, axis=0).transpose(0, 2, 1)
    above = moves > np.median(moves, axis=2, keepdims=True)
    return above.reshape(-1, above.shape[2]).astype(np.int64)


def _few_elements(x: Tensor) -> Tensor:
    number = x.shape[-1]
    return x[..., sorted({0, 1, 2, number - 1} & set(range(number)))]


def dependence(groups: Mapping[str, Array]) -> tuple[float, str]:
    """The smallest p-value over all pairs of rows of two groups, times the number of pairs, and a description of it."""
    smallest, words, tests = 1.0, "no pair is correlated", 0
    for (one, a), (two, b) in combinations(groups.items(), 2):
        both, n = a @ b.T, a.shape[1]
        rows, columns = a.sum(1)[:, None], b.sum(1)[None, :]
        tail = np.minimum(hypergeom.cdf(both, n, rows, columns), hypergeom.sf(both - 1, n, rows, columns))
        tests += tail.size
        if 2 * tail.min() < smallest:
            smallest = float(2 * tail.min())
            words = f"the moves of {one} and of {two} are correlated"
    return min(smallest * tests, 1.0), f"{words} (worst of {tests} pairs)"


def correlated_at_a_distance(x: Tensor) -> tuple[float, str]:
    """p-value and words: whether the states ``x`` (chains, ...) of independent chains are correlated at any distance.

    Each of at most four elements becomes "above its mean or not", less the share of those above. The sum of products at
    one distance is a martingale of bounded steps (Azuma and Hoeffding), whatever the law.
    """
    smallest, words, tests = 0.0, "no distance", 0
    for element, values in enumerate(_few_elements(x.flatten(1)).double().cpu().numpy().T):
        signs = (values > values.mean()).astype(np.float64)
        if not 0 < signs.mean() < 1:
            continue
        signs = (signs - signs.mean()) / max(signs.mean(), 1 - signs.mean())
        count = len(signs)
        pairs = np.arange(count - 1, 0, -1)
        sums = np.fft.irfft(np.abs(np.fft.rfft(signs, 2 * count)) ** 2)[1:count]
        exponents = -np.square(sums) / (2 * pairs)
        tests += len(pairs)
        worst = int(exponents.argmin())
        if exponents[worst] < smallest:
            smallest = float(exponents[worst])
            words = (
                f"element {element} of chains at distance {worst + 1} is correlated by {sums[worst] / pairs[worst]:.2g}"
            )
    return min(2 * tests * float(np.exp(smallest)), 1.0), f"{words} (worst of {tests})"
