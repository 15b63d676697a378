"""Detect the kernels of a new run that are slower than in a base run, by more than noise and a bound.

The test compares the ratio of the medians with the bound and not with 1, because two runs of the same code differ in
clocks and memory placement. The bound is the difference that is tolerated. A regression is a ratio that is
significantly *beyond* it.

The standard error of a median is that of the bootstrap of the raw samples, in closed form (Maritz and Jarrett 1978).
Successive samples are correlated (clocks, temperature), so the effective number of samples is reduced by the
correlation of neighbours. `BETWEEN_RUNS` is added
for the variation between runs, which a single run cannot estimate. Drifts over more than some tens of samples are not
modelled; the bound must cover them.

All measurements share one exit status, so a single false alarm is enough to fail. Holm's correction bounds the
probability of any false alarm by ``alpha``. Control of the false discovery rate would admit some false alarms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from ..api.operations import Status
from ..api.records import Measurement, Record, Run
from .environment import device_name, identity
from .file import ResultsError, read_records

BETWEEN_RUNS = 0.005
"""Relative error added to each median: the noise at which sampling stops."""

Floats = npt.NDArray[np.float64]


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
class Timing:
    """What a comparison keeps of a measurement.

    ``median`` is the recorded one. ``log_median`` is the logarithm of that of the samples, ``variance`` its variance,
    with ``degrees`` of freedom. ``fault`` says why the samples cannot be judged; ``doubts`` are reasons to distrust
    them.
    """

    median: float
    doubts: tuple[str, ...] = ()
    fault: str = ""
    log_median: float = math.nan
    variance: float = math.nan
    degrees: float = math.nan


@dataclass(frozen=True)
class Case:
    """A case of an implementation in one run: its status, and its timings by mode."""

    status: Status
    message: str
    timings: Mapping[str, Timing]


Key = tuple[str, str, str, str]
"""Operation, implementation, purpose and label of a case."""


@dataclass(frozen=True)
class Summary:
    """What a comparison keeps of a run."""

    status: str
    environment: Mapping[str, Any]
    cases: Mapping[Key, Case]


def summary(run: Run) -> Summary:
    """The summary of a run."""
    return Summary(run.status, run.environment, dict(map(_case, run.records)))


def read_summary(path: Path) -> Summary:
    """The summary of the run in a results file; its samples are not kept. Raises ResultsError."""
    run, cases = read_records(path, _case)
    return Summary(run.status, run.environment, dict(cases))


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
    base: Timing | None = None
    new: Timing | None = None
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


def compare(base: Summary, new: Summary, *, bound: float, any_device: bool = False, alpha: float = 0.05) -> Comparison:
    """Compare each case of ``base`` and ``new``. ``bound`` is a fraction: 0.05 allows a median 5 % longer.

    A case is slower if the ratio of the medians is significantly above ``1 + bound``, and faster if it is significantly
    below the inverse. The probability that any pair is wrongly called slower is at most ``alpha``; likewise for faster.
    Missing samples, and samples that are not positive times, count as a failure: a run cannot hide a case by losing
    its times.
    Two GPUs with the same name count as the same device, and two CPUs with the same model, cores and threads.

    Raises DifferentDevices unless ``any_device``, and NothingInCommon.
    """
    devices = [device_name(run.environment) for run in (base, new)]
    if devices[0] != devices[1] and not any_device:
        raise DifferentDevices(
            f"base ran on {devices[0]}, new on {devices[1]}: the difference would not be due to the code; "
            "to compare them anyway, add --any-device"
        )
    pairs, agreeing, failing = _paired(base.cases, new.cases)
    timed = any(case.timings for case in (*base.cases.values(), *new.cases.values()))
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


def _differences(base: Summary, new: Summary) -> list[str]:
    was, is_now = identity(base.environment), identity(new.environment)
    notes = [f"{name} is incomplete" for name, run in (("base", base), ("new", new)) if run.status == "incomplete"]
    for field in was:
        if was[field] != is_now[field]:
            kind = " (two cards of one kind)" if field == "gpu uuid" and was[field] and is_now[field] else ""
            notes.append(f"{field}: {was[field]} in base, {is_now[field]} in new{kind}")
    return notes


def _case(record: Record) -> tuple[Key, Case]:
    key = (record.operation, record.implementation, record.purpose, record.case)
    return key, Case(record.status, record.message, {each.mode: _timing(each) for each in record.measurements})


def _paired(base: Mapping[Key, Case], new: Mapping[Key, Case]) -> tuple[list[Pair], int, int]:
    """The pairs (not yet tested if timed in both runs), the number of untimed cases that pass in both runs, and the
    number of cases that pass in neither."""
    pairs: list[Pair] = []
    agreeing = failing = 0
    modes = {mode for case in new.values() for mode in case.timings}
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
        elif was.timings or is_now.timings:
            for mode in dict.fromkeys((*was.timings, *is_now.timings)):
                pairs.append(_in_mode(pair, mode, was.timings.get(mode), is_now.timings.get(mode), modes))
        else:
            agreeing += 1
    return pairs, agreeing, failing


def _finding(case: Case) -> str:
    return f"{case.status}: {case.message}" if case.message else str(case.status)


def _in_mode(pair: Pair, mode: str, was: Timing | None, is_now: Timing | None, modes: set[str]) -> Pair:
    """The pair of a case that passes in both runs, in one mode. It is not judged yet.

    ``modes`` are those that the new run timed anything in: there, a case without a time has lost it.
    """
    pair = replace(pair, mode=mode, base=was, new=is_now)
    missing = Timing(math.nan, fault="was not timed")
    before, after = was or missing, is_now or (missing if mode in modes else None)
    if after is None:
        return replace(pair, verdict=Verdict.ONLY_BASE)
    if was is None and not after.fault:
        return replace(pair, verdict=Verdict.ONLY_NEW)
    if before.fault and after.fault:
        return replace(pair, notes=(f"base: {before.fault}", f"new: {after.fault}"))
    if after.fault:
        return replace(pair, verdict=Verdict.FAILED, notes=(after.fault,))
    if before.fault:
        return replace(pair, verdict=Verdict.PASSES, notes=(f"before: {before.fault}",))
    doubts = (("base", before), ("new", after))
    return replace(pair, notes=tuple(f"{name} {doubt}" for name, timing in doubts for doubt in timing.doubts))


def _judged(pairs: Sequence[Pair], bound: float, alpha: float) -> list[Pair]:
    """The pairs, with a verdict for each that was timed in both runs.

    Welch's approximation gives the degrees of freedom. `BETWEEN_RUNS` is a constant, so it does not enter them.
    """
    judged = list(pairs)
    places = [
        place
        for place, pair in enumerate(pairs)
        if pair.verdict is Verdict.UNCLEAR and pair.base and pair.new and not pair.base.fault
    ]
    if not places:
        return judged
    logs, variances, degrees = (
        np.array([[getattr(timing, name) for timing in (pairs[place].base, pairs[place].new)] for place in places])
        for name in ("log_median", "variance", "degrees")
    )
    value = logs[:, 1] - logs[:, 0]
    variance = variances.sum(axis=1) + 2 * BETWEEN_RUNS**2
    error = np.sqrt(variance)
    freedom = variance**2 / np.maximum((variances**2 / degrees).sum(axis=1), 1e-300)
    margin = math.log1p(bound)
    # The p-values of the hypotheses that the true log ratio is at most the margin, and at least its negative.
    slower = _holm(special.stdtr(freedom, -(value - margin) / error)) < alpha
    faster = _holm(special.stdtr(freedom, (value + margin) / error)) < alpha
    reach = special.stdtrit(freedom, 1 - alpha / 2) * error
    ratio, low, high = (np.exp(np.minimum(each, 700.0)).tolist() for each in (value, value - reach, value + reach))
    for i, place in enumerate(places):
        verdict = Verdict.SLOWER if slower[i] else Verdict.FASTER if faster[i] else Verdict.SAME
        notes = pairs[place].notes
        if verdict is Verdict.SAME and high[i] > 1 + bound:
            notes = (*notes, f"may be slower by more than {100 * bound:g} %")
        judged[place] = replace(pairs[place], verdict=verdict, ratio=ratio[i], low=low[i], high=high[i], notes=notes)
    return judged


def _timing(measurement: Measurement) -> Timing:
    throttled = dict.fromkeys(reason for state in measurement.states for reason in state.throttled)
    doubts = (
        *([f"throttled: {', '.join(throttled)}"] if throttled else []),
        *(f"suspect: {suspicion}" for suspicion in measurement.suspicions),
    )
    samples = np.asarray(measurement.samples)
    times = int(((samples > 0) & (samples < math.inf)).sum())
    fault = ""
    if times < len(samples):
        fault = f"{len(samples) - times} of {len(samples)} samples are not positive times"
    elif times < 2:
        fault = f"too few samples to judge: {times}"
    if fault:
        return Timing(measurement.median, doubts, fault)
    return Timing(measurement.median, doubts, "", *_log_median(samples, measurement.noise))


def _log_median(samples: Floats, noise: float) -> tuple[float, float, float]:
    """The logarithm of the median, its variance, and the degrees of freedom of the variance.

    The variance is the bootstrap variance of the median, or the recorded noise if it is larger, times
    ``(1 + r) / (1 - r)`` for a correlation r of neighbouring samples. The correlation of ranks gives r, so that an
    outlier cannot hide it; its bias of about ``-(1 + 3 r) / n`` (Kendall) is corrected.
    """
    n = len(samples)
    ordered = np.sort(samples)
    ranks = (ordered.searchsorted(samples, "left") + ordered.searchsorted(samples, "right") - n) / 2  # 0 in the middle
    r = float(ranks[1:] @ ranks[:-1]) / max(float(ranks @ ranks), 1.0)  # 0 where all samples are equal
    r = min(max(r + (1 + 3 * r) / n, 0.0), 0.99)
    inflation = (1 + r) / (1 - r)
    logs = np.log(ordered)
    chances = _chances_of_median(n)
    spread = float(chances @ (logs - chances @ logs) ** 2)
    noise = noise if math.isfinite(noise) else 0.0
    median = float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return math.log(median), max(spread, noise**2) * inflation, max(n / inflation - 1, 0.5)


@cache
def _chances_of_median(n: int) -> Floats:
    """The probability of each of n samples, in their order, to be the median of n draws with replacement. For an even n
    of n + 1 draws, whose median is as precise within some percent."""
    middle = n // 2 + 1
    among_smallest: Floats = special.betainc(middle, middle, np.arange(n + 1) / n)
    return np.diff(among_smallest)


def _holm(p_values: Floats) -> Floats:
    """Holm's adjusted p-values: if those below alpha are rejected, any is false with probability at most alpha."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)), 1.0)
    return adjusted


def _rank(pair: Pair) -> tuple[int, float]:
    change = math.log(pair.ratio) if pair.ratio else 0.0
    return list(Verdict).index(pair.verdict), change if pair.verdict is Verdict.FASTER else -change
