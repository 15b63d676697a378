"""Shared by the operations on spins: the cost of their random numbers, and tests of drawn states."""

from collections.abc import Sequence

import torch
from boltzbench import harness
from boltzbench.harness import Agreement
from torch import Tensor

DRAWN_BITS = 8
"""Random bits of a spin, for the cost: the fewest that the random stream allows.

A word of 32 spins draws groups of four bits for each spin until all are decided, and each bit decides half of those
left: 1 + (1 - (15/16)^32) + (1 - (255/256)^32) + ... = 2.0 groups. A vector of words goes on until its last spin is
decided: 12 bits for the 512 spins of AVX-512 and the 1024 of a warp, which reach two thirds of the limit at most.
"""


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
