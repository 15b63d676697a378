"""Shared by the operations on spins: the cost of their random numbers, and tests of drawn states."""

from collections.abc import Sequence

import torch
from boltzbench import harness
from boltzbench.harness import Agreement
from torch import Tensor

DRAWN_BITS = 12
"""Random bits of a spin, for the cost: the 1024 spins of a warp need log2(1024) + 1.3 bits, drawn in groups of four."""


def judge_states(drawn: Tensor, law: Tensor, cells: Sequence[Tensor], false_alarm: float) -> list[Agreement]:
    """A chi-square test of the drawn states for each partition of all states into cells.

    Args:
        drawn: the numbers of the states, int64 (draws,).
        law: the exact probability of each state, float64 (states,).
        cells: partitions: the cell of each state, int64 (states,), from 0 on.
        false_alarm: significance level of all tests together.
    """
    verdicts = []
    for cell in cells:
        probabilities = torch.bincount(cell, law)
        counts = torch.bincount(cell[drawn], minlength=len(probabilities))
        verdicts.append(harness.chi_square(counts, probabilities, false_alarm=false_alarm / len(cells)))
    return verdicts
