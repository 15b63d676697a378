"""Detect the kernels of a new run that are slower than in a base run, by more than noise and a bound.

The test compares the ratio of the medians with the bound and not with 1, because two runs of the same code differ in
clocks and memory placement. The bound is the difference that is tolerated. A regression is a ratio that is
significantly *beyond* it.

The standard error of a median comes from a bootstrap of the raw samples. Successive samples are correlated (clocks,
temperature), so the effective number of samples is reduced by the correlation of neighbours. `BETWEEN_RUNS` is added
for the variation between runs, which a single run cannot estimate. Drifts over more than some tens of samples are not
modelled; the bound must cover them.

All measurements share one exit status, so a single false alarm is enough to fail. Holm's correction bounds the
probability of any false alarm by ``alpha``. Control of the false discovery rate would admit some false alarms.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy import stats

from ..api.operations import Status
from ..api.records import Measurement, Record, Run
from .environment import device_name, identity
from .file import ResultsError

BETWEEN_RUNS = 0.005
"""Relative error added to each median: the noise at which sampling stops."""

RESAMPLES = 500


class NothingInCommon(ResultsError):
    """The two runs have no case in common."""


class DifferentDevices(ResultsError):
    """The two runs used different devices, so their times are not comparable."""


class Verdict(StrEnum):
    """How a case changed from the base to the new run, worst first."""

    FAILED = "failed now"
    SLOWER = "slower"
    FASTER = "faster"
    PASSES = "passes now"
    SAME = "no difference"
    UNCLEAR = "not comparable"
    ONLY_NEW = "only in new"
    ONLY_BASE = "only in base"


REGRESSIONS = (Verdict.FAILED, Verdict.SLOWER)


@dataclass(frozen=True)
class Pair:
    """One case of an implementation in both runs, in one mode if it was timed.

    ``ratio`` is the new median divided by the base median; its confidence interval ``low`` to ``high`` has level
    ``1 - alpha`` for this pair alone. The verdict is corrected for all pairs, so it can be milder than the interval.
    ``notes`` are reasons to distrust the verdict, or the failure.
    """

    operation: str
    implementation: str
    case: str
    verdict: Verdict
    mode: str = ""
    base: Measurement | None = None
    new: Measurement | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """All pairs, regressions first. ``agreeing`` counts the untimed cases that passed in both runs; ``notes`` list
    other differences of the runs."""

    pairs: tuple[Pair, ...]
    bound: float
    alpha: float
    agreeing: int = 0
    notes: tuple[str, ...] = ()

    def having(self, *verdicts: Verdict) -> list[Pair]:
        return [pair for pair in self.pairs if pair.verdict in verdicts]


def compare(base: Run, new: Run, *, bound: float, any_device: bool = False, alpha: float = 0.05) -> Comparison:
    """Compare each case of ``base`` and ``new``. ``bound`` is a fraction: 0.05 allows a median 5 % longer.

    A case is slower if the ratio of the medians is significantly above ``1 + bound``, and faster if it is significantly
    below the inverse. The probability that any pair is wrongly called slower is at most ``alpha``; likewise for faster.
    Two GPUs with the same name count as the same device, and two CPUs with the same model, cores and threads.

    Raises DifferentDevices unless ``any_device``, and NothingInCommon.
    """
    devices = [device_name(run.environment) for run in (base, new)]
    if devices[0] != devices[1] and not any_device:
        raise DifferentDevices(
            f"base ran on {devices[0]}, new on {devices[1]}: the difference would not be due to the code; "
            "to compare them anyway, add --any-device"
        )
    pairs, agreeing, failing = _paired(_by_case(base.records), _by_case(new.records))
    timed = any(record.measurements for record in (*base.records, *new.records))
    both = [pair for pair in pairs if pair.verdict not in (Verdict.ONLY_BASE, Verdict.ONLY_NEW)]
    if not both and not (agreeing and not timed):
        what = "measurement" if agreeing else "case"
        raise NothingInCommon(f"the two runs have no {what} in common: nothing can be compared")
    pairs = _judged(pairs, bound, alpha)
    notes = _differences(base, new)
    if failing:
        notes.append(f"cases that pass in neither run, not compared: {failing}")
    return Comparison(tuple(sorted(pairs, key=_rank)), bound, alpha, agreeing, tuple(notes))


def exit_status(comparison: Comparison) -> int:
    """1 if a case is slower beyond noise and bound, or passed in the base and does not now; else 0."""
    return 1 if comparison.having(*REGRESSIONS) else 0


def parse_bound(text: str) -> float:
    """``"5%"`` as 0.05. Raises ValueError."""
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / 100
    except ValueError:
        value = math.nan
    if number == text.strip() or not 0 <= value < math.inf:
        raise ValueError(f"--fail-over takes a percentage of at least 0, such as 5%: got {text!r}")
    return value


def _differences(base: Run, new: Run) -> list[str]:
    was, is_now = identity(base.environment), identity(new.environment)
    notes = [f"{name} is incomplete" for name, run in (("base", base), ("new", new)) if run.status == "incomplete"]
    for field in was:
        if was[field] != is_now[field]:
            kind = " (two cards of one kind)" if field == "gpu uuid" and was[field] and is_now[field] else ""
            notes.append(f"{field}: {was[field]} in base, {is_now[field]} in new{kind}")
    return notes


Key = tuple[str, str, str, str]


def _by_case(records: Iterable[Record]) -> dict[Key, Record]:
    return {(each.operation, each.implementation, each.purpose, each.case): each for each in records}


def _paired(base: Mapping[Key, Record], new: Mapping[Key, Record]) -> tuple[list[Pair], int, int]:
    """The pairs (not yet tested if timed in both runs), the number of untimed cases that pass in both runs, and the
    number of cases that pass in neither."""
    pairs: list[Pair] = []
    agreeing = failing = 0
    for key in dict.fromkeys((*base, *new)):
        was, is_now = base.get(key), new.get(key)
        pair = Pair(key[0], key[1], key[3], Verdict.UNCLEAR)
        if was is None or is_now is None:
            pairs.append(replace(pair, verdict=Verdict.ONLY_BASE if was else Verdict.ONLY_NEW))
        elif was.status is not Status.PASSED and is_now.status is not Status.PASSED:
            failing += 1
        elif is_now.status is not Status.PASSED:
            pairs.append(replace(pair, verdict=Verdict.FAILED, notes=(_finding(is_now),)))
        elif was.status is not Status.PASSED:
            pairs.append(replace(pair, verdict=Verdict.PASSES, notes=(f"before: {_finding(was)}",)))
        elif was.measurements or is_now.measurements:
            pairs += _by_mode(pair, was, is_now)
        else:
            agreeing += 1
    return pairs, agreeing, failing


def _finding(record: Record) -> str:
    return f"{record.status}: {record.message}" if record.message else str(record.status)


def _by_mode(pair: Pair, was: Record, is_now: Record) -> list[Pair]:
    before, after = ({each.mode: each for each in record.measurements} for record in (was, is_now))
    pairs = []
    for mode in dict.fromkeys((*before, *after)):
        b, n = before.get(mode), after.get(mode)
        only = Verdict.ONLY_BASE if n is None else Verdict.ONLY_NEW if b is None else Verdict.UNCLEAR
        notes = (*_doubts("base", b), *_doubts("new", n)) if b and n else ()
        pairs.append(replace(pair, verdict=only, mode=mode, base=b, new=n, notes=notes))
    return pairs


def _doubts(name: str, measurement: Measurement) -> list[str]:
    throttled = dict.fromkeys(reason for state in measurement.states for reason in state.throttled)
    return [
        *([f"{name} throttled: {', '.join(throttled)}"] if throttled else []),
        *(f"{name} suspect: {suspicion}" for suspicion in measurement.suspicions),
    ]


def _judged(pairs: Sequence[Pair], bound: float, alpha: float) -> list[Pair]:
    """The pairs, with a verdict for each that was timed in both runs."""
    estimates = {
        place: _log_ratio(pair.base, pair.new)
        for place, pair in enumerate(pairs)
        if pair.base and pair.new and _usable(pair.base) and _usable(pair.new)
    }
    margin = math.log1p(bound)
    slower = _holm([each.p_above(margin) for each in estimates.values()])
    faster = _holm([each.p_below(-margin) for each in estimates.values()])
    judged = list(pairs)
    for (place, estimate), p_slower, p_faster in zip(estimates.items(), slower, faster, strict=True):
        verdict = Verdict.SLOWER if p_slower < alpha else Verdict.FASTER if p_faster < alpha else Verdict.SAME
        low, high = estimate.interval(alpha)
        notes = pairs[place].notes
        if verdict is Verdict.SAME and high > 1 + bound:
            notes = (*notes, f"may be slower by more than {100 * bound:g} %")
        judged[place] = replace(
            pairs[place], verdict=verdict, ratio=math.exp(estimate.value), low=low, high=high, notes=notes
        )
    for place, pair in enumerate(pairs):
        if pair.base and pair.new and place not in estimates:
            judged[place] = replace(
                pair, notes=(*pair.notes, "too few samples, or samples that are not positive times")
            )
    return judged


def _usable(measurement: Measurement) -> bool:
    return len(measurement.samples) > 1 and all(0 < sample < math.inf for sample in measurement.samples)


@dataclass(frozen=True)
class _LogRatio:
    """The log ratio of two medians: Student's t around ``value`` with standard error ``error``."""

    value: float
    error: float
    degrees: float

    def p_above(self, margin: float) -> float:
        """The p-value of the hypothesis that the true log ratio is at most ``margin``."""
        return float(stats.t.sf((self.value - margin) / self.error, self.degrees))

    def p_below(self, margin: float) -> float:
        return float(stats.t.cdf((self.value - margin) / self.error, self.degrees))

    def interval(self, alpha: float) -> tuple[float, float]:
        reach = float(stats.t.ppf(1 - alpha / 2, self.degrees)) * self.error
        return math.exp(self.value - reach), math.exp(min(self.value + reach, 700.0))


