"""Tests of a sampler's draws as a whole, for samplers that have a random stream of their own.

The caller turns draws into *scores*, which are independent standard normal numbers if the sampler is right, whatever
the inputs. For all tests together ``false_alarm`` is the probability of rejecting a right one.
"""

import math
from collections.abc import Mapping

import numpy as np
import torch
from boltzbench import harness
from boltzbench.harness import Agreement, Status
from torch import Tensor

CELLS = 32
FEWEST_DRAWS = 50 * CELLS
"""From here on the chi-square law is good enough for false alarms of one in a million."""


def bernoulli_scores(drawn: Tensor, p: Tensor, generator: np.random.Generator) -> Tensor:
    """Scores of states 0 and 1 whose probability of 1 is ``p``: float64, of the shape of ``drawn``.

    A draw of 1 is spread uniformly over (0, p), one of 0 over (p, 1): that is uniform if and only if P(1) = p. What
    spreads them comes from ``generator``, of a kind that no sampler under test draws from, whatever its seed.
    Samplers draw uniform numbers of 24 bits or more, so that probabilities below 2**-24 are not told apart.
    """
    p = p.double().clamp(2.0**-24, 1 - 2.0**-24)
    spread = torch.from_numpy(generator.random(tuple(p.shape))).to(p.device).clamp(min=2.0**-53)
    uniform = torch.where(drawn.bool(), spread * p, p + (1 - p) * spread).clamp(max=1 - 2.0**-53)
    scores: Tensor = torch.special.ndtri(uniform)
    return scores


def normal_scores(
    scores: Tensor, name: str, false_alarm: float, *, width: int = 1, unrelated_to: Mapping[str, Tensor] | None = None
) -> list[Agreement]:
    """The verdicts on ``scores``, taken in rows of ``width``: law, means, independence of each other and of others.

    Each of ``unrelated_to`` is a tensor of the shape of ``scores`` whose signs they must have nothing to do with.
    Correlations are those of signs, for which the bound of Hoeffding holds with any number of draws.
    """
    z = scores.flatten().double()
    if not z.numel():
        return [Agreement(Status.PASSED, f"{name}: nothing was drawn", error=0.0, bound=0.0)]
    others = unrelated_to or {}
    one = false_alarm / (3 + (width > 1) + len(others))
    verdicts = [harness.within(float(z.mean()), 0.0, z.numel() ** -0.5, what=f"mean of {name}", false_alarm=one)]
    if width > 1:
        sums = z.view(-1, width).mean(0)
        worst = int(sums.abs().argmax())
        verdicts.append(
            harness.within(
                float(sums[worst]), 0.0, (z.numel() / width) ** -0.5, what=f"mean of {name} in column {worst}",
                false_alarm=one / width,
            )
        )  # fmt: skip
    if z.numel() >= FEWEST_DRAWS:
        cells = (torch.special.ndtr(z) * CELLS).long().clamp(0, CELLS - 1)
        counts = torch.bincount(cells, minlength=CELLS).cpu().numpy()
        verdicts.append(harness.chi_square(counts, [1 / CELLS] * CELLS, false_alarm=one))
    verdicts.append(_unrepeated(z, name, one))
    for what, other in others.items():
        signs = torch.sign(z) * torch.sign(other.flatten().double())
        verdicts.append(_fair(float(signs.sum()), int(signs.count_nonzero()), f"{name} and {what}", one))
    return verdicts


def _unrepeated(z: Tensor, name: str, false_alarm: float) -> Agreement:
    """Whether no number has to do with the one any number of places further on: all lags at once."""
    count = z.numel()
    sums = torch.fft.irfft(torch.fft.rfft(torch.sign(z), 2 * count).abs().square(), 2 * count)[1:count]
    if not len(sums):
        return Agreement(Status.PASSED, error=0.0, bound=0.0)
    pairs = torch.arange(count - 1, 0, -1, dtype=torch.float64, device=z.device)
    worst = int((sums.abs() / pairs.sqrt()).argmax())
    what = f"{name} and {name} {worst + 1} further on"
    return _fair(round(float(sums[worst])), int(pairs[worst]), what, false_alarm / count)


def _fair(total: float, pairs: int, what: str, false_alarm: float) -> Agreement:
    """Whether signs agree as often as they differ: ``|sum of products| <= sqrt(2 n ln(2 / false_alarm))``."""
    bound = math.sqrt(2 * pairs * math.log(2 / false_alarm))
    status = Status.PASSED if abs(total) <= bound else Status.WRONG_LAW
    message = f"of {pairs} signs of {what}, {total:+.0f} more agree than differ, bound {bound:.0f}"
    return Agreement(status, message, error=abs(total), bound=bound)
