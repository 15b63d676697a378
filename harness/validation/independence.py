"""Tests of paths that need no exact law: chains that differ, that never move, or that depend on each other."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

ENOUGH_MOVES = 48
"""Mean number of moves of the chains above which a chain without a move counts as stuck and not as unlucky."""
ROUNDED = 1 / 32
"""Share of chains that may differ by rounding when the same numbers are computed in another order."""

Array = np.ndarray[Any, Any]


def differs(x: Tensor, once: Tensor, *, rounded: bool = False) -> str | None:
    """The chains in which ``x`` differs from ``once``, in words; None if none does. ``rounded`` tolerates rounding."""
    if rounded and x.dtype.is_floating_point:
        scale = float(once.abs().max())
        wrong = ~torch.isclose(x, once, rtol=1e-3, atol=1e-4 * scale)
    else:
        wrong = x != once
    chains = wrong.reshape(len(wrong), -1).any(1)
    count = int(chains.sum())
    if count <= (ROUNDED * len(chains) if rounded and x.dtype.is_floating_point else 0):
        return None
    return f"{count} of {len(chains)} chains differ, the first is chain {int(chains.nonzero()[0])}"


def stuck(path: Tensor) -> str | None:
    """What never moves in ``path`` (steps + 1, chains, elements), in words. ``path[0]`` is the start."""
    moved = path[1:] != path[:-1]
    varied = (path[0] != path[0, 0]).any(0)
    still = (varied & ~moved.any(1).any(0)).nonzero().flatten().tolist()
    if still:
        return (
            f"no chain ever changed element {still[0]} ({len(still)} of {path.shape[2]} elements) in {len(moved)} steps"
        )
    moves = moved.any(2).sum(0)
    idle = (moves == 0).nonzero().flatten().tolist()
    if idle and float(moves.double().mean()) > max(len(moved) / 4, ENOUGH_MOVES):
        return f"chain {idle[0]} never moved in {len(moved)} steps, the others {float(moves.double().mean()):.0f} times"
    return None


def same_paths(paths: Mapping[int, Tensor]) -> str | None:
    """Two chains that take the same path from one start, in words. ``paths`` has (chains, steps * elements) by seed.

    Only chains with two moves or more are compared, since one equal move can be a coincidence.
    """
    rows = torch.cat(list(paths.values()))
    names = [f"chain {chain} of seed {seed}" for seed, path in paths.items() for chain in range(len(path))]
    steps = rows.view(len(rows), 4, -1)
    moved = (steps[:, 1:] != steps[:, :-1]).flatten(2).any(2).sum(1) >= 2
    chosen = moved.nonzero().flatten()
    _, group = torch.unique(rows[chosen], dim=0, return_inverse=True)
    order = group.argsort(stable=True)
    same = (group[order][1:] == group[order][:-1]).nonzero().flatten()
    if not len(same):
        return None
    first = same[chosen[order[same]].argmin()]
    one, two = (names[int(chosen[order[first + i]])] for i in (0, 1))
    return f"{one} and {two} take the same path from one start"


def above_the_median(path: Tensor) -> Array:
    """(steps * elements, chains): 1 where a move is above the median of all chains. Uses at most four elements."""
    elements = path.flatten(2).double().cpu().numpy()
    number = elements.shape[2]
    chosen = sorted({0, 1, 2, number - 1} & set(range(number)))
    moves = np.diff(elements[:, :, chosen], axis=0).transpose(0, 2, 1)
    above = moves > np.median(moves, axis=2, keepdims=True)
    return above.reshape(-1, above.shape[2]).astype(np.int64)


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
