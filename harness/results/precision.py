"""How precise a median is, and how much two timings of the same code differ: the A/A control and the noise floor."""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..api.noise import correlation_time
from ..api.records import Control, Measurement, Record

if TYPE_CHECKING:
    from .compare import Floats

TWO_SIDED_95 = 1.96
"""Standard deviations that 95 % of normal deviations stay below."""


def log_median(samples: "Sequence[float] | Floats", noise: float = 0.0) -> tuple[float, float, float]:
    """The logarithm of the median of positive samples, its variance, and the degrees of freedom of the variance.

    The variance is that of the bootstrap of the median times tau (`correlation_time`), since n correlated samples say
    as much as n / tau independent ones; at least the square of the recorded ``noise``.
    """
    import numpy as np  # `--help` needs this module, but not numpy

    n = len(samples)
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    tau = correlation_time(samples)  # type: ignore[arg-type]  # an array is as good
    logs = np.log(ordered)
    chances = _chances_of_median(n)
    spread = float(chances @ (logs - chances @ logs) ** 2)
    noise = noise if math.isfinite(noise) else 0.0
    median = float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return math.log(median), max(spread * tau, noise**2), max(n / tau - 1, 0.5)


@cache
def _chances_of_median(n: int) -> "Floats":
    """The probability of each of n samples, in their order, to be the median of n draws with replacement. For an even n
    of n + 1 draws, whose median is as precise within some percent."""
    import numpy as np
    from scipy import special  # slow to import, and the noise floor alone needs none of it

    middle = n // 2 + 1
    among_smallest: Floats = special.betainc(middle, middle, np.arange(n + 1) / n)
    return np.diff(among_smallest)


def make_control(record: Record, first: Measurement, second: Measurement) -> Control:
    """The control of a record's measurement, from the second timing of the same code in turn with the first."""
    of = record.operation, record.implementation, record.case, second.mode
    if not all(0 < sample < math.inf for sample in (*first.samples, *second.samples)):
        return Control(*of, message="a sample is not a positive time")
    (base, before, _), (new, after, _) = log_median(first.samples), log_median(second.samples)
    return Control(*of, second.samples, ratio=math.exp(new - base), stderr=math.sqrt(before + after))


def noise_floor(controls: Iterable[Control]) -> float | None:
    """The noise floor of a run: 19 of 20 pairs of timings of the same code differ by less. 0.02 is 2 %; None if the run
    has no control that could be timed.

    It is ``exp(1.96 s) - 1``, where s is the root mean square of the logarithms of the controls' ratios. A ratio that
    is nearer to 1 than its standard error counts as that error: chance made it so.
    """
    squares = [max(math.log(each.ratio), each.stderr, -math.log(each.ratio)) ** 2 for each in controls if each.timed]
    if not squares:
        return None
    return math.expm1(TWO_SIDED_95 * math.sqrt(math.fsum(squares) / len(squares)))


def floor_words(floor: float | None) -> str:
    """A noise floor with two digits."""
    if floor is None:
        return "unknown"
    return f"{100 * floor:.2g} %" if floor < 0.995 else f"{100 * floor:.0f} %"
