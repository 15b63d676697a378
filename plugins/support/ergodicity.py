"""A law for samplers of discrete states: they converge to the invariant distribution from every start.

A sampler may leave a distribution invariant and never reach it, because its states fall into classes that do not lead
to each other, or because it returns to a state only after an even number of sweeps. Tests that start with exact draws
cannot see that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from boltzbench import harness
from boltzbench.harness import Agreement, Status
from boltzbench.plugins.support.spins import judge_states
from numpy.typing import NDArray
from torch import Tensor


def judge_graph(leads_to: Tensor) -> Agreement:
    """Whether a Markov chain is irreducible and aperiodic: then it converges from every start.

    ``leads_to``, bool (states, states), says which state follows which. It may omit rare transitions: more of them
    cannot make a chain reducible or periodic.
    """
    from scipy.sparse.csgraph import connected_components  # here, because scipy is slow to import

    edges = leads_to.numpy()
    classes, label = connected_components(edges, connection="strong")
    if classes > 1:
        inside = int((label == label[0]).sum())
        message = f"reducible: only {inside} of {len(edges)} states lead to state 0 and back"
        return Agreement(Status.WRONG_LAW, message, error=float(classes - 1), bound=0.0)
    period = _period(edges)
    if period > 1:
        message = f"periodic: a state recurs only after multiples of {period} sweeps"
        return Agreement(Status.WRONG_LAW, message, error=float(period - 1), bound=0.0)
    return Agreement(Status.PASSED, f"irreducible and aperiodic on {len(edges)} states", error=0.0, bound=0.0)


def _period(edges: NDArray[np.bool_]) -> int:
    """The greatest common divisor of the lengths of all cycles of a strongly connected graph."""
    from scipy.sparse.csgraph import breadth_first_order

    order, before = breadth_first_order(edges, 0)
    depth = np.zeros(len(edges), dtype=np.int64)
    for state in order[1:]:
        depth[state] = depth[before[state]] + 1
    start, end = np.nonzero(edges)
    return math.gcd(*(depth[start] + 1 - depth[end]).tolist())


def judge_transitions(start: Tensor, end: Tensor, matrix: Tensor, false_alarm: float) -> list[Agreement]:
    """Test the transitions of chains by one sweep: the graph they make, and each row of the transition matrix.

    Args:
        start, end: the numbers of the chains' states before and after a sweep, int64 (chains,); each state starts
            several chains, enough that the graph of all transitions stays connected if a few are missing.
        matrix: the exact transition probabilities, float64 (states, states).
        false_alarm: significance level of all tests together.
    """
    states = len(matrix)
    counts = torch.bincount(start * states + end, minlength=states**2).view(states, states)
    verdicts = [judge_graph(counts > 0)]
    for state, (row, chances) in enumerate(zip(counts, matrix, strict=True)):
        found = harness.chi_square(row, chances, false_alarm=false_alarm / states)
        verdicts.append(replace(found, message=f"transitions from state {state}: {found.message}"))
    return verdicts


def judge_starts(
    drawn: Mapping[str, Tensor], law: Tensor, cells: Sequence[Tensor], false_alarm: float
) -> list[Agreement]:
    """Test the states after a long run against ``law``, for each start by name: see `judge_states`."""
    verdicts = []
    for name, states in drawn.items():
        for found in judge_states(states, law, cells, false_alarm / len(drawn)):
            verdicts.append(replace(found, message=f"from {name}: {found.message}"))
    return verdicts
