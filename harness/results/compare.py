"""Detect the kernels of a new run that are slower than in a base run, by more than noise and a bound.

The test compares the ratio of the medians with the bound and not with 1, because two runs of the same code differ in
clocks and memory placement. The bound is the difference that is tolerated. A regression is a ratio that is
significantly *beyond* it, and a difference that is larger than the noise floors of both runs: what the runs' A/A
controls show for the same code is no change of it (see `precision`).

The variance of a median is that of the bootstrap of the raw samples, in closed form (Maritz and Jarrett 1978), times
the correlation time of the samples; at least the square of the noise that the run recorded when its sampling ended. So
the variance is larger where sampling ends earlier, as it does on a CPU. `BETWEEN_RUNS` is added for the variation
between runs, which a single run cannot estimate.

**Error rate.** All measurements share one exit status, so a single false alarm is enough to fail. Holm's correction
bounds the probability of any false alarm: a comparison of two runs of the same code calls a case slower with
probability at most ``alpha`` (5 %). That holds if clocks vary faster than the samples of a case last, however they do
so: drift, several levels, spikes. What varies more slowly moves a whole run; the bound must cover it. Control of the
false discovery rate would admit some false alarms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from ..api.operations import Status
from ..api.records import MOST_DISTURBED, Measurement, Part, Record, Run, Shard
from .environment import commit_of, device_name, identity
from .file import ResultsError, read_records
from .parts import by_device
from .precision import floor_words, log_median, noise_floor
from .slow_devices import slow_devices

Floats = npt.NDArray[np.float64]

BETWEEN_RUNS = 0.005
"""Relative error added to each median, on every device, for what differs between runs of the same code and shows in no
sample: an assumption. On a CPU runs may differ by more, which the noise floor of the A/A controls covers."""


class NothingInCommon(ResultsError):
    """The two runs have no case in common, or none whose times can be judged."""


class DifferentDevices(ResultsError):
    """The two runs used different devices, so their times are not comparable."""


class Verdict(StrEnum):
    """How a case changed from the base to the new run, worst first."""

    FAILED = "failed now"
    SLOWER = "slower"
    FASTER = "faster"
    PASSES = "passes now"
    SLIGHTLY_SLOWER = "slower within the bound"
    SLIGHTLY_FASTER = "faster within the bound"
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
    device: str = ""


Key = tuple[str, str, str, str]
"""Operation, implementation, purpose and label of a case, with the device if the run has the case on several."""


@dataclass(frozen=True)
class Summary:
    """What a comparison keeps of a run. ``floor`` is its `noise_floor`; ``started``, ``shard`` and ``parts`` are those
    of `Run`; ``slow`` says of each slow device of several by how much, ``kinds`` names its kinds of device."""

    status: str
    environment: Mapping[str, Any]
    cases: Mapping[Key, Case]
    floor: float | None = None
    started: str = ""
    slow: tuple[str, ...] = ()
    shard: Shard | None = None
    parts: tuple[Part, ...] = ()
    kinds: tuple[str, ...] = ()


def summary(run: Run) -> Summary:
    """The summary of a run."""
    return _joined(_summaries(run, [*map(_case, run.records)]))


def read_summary(path: Path) -> Summary:
    """The summary of the run in a results file; its samples are not kept. Raises ResultsError.

    In a merged file of several kinds of device, the label of each case names its device.
    """
    return _joined(read_summaries(path))


def read_summaries(path: Path) -> list[Summary]:
    """The same, for each kind of device."""
    return _summaries(*read_records(path, _case))


def _summaries(run: Run, cases: Sequence[tuple[Key, Case]]) -> list[Summary]:
    return [_summary(each, own) for each, own in by_device(run, cases)]


def _summary(run: Run, cases: Sequence[tuple[Key, Case]]) -> Summary:
    found: dict[Key, list[Case]] = {}
    for key, case in cases:
        found.setdefault(key, []).append(case)
    separate: dict[Key, Case] = {}
    for (*names, label), own in found.items():
        several = len({case.device for case in own}) > 1
        separate.update({(*names, f"{label} on {case.device}" if several else label): case for case in own})  # type: ignore[misc]
    kinds = (device_name(run.environment),)
    floor = noise_floor(run.controls)
    slow = tuple(slow_devices(run))
    return Summary(run.status, run.environment, separate, floor, run.started, slow, run.shard, run.parts, kinds)


def _joined(summaries: Sequence[Summary]) -> Summary:
    if len(summaries) == 1:
        return summaries[0]
    names = [each.kinds[0] for each in summaries]
    cases = {
        (*key[:3], f"{key[3]} on {name}"): case
        for name, each in zip(names, summaries, strict=True)
        for key, case in each.cases.items()
    }
    status = "complete" if all(each.status == "complete" for each in summaries) else "incomplete"
    floors = [each.floor for each in summaries if each.floor is not None]
    slow = tuple(words for each in summaries for words in each.slow)
    return replace(
        summaries[0], status=status, cases=cases, floor=max(floors, default=None), slow=slow, kinds=tuple(names)
    )


@dataclass(frozen=True)
class Pair:
    """One case of an implementation in both runs, in one mode if it was timed.

    ``ratio`` is the new median divided by the base median; its confidence interval ``low`` to ``high`` has level
    ``1 - alpha`` for this pair alone. The verdict is corrected for all pairs, so it can be milder than the interval.
    ``bound`` is the fraction by which it may be slower. ``notes`` are reasons to distrust the verdict, or the failure.
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
    bound: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What a pattern of `Bounds` must match: operation, implementation, mode if it was timed, and case."""
        return " ".join(filter(None, (self.operation, self.implementation, self.mode, self.case)))


@dataclass(frozen=True)
class Bounds:
    """The tolerated slowdown, as a fraction: ``usual``, and that of each pattern in ``special``, of which the last one
    that matches counts.

    A pattern has the wildcards of a shell. It matches the whole of `Pair.name` or words at its beginning:
    ``logsumexp``, ``* native``, ``sgld torch cold *float32``.
    """

    usual: float
    special: tuple[tuple[str, float], ...] = ()

    def of(self, name: str) -> float:
        found = [bound for pattern, bound in self.special if _matches(name, pattern)]
        return found[-1] if found else self.usual


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern} *")


@dataclass(frozen=True)
class Comparison:
    """All pairs, regressions first. ``agreeing`` counts the untimed cases that passed in both runs; ``floors`` are the
    noise floors of base and new, None without a control; ``commits`` are theirs in words; ``notes`` list other
    differences of the runs."""

    pairs: tuple[Pair, ...]
    bounds: Bounds
    alpha: float
    agreeing: int = 0
    floors: tuple[float | None, float | None] = (None, None)
    commits: tuple[str, str] = ("", "")
    notes: tuple[str, ...] = ()

    def having(self, *verdicts: Verdict) -> list[Pair]:
        return [pair for pair in self.pairs if pair.verdict in verdicts]


def compare(
    base: Summary, new: Summary, *, bound: float | Bounds, any_device: bool = False, alpha: float = 0.05
) -> Comparison:
    """Compare each case of ``base`` and ``new``. ``bound`` is a fraction: 0.05 allows a median 5 % longer.

    A case is slower if the ratio of the medians is significantly above ``1 + bound``, and faster if it is significantly
    below the inverse; within the bound, if it differs significantly from 1. In either case the difference must be
    larger than the noise floors of both runs. The probability that any pair is wrongly called slower is at most
    ``alpha``; likewise for faster.
    Missing samples, and samples that are not positive times, count as a failure: a run cannot hide a case by losing
    its times.
    Two GPUs with the same name count as the same device, and two CPUs with the same model, cores and threads.

    Raises DifferentDevices unless ``any_device``, NothingInCommon, and ResultsError for a pattern of `Bounds` that
    matches nothing.
    """
    bounds = bound if isinstance(bound, Bounds) else Bounds(bound)
    devices = [" and ".join(sorted(run.kinds or [device_name(run.environment)])) for run in (base, new)]
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
    for pattern, _ in bounds.special:
        if not any(_matches(pair.name, pattern) for pair in pairs):
            example = min((pair.name for pair in pairs), default="none")
            raise ResultsError(f"no case matches the pattern {pattern!r} of --fail-over; a case is {example!r}")
    pairs = [replace(pair, bound=bounds.of(pair.name)) for pair in pairs]
    floors = base.floor, new.floor
    pairs = _judged(pairs, max(floor or 0.0 for floor in floors), alpha)
    unclear = [pair for pair in pairs if pair.verdict is Verdict.UNCLEAR]
    if unclear and len(unclear) == len(both):
        words = f"{unclear[0].name}: {', '.join(unclear[0].notes)}"
        raise NothingInCommon(f"the two runs have no time in common that can be judged; {words}")
    notes = _differences(base, new)
    if failing:
        notes.append(f"cases that pass in neither run, not compared: {failing}")
    commits = commit_of(base.environment), commit_of(new.environment)
    return Comparison(tuple(sorted(pairs, key=_rank)), bounds, alpha, agreeing, floors, commits, tuple(notes))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values for strict JSON. Times are in seconds; what is not a number is None."""
    return {
        "regression": bool(exit_status(comparison)),
        "bound": comparison.bounds.usual,
        "alpha": comparison.alpha,
        "noise_floor": dict(zip(("base", "new"), comparison.floors, strict=True)),
        "commit": dict(zip(("base", "new"), comparison.commits, strict=True)),
        "agreeing": comparison.agreeing,
        "notes": list(comparison.notes),
        "pairs": [
            {
                "operation": pair.operation,
                "implementation": pair.implementation,
                "case": pair.case,
                "mode": pair.mode,
                "verdict": str(pair.verdict),
                "bound": pair.bound,
                "base": _finite(pair.base.median if pair.base else None),
                "new": _finite(pair.new.median if pair.new else None),
                "ratio": _finite(pair.ratio),
                "low": _finite(pair.low),
                "high": _finite(pair.high),
                "notes": list(pair.notes),
            }
            for pair in comparison.pairs
        ],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def exit_status(comparison: Comparison) -> int:
    """1 if a case is slower beyond noise and bound, or passed in the base and does not now; else 0."""
    return 1 if comparison.having(*REGRESSIONS) else 0


def parse_bounds(texts: Sequence[str]) -> Bounds:
    """``["5%", "sgld * cold=3%"]`` as `Bounds`: a percentage for all, and for the cases that match a pattern. Without
    one for all it is 5 %. Raises ValueError."""
    bounds = Bounds(0.05)
    for text in texts:
        pattern, separator, percentage = text.rpartition("=")
        if separator and not pattern.strip():
            raise ValueError(f"--fail-over has no pattern before the = in {text!r}")
        if separator:
            bounds = replace(bounds, special=(*bounds.special, (pattern.strip(), parse_bound(percentage))))
        else:
            bounds = replace(bounds, usual=parse_bound(text))
    return bounds


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
    notes += [f"{name}: {words}" for name, run in (("base", base), ("new", new)) for words in run.slow]
    both = [
        (case.device, new.cases[key].device) for key, case in base.cases.items() if key in new.cases and case.timings
    ]
    if moved := sum(one != other for one, other in both if one and other):
        notes.append(f"{moved} of {len(both)} timed cases ran on another device of the same kind in new")
    return notes


def _case(record: Record) -> tuple[Key, Case]:
    key = (record.operation, record.implementation, record.purpose, record.case)
    timings: dict[str, Timing] = {each.mode: _timing(each) for each in record.measurements}
    return key, Case(record.status, record.message, timings, record.device)


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
    sides: dict[str, list[str]] = {}
    for name, timing in (("base", before), ("new", after)):
        for doubt in timing.doubts:
            sides.setdefault(doubt, []).append(name)
    return replace(pair, notes=tuple(f"{' and '.join(names)} {doubt}" for doubt, names in sides.items()))


def _judged(pairs: Sequence[Pair], floor: float, alpha: float) -> list[Pair]:
    """The pairs, with a verdict for each that was timed in both runs. ``floor`` is the larger noise floor of the two.

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
    margin = np.log1p([pairs[place].bound for place in places])

    def above(amount: Floats, least: Floats | float) -> Any:
        """Whether ``amount`` is significantly above ``least``, for each pair."""
        return _holm(special.stdtr(freedom, -(amount - least) / error)) < alpha

    verdicts = (
        (Verdict.SLOWER, above(value, margin)),
        (Verdict.FASTER, above(-value, margin)),
        (Verdict.SLIGHTLY_SLOWER, above(value, 0.0)),
        (Verdict.SLIGHTLY_FASTER, above(-value, 0.0)),
    )
    outside = np.abs(value) > math.log1p(floor)
    reach = special.stdtrit(freedom, 1 - alpha / 2) * error
    ratio, low, high = (np.exp(np.minimum(each, 700.0)).tolist() for each in (value, value - reach, value + reach))
    for i, place in enumerate(places):
        pair = pairs[place]
        significant = next((verdict for verdict, holds in verdicts if holds[i]), Verdict.SAME)
        verdict = significant if outside[i] else Verdict.SAME
        notes = pair.notes
        if verdict is not significant:
            notes = (*notes, f"{significant}, but within the noise floor of {floor_words(floor)}")
        elif verdict in (Verdict.SAME, Verdict.SLIGHTLY_SLOWER) and high[i] > 1 + pair.bound:
            notes = (*notes, f"may be slower by more than {100 * pair.bound:g} %")
        judged[place] = replace(pair, verdict=verdict, ratio=ratio[i], low=low[i], high=high[i], notes=notes)
    return judged


def _timing(measurement: Measurement) -> Timing:
    throttled = dict.fromkeys(reason for state in measurement.states for reason in state.throttled)
    doubts = (
        *([f"throttled: {', '.join(throttled)}"] if throttled else []),
        *(["disturbed by other processes"] if measurement.disturbed > MOST_DISTURBED and not throttled else []),
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
    return Timing(measurement.median, doubts, "", *log_median(samples, measurement.noise))


def _holm(p_values: Floats) -> Floats:
    """Holm's adjusted p-values: if those below alpha are rejected, any is false with probability at most alpha."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)), 1.0)
    return adjusted


def _rank(pair: Pair) -> tuple[int, float]:
    change = math.log(pair.ratio) if pair.ratio else 0.0
    return list(Verdict).index(pair.verdict), change if pair.verdict in (
        Verdict.FASTER,
        Verdict.SLIGHTLY_FASTER,
    ) else -change
