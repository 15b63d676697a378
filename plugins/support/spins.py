"""Shared by the operations on spins: the cost of their random numbers, and tests of drawn states."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from boltzbench import harness
from boltzbench.harness import Agreement
from boltzbench.plugins.support import draws
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


def up_probability(before: Tensor, exponent: Tensor, rule: str) -> Tensor:
    """The probability that a spin is up after an update: float64, of the shape of ``before``.

    ``exponent`` is the change of energy if the spin ``before`` flips, over the temperature.
    """
    flip = torch.exp(-exponent).clamp(max=1) if rule == "metropolis" else torch.sigmoid(-exponent)
    return torch.where(before > 0, 1 - flip, flip)


def judge_updates(
    up: Tensor, p: Tensor, start: Tensor, what: str, false_alarm: float, generator: np.random.Generator,
    unrelated_to: Mapping[str, Tensor] | None = None,
) -> tuple[list[Agreement], Tensor]:  # fmt: skip
    """Test whether spins (copies, sites) are up with probability ``p``, independently; and their scores.

    The scores are those of `draws.bernoulli_scores`, which says what ``generator`` must be. A sampler draws spins or
    flips. So the scores are tested both as they are and times the spins of the ``start``. Tensors in ``unrelated_to``
    have the shape of ``up``.
    """
    scores, one = draws.bernoulli_scores(up, p, generator), false_alarm / 3
    verdicts = [draws.likelier_as_often(up, p, what, one)]
    for name, each in ((what, scores), (f"flips of {what}", scores * start)):
        verdicts += draws.normal_scores(each, name, one, width=up.shape[1], unrelated_to=unrelated_to)
    return verdicts, scores
