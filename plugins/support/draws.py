"""Statistical tests of draws, for samplers that do not use the suite's random stream.

The caller turns draws into *scores*, which are independent standard normal numbers if the sampler is right, whatever
the inputs. ``false_alarm`` is the significance level of all tests together.
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
"""With fewer draws the chi-square law is too inaccurate for a significance level of 1e-6."""


def bernoulli_scores(drawn: Tensor, p: Tensor, generator: np.random.Generator) -> Tensor:
    """Scores of draws 0 and 1 with ``P(1) = p``: float64, of the shape of ``drawn``.

    A draw of 1 becomes uniform on (0, p), and a draw of 0 uniform on (p, 1). The result is uniform on (0, 1) if and
    only if P(1) = p. ``generator`` must be of a kind that no sampler under test uses. Probabilities are clamped to
    [2**-24, 1 - 2**-24], because samplers may draw uniform numbers of 24 bits.
    """
    p = p.double().clamp(2.0**-24, 1 - 2.0**-24)
    spread = torch.from_numpy(generator.random(tuple(p.shape))).to(p.device).clamp(min=2.0**-53)
    uniform = torch.where(drawn.bool(), spread * p, p + (1 - p) * spread).clamp(max=1 - 2.0**-53)
    scores: Tensor = torch.special.ndtri(uniform)
    return scores


def likelier_as_often(drawn: Tensor, p: Tensor, what: str, false_alarm: float) -> Agreement:
    """Whether draws 0 and 1 with ``P(1) = p`` have the likelier value as often as they should, by Bernstein.

    Each draw has the weight ``|2 p - 1|``. Of nearly certain draws about ten unlikely ones are too many. None may have
    a probability below 2**-60.
    """
    p, drawn = p.double(), drawn.bool()
    impossible = int((torch.where(drawn, p, 1 - p) < 2.0**-60).sum())
    if impossible:
        message = f"{what}: {impossible} of {p.numel()} have a probability below 2**-60"
        return Agreement(Status.WRONG_LAW, message, error=float(impossible), bound=0.0)
    weight = 2 * p - 1
    along = float(((drawn.double() - p) * weight).sum())
    variance, log = float((weight.square() * p * (1 - p)).sum()), math.log(2 / false_alarm)
    bound = log / 3 + math.sqrt((log / 3) ** 2 + 2 * variance * log)
    status = Status.PASSED if abs(along) <= bound else Status.WRONG_LAW
    message = f"{what}: weight {along:+.1f} of likelier values beyond the expected one, bound {bound:.1f}"
    return Agreement(status, message, error=abs(along), bound=bound)


def normal_scores(
    scores: Tensor, name: str, false_alarm: float, *, width: int = 1, unrelated_to: Mapping[str, Tensor] | None = None
) -> list[Agreement]:
    """Verdicts on ``scores`` in rows of ``width``: law, means, autocorrelation, and independence of other tensors.

    ``unrelated_to`` holds tensors of the shape of ``scores`` by name. Independence is tested by correlations of signs,
    for which Hoeffding's bound holds with any number of draws.
    """
    z = scores.flatten().double()
    if not z.numel():
        return [Agreement(Status.PASSED, f"{name}: no draws", error=0.0, bound=0.0)]
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
    """Whether the signs have no autocorrelation at any lag."""
    count = z.numel()
    sums = torch.fft.irfft(torch.fft.rfft(torch.sign(z), 2 * count).abs().square(), 2 * count)[1:count]
    if not len(sums):
        return Agreement(Status.PASSED, error=0.0, bound=0.0)
    pairs = torch.arange(count - 1, 0, -1, dtype=torch.float64, device=z.device)
    worst = int((sums.abs() / pairs.sqrt()).argmax())
    what = f"{name} and {name} at lag {worst + 1}"
    return _fair(round(float(sums[worst])), int(pairs[worst]), what, false_alarm / count)


def _fair(total: float, pairs: int, what: str, false_alarm: float) -> Agreement:
    """Whether signs agree as often as they differ, by Hoeffding: ``|total| <= sqrt(2 n ln(2 / false_alarm))``."""
    bound = math.sqrt(2 * pairs * math.log(2 / false_alarm))
    status = Status.PASSED if abs(total) <= bound else Status.WRONG_LAW
    message = f"signs of {what}: agreements less differences are {total:+.0f} of {pairs}, bound {bound:.0f}"
    return Agreement(status, message, error=abs(total), bound=bound)


def same_mean(found: Tensor, reference: Tensor, what: str, false_alarm: float) -> Agreement:
    """Whether two samples (draws,) have the same mean, by Student's t of their differences.

    The draws of either sample need not be equal in law among themselves, but draw k of both must be.
    """
    from scipy.special import ndtri, stdtrit  # here, because scipy is slow to import

    apart = found.double() - reference.double()
    count = len(apart)
    if count < 2:
        return Agreement(Status.PASSED, f"{what}: fewer than two draws", error=0.0, bound=0.0)
    wider = float(stdtrit(count - 1, false_alarm / 2) / ndtri(false_alarm / 2))  # Student's t has longer tails
    stderr = float(apart.std()) / math.sqrt(count)
    return harness.within(
        float(apart.mean()), 0.0, wider * stderr, what=f"{what}, less that of the reference", false_alarm=false_alarm
    )