def _log_ratio(base: Measurement, new: Measurement) -> _LogRatio:
    """Welch's approximation. `BETWEEN_RUNS` is a constant, so it does not enter the degrees of freedom."""
    values, variances, degrees = zip(*(_log_median(each) for each in (base, new)), strict=True)
    variance = sum(variances) + 2 * BETWEEN_RUNS**2
    uncertainty = sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    return _LogRatio(values[1] - values[0], math.sqrt(variance), variance**2 / max(uncertainty, 1e-300))


def _log_median(measurement: Measurement) -> tuple[float, float, float]:
    """The logarithm of the median, its variance, and the degrees of freedom of the variance.

    The variance is the bootstrap variance of the median, or the recorded noise if it is larger, times
    ``(1 + r) / (1 - r)`` for a correlation r of neighbouring samples. The correlation of ranks gives r, so that an
    outlier cannot hide it; its bias of about ``-(1 + 3 r) / n`` (Kendall) is corrected.
    """
    samples = np.asarray(measurement.samples)
    n = len(samples)
    ranks = stats.rankdata(samples) - (n + 1) / 2
    r = float(ranks[1:] @ ranks[:-1]) / max(float(ranks @ ranks), 1.0)  # 0 where all samples are equal
    r = min(max(r + (1 + 3 * r) / n, 0.0), 0.99)
    inflation = (1 + r) / (1 - r)
    resampled = samples[np.random.default_rng(n).integers(n, size=(RESAMPLES, n))]
    spread = float(np.log(np.median(resampled, axis=1)).var())
    noise = measurement.noise if math.isfinite(measurement.noise) else 0.0
    return math.log(float(np.median(samples))), max(spread, noise**2) * inflation, max(n / inflation - 1, 0.5)


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: if those below alpha are rejected, any is false with probability at most alpha."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _rank(pair: Pair) -> tuple[int, float]:
    change = math.log(pair.ratio) if pair.ratio else 0.0
    return list(Verdict).index(pair.verdict), change if pair.verdict is Verdict.FASTER else -change
