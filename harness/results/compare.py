"""Whether the kernels of a new run are slower than in an older one, by more than noise and a bound.

For each measurement the ratio of the medians is tested against the bound, and not against 1: two runs of the same
code differ, by clocks and by where memory happens to lie, and how much of that is harmless is what the bound says.
So a regression is a ratio that is shown to be *beyond* the bound.

The error of a median comes from the raw samples by the bootstrap. Samples that follow each other are alike (clocks,
temperature), and count for fewer, by how alike neighbours are. To it is added `BETWEEN_RUNS`, which one run cannot
know of itself. What changes more slowly than within some tens of samples is not seen by this, and is for the bound.

All measurements together give one exit status, which a single false alarm spoils. Hence Holm's correction, which
bounds the probability of any false alarm by ``alpha``; a false discovery rate would let false ones pass among true.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from scipy import stats

from ..api.operations import Status
from ..api.records import Measurement, Record, Run
from .environment import identity
from .file import ResultsError

BETWEEN_RUNS = 0.005
"""What is added to the error of a run's median, as a fraction of it: the noise at which sampling is content to stop."""

RESAMPLES = 500


class NothingInCommon(ResultsError):
    """Two runs that have no case in common."""


class DifferentDevices(ResultsError):
    """Two runs on devices whose figures say nothing of each other."""


class Verdict(StrEnum):
    """What became of a case from the base to the new run, the worst first."""

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

    ``ratio`` is the new median over that of the base, and lies between ``low`` and ``high`` with confidence
    ``1 - alpha``, looked at alone. The verdict looks at all pairs: it may be milder than the interval. ``notes`` are
    reasons to distrust it, or what went wrong.
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
    """What became of every case, regressions first. ``agreeing`` counts those that passed in both and were not timed;
    ``notes`` say in what else the runs differ."""

    pairs: tuple[Pair, ...]
    bound: float
    alpha: float
    agreeing: int = 0
    notes: tuple[str, ...] = ()

    def having(self, *verdicts: Verdict) -> list[Pair]:
        return [pair for pair in self.pairs if pair.verdict in verdicts]


def compare(base: Run, new: Run, *, bound: float, any_device: bool = False, alpha: float = 0.05) -> Comparison:
    """What became of each case of ``base`` in ``new``. ``bound`` is a fraction: 0.05 allows a median 5 % longer.

    A case is slower, or faster, where the ratio of the medians is beyond ``1 + bound``, or its inverse, whatever
    the bound; the probability that any pair is called slower of which that is not true is at most ``alpha``, and for
    faster likewise. Two cards of the same name count as the same device; two CPUs if their model, cores and threads
    are the same.

    Raises DifferentDevices unless ``any_device``, and NothingInCommon.
    """
    devices = [_device(run.environment) for run in (base, new)]
    if devices[0] != devices[1] and not any_device:
        raise DifferentDevices(
            f"base ran on {devices[0]}, new on {devices[1]}: their figures say nothing of the code; "
            "--any-device compares them all the same"
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
        notes.append(f"{failing} that did not pass in either run: not compared")
    return Comparison(tuple(sorted(pairs, key=_rank)), bound, alpha, agreeing, tuple(notes))


def exit_status(comparison: Comparison) -> int:
    """1 if anything is slower beyond noise and bound, or passed before and does not now; else 0."""
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


def _device(environment: Mapping[str, Any]) -> str:
    gpu = environment.get("gpu")
    if gpu:
        return str(gpu.get("name"))
    cpu, cores, threads = (environment.get(field) for field in ("cpu", "cores", "threads"))
    return f"the CPU {cpu} (cores: {cores}, threads: {threads})"


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
    """The pairs, those timed in both yet to be judged; how many agree untimed; how many pass in neither."""
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
    """The pairs with the verdicts of those that were timed in both runs."""
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
            judged[place] = replace(pair, notes=(*pair.notes, "too few samples, or samples that are not times"))
    return judged


def _usable(measurement: Measurement) -> bool:
    return len(measurement.samples) > 1 and all(0 < sample < math.inf for sample in measurement.samples)


@dataclass(frozen=True)
class _LogRatio:
    """The logarithm of the ratio of two medians, as Student's t with these degrees of freedom around ``value``."""

    value: float
    error: float
    degrees: float

    def p_above(self, margin: float) -> float:
        """The probability of a value as large if the true one is at most ``margin``."""
        return float(stats.t.sf((self.value - margin) / self.error, self.degrees))

    def p_below(self, margin: float) -> float:
        return float(stats.t.cdf((self.value - margin) / self.error, self.degrees))

    def interval(self, alpha: float) -> tuple[float, float]:
        reach = float(stats.t.ppf(1 - alpha / 2, self.degrees)) * self.error
        return math.exp(self.value - reach), math.exp(min(self.value + reach, 700.0))


def _log_ratio(base: Measurement, new: Measurement) -> _LogRatio:
    """Welch's approximation; `BETWEEN_RUNS` is not estimated from the samples and so has no part in the degrees."""
    values, variances, degrees = zip(*(_log_median(each) for each in (base, new)), strict=True)
    variance = sum(variances) + 2 * BETWEEN_RUNS**2
    uncertainty = sum(v**2 / d for v, d in zip(variances, degrees, strict=True))
    return _LogRatio(values[1] - values[0], math.sqrt(variance), variance**2 / max(uncertainty, 1e-300))


def _log_median(measurement: Measurement) -> tuple[float, float, float]:
    """The logarithm of the median, its variance, and the degrees of freedom of that.

    The variance is that of the medians of resampled samples (or the recorded noise if that is more), times
    ``(1 + r) / (1 - r)``: so much less do n samples tell whose neighbours are correlated by r. Ranks give r, that an
    outlier may not hide it; its estimate is too low by about ``(1 + 3 r) / n`` (Kendall).
    """
    samples = np.asarray(measurement.samples)
    n = len(samples)
    ranks = stats.rankdata(samples) - (n + 1) / 2
    r = float(ranks[1:] @ ranks[:-1]) / max(float(ranks @ ranks), 1.0)  # 0 where all samples are equal
    r = min(max(r + (1 + 3 * r) / n, 0.0), 0.99)
    alike = (1 + r) / (1 - r)
    resampled = samples[np.random.default_rng(n).integers(n, size=(RESAMPLES, n))]
    spread = float(np.log(np.median(resampled, axis=1)).var())
    noise = measurement.noise if math.isfinite(measurement.noise) else 0.0
    return math.log(float(np.median(samples))), max(spread, noise**2) * alike, max(n / alike - 1, 0.5)


def _holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: one below alpha is a claim, and any claim is false with probability alpha at most."""
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _rank(pair: Pair) -> tuple[int, float]:
    change = math.log(pair.ratio) if pair.ratio else 0.0
    return list(Verdict).index(pair.verdict), change if pair.verdict is Verdict.FASTER else -change
