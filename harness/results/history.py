"""The times of many runs in their order, and the steps in them.

**Steps.** The logarithms of the medians of a case are split where two levels differ most, in units of the standard
error of the difference, and each part is split in turn (binary segmentation, Scott and Knott 1974). A median counts
with the larger of its own variance, `compare.BETWEEN_RUNS` included, and the scatter between successive runs: 1.4826
times the median of their absolute differences over sqrt(2), which a few steps do not inflate. It is that of the case,
or of all cases of the machine where the case has few runs and that is larger: there, a change of most cases at once
looks like scatter. A run that alone deviates from both of its neighbours is no step, unless it is the newest.

**Error rate.** A history without a change has a step with probability at most ``alpha`` (5 %) on each machine, if the
scatter between runs is normal: Bonferroni's correction counts every case and every place. A step must also be larger
than the noise floors of the runs at both sides of it.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from ..api.operations import Status
from ..api.records import Part
from .compare import BETWEEN_RUNS, Case, Floats, Key, Summary, Timing, read_summaries
from .environment import commit_of, device_name
from .file import OtherJSON, ResultsError

NEWEST = 5
"""A slowdown that began in one of so many newest runs of a machine is a regression; an older one is history."""

FEWEST_FOR_SCATTER = 6
"""Differences of successive runs from which on their scatter counts."""
MANY_FOR_SCATTER = 20
"""Differences of one case from which on they alone decide."""

OUTLIER = 4.0
"""Standard deviations by which a run alone deviates from both of its neighbours."""

NAMED_BY_TIME = re.compile(r"(\d{8}T\d{6}Z)-")


@dataclass(frozen=True)
class HistoricRun:
    """One run: its file, when it started, the commit of its source in words, and its noise floor."""

    path: Path
    started: datetime
    commit: str
    floor: float | None


@dataclass(frozen=True)
class Point:
    """The time of a case in one of the machine's runs, which ``run`` counts from 0."""

    run: int
    timing: Timing


@dataclass(frozen=True)
class Step:
    """A change of level: ``at`` is the first point of the new level, ``length`` the number of its points.

    ``ratio`` is the new level divided by the old one, ``low`` to ``high`` its 95 % confidence interval.
    """

    at: int
    length: int
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Series:
    """The times of an implementation in one case and mode, in the order of the runs, and the steps in them."""

    operation: str
    implementation: str
    case: str
    mode: str
    points: tuple[Point, ...]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Failure:
    """A case that passed in an earlier run and does not in the newest that has it."""

    operation: str
    implementation: str
    case: str
    run: int
    message: str


@dataclass(frozen=True)
class Machine:
    """The runs on one kind of device, oldest first. Times of different devices are not comparable."""

    device: str
    runs: tuple[HistoricRun, ...]
    series: tuple[Series, ...]
    failures: tuple[Failure, ...]

    def is_new(self, series: Series, step: Step) -> bool:
        """Whether a step began in one of the `NEWEST` runs."""
        return series.points[step.at].run >= len(self.runs) - NEWEST


@dataclass(frozen=True)
class History:
    """The machines, and a sentence for each file that was left out. ``bound`` is the allowed slowdown."""

    machines: tuple[Machine, ...]
    problems: tuple[str, ...]
    bound: float
    alpha: float

    def regressions(self) -> list[tuple[Machine, Series, Step]]:
        """The last steps of cases that are slower by more than the bound and began at the newest end."""
        last = [(machine, each, each.steps[-1]) for machine in self.machines for each in machine.series if each.steps]
        return [
            (machine, series, step)
            for machine, series, step in last
            if step.ratio > 1 + self.bound and machine.is_new(series, step)
        ]

    @property
    def failed(self) -> bool:
        """Whether the newest runs have a regression, or a case that passed before and fails."""
        return bool(self.regressions()) or any(machine.failures for machine in self.machines)


def read_history(folder: Path, *, bound: float = 0.05, alpha: float = 0.05) -> History:
    """The history of all results files below ``folder``. One that cannot be used is left out and named, and one that is
    also a part of a merged file there counts once. Other JSON, such as that of ``inspect``, is passed over.

    Raises ResultsError if the folder is missing, or has no file with times.
    """
    if not folder.is_dir():
        raise ResultsError(f"cannot read {folder}: {'it is no folder' if folder.exists() else 'it does not exist'}")
    found: list[tuple[Path, datetime, Summary]] = []
    problems = []
    for path in sorted(folder.rglob("*.json")):
        try:
            found += [(path, _start(path, summary), summary) for summary in read_summaries(path)]
        except OtherJSON:
            continue
        except ResultsError as error:
            problems.append(str(error))
    merged = {_origin(part) for _, _, summary in found for part in summary.parts}
    found = [each for each in found if each[2].parts or _origin(each[2]) not in merged]
    machines: dict[str, list[tuple[Path, datetime, Summary]]] = {}
    for each in sorted(found, key=lambda each: each[:2][::-1]):
        if any(case.timings for case in each[2].cases.values()):
            machines.setdefault(device_name(each[2].environment), []).append(each)
    for device, runs in [*machines.items()]:
        faults = [timing.fault for *_, each in runs for case in each.cases.values() for timing in case.timings.values()]
        if all(faults):
            problems += [f"{path} has no time that can be judged: {faults[0]}" for path, *_ in runs]
            del machines[device]
    if not machines:
        left_out = f"; left out: {'; '.join(problems)}" if problems else ""
        raise ResultsError(f"{folder} has no results file with times: a history needs runs of bench{left_out}")
    return History(
        tuple(_machine(device, runs, alpha) for device, runs in machines.items()), tuple(problems), bound, alpha
    )


def _origin(run: Summary | Part) -> str:
    """What tells a run from others, in its own file and as a part of a merged one."""
    return json.dumps([run.started, str(run.shard), run.environment], sort_keys=True)


def as_json(history: History) -> dict[str, Any]:
    """The history as plain values for strict JSON. Times are in seconds; ``run`` counts a machine's runs from 0."""
    failing = [(id(series), id(step)) for _, series, step in history.regressions()]
    return {
        "regression": history.failed,
        "bound": history.bound,
        "alpha": history.alpha,
        "problems": list(history.problems),
        "machines": [
            {
                "device": machine.device,
                "runs": [
                    {
                        "file": str(run.path),
                        "started": f"{run.started:%Y-%m-%dT%H:%M:%SZ}",
                        "commit": run.commit,
                        "noise_floor": run.floor,
                    }
                    for run in machine.runs
                ],
                "failures": [vars(failure) for failure in machine.failures],
                "series": [
                    {
                        "operation": series.operation,
                        "implementation": series.implementation,
                        "case": series.case,
                        "mode": series.mode,
                        "runs": [point.run for point in series.points],
                        "medians": [point.timing.median for point in series.points],
                        "noise": [math.sqrt(point.timing.variance) for point in series.points],
                        "steps": [
                            {
                                "run": series.points[step.at].run,
                                "ratio": step.ratio,
                                "low": step.low,
                                "high": step.high,
                                "regression": (id(series), id(step)) in failing,
                            }
                            for step in series.steps
                        ],
                    }
                    for series in machine.series
                ],
            }
            for machine in history.machines
        ],
    }


def _start(path: Path, summary: Summary) -> datetime:
    """When a run started, as the file or its name says."""
    named = NAMED_BY_TIME.match(path.name)
    text = summary.started or (named[1] if named else "")
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        raise ResultsError(f"{path} does not say when it started, nor does its name") from None


def _machine(device: str, found: Sequence[tuple[Path, datetime, Summary]], alpha: float) -> Machine:
    runs = tuple(HistoricRun(path, start, commit_of(each.environment), each.floor) for path, start, each in found)
    cases: dict[Key, list[tuple[int, Case]]] = {}
    for number, (_, _, summary) in enumerate(found):
        for key, case in summary.cases.items():
            cases.setdefault(key, []).append((number, case))
    timed: dict[tuple[Key, str], list[Point]] = {}
    for key, own in cases.items():
        for number, case in own:
            for mode, timing in case.timings.items():
                if not timing.fault:
                    timed.setdefault((key, mode), []).append(Point(number, timing))
    differences = np.concatenate([np.diff(_logs(points)) for points in timed.values()])
    usual, level = _scatter(differences), alpha / len(timed)
    series = [
        Series(key[0], key[1], key[3], mode, tuple(points), tuple(find_steps(points, runs, level, usual)))
        for (key, mode), points in timed.items()
    ]
    return Machine(device, runs, tuple(series), tuple(_failures(cases)))


def _failures(cases: Mapping[Key, Sequence[tuple[int, Case]]]) -> Iterable[Failure]:
    for (operation, implementation, _, label), own in cases.items():
        number, newest = own[-1]
        if newest.status is not Status.PASSED and any(case.status is Status.PASSED for _, case in own):
            words = f"{newest.status}: {newest.message}" if newest.message else str(newest.status)
            yield Failure(operation, implementation, label, number, words)


Scatter = tuple[float, float]
"""A standard deviation between successive runs, and its degrees of freedom."""


def find_steps(
    points: Sequence[Point], runs: Sequence[HistoricRun], alpha: float, usual: Scatter = (0.0, math.inf)
) -> list[Step]:
    """The steps of one case. With probability ``alpha`` at most, there is one although nothing changed.

    ``usual`` is the scatter of cases that have too few runs for one of their own.
    """
    logs = _logs(points)
    own = np.array([point.timing.variance for point in points]) + BETWEEN_RUNS**2
    scatter, freedom = _scatter(np.diff(logs), usual)
    variance = np.maximum(own, scatter**2)
    alone = _outliers(logs, variance)
    keep = np.flatnonzero(~alone)
    places = _split(logs[keep], 1 / variance[keep], freedom, alpha)
    edges = [0, *places, len(keep)]
    steps = []
    for before, at, after in zip(edges, edges[1:], edges[2:], strict=False):
        step = _step(logs[keep], variance[keep], before, at, after, int(keep[at]))
        ends = runs[points[keep[at - 1]].run].floor, runs[points[keep[at]].run].floor
        if abs(math.log(step.ratio)) > math.log1p(max(floor or 0.0 for floor in ends)):
            steps.append(step)
    return steps


def _logs(points: Sequence[Point]) -> Floats:
    return np.array([point.timing.log_median for point in points])


def _scatter(differences: Floats, usual: Scatter = (0.0, math.inf)) -> Scatter:
    """The scatter of successive runs with these differences; if they are few, the usual one, or theirs if it is larger.

    The median of absolute differences is 0.37 times as efficient as the standard deviation (Hampel 1974).
    """
    if len(differences) < FEWEST_FOR_SCATTER:
        return usual
    own = 1.4826 * float(np.median(np.abs(differences))) / math.sqrt(2), 0.37 * len(differences)
    return own if len(differences) >= MANY_FOR_SCATTER or not usual[0] else (max(own[0], usual[0]), usual[1])


def _outliers(logs: Floats, variance: Floats) -> Any:
    """Which runs alone deviate from both neighbours, in the same direction. Neither the first nor the newest does."""
    alone = np.zeros(len(logs), bool)
    before, after = logs[1:-1] - logs[:-2], logs[1:-1] - logs[2:]
    least = OUTLIER * np.sqrt(variance[1:-1])
    alone[1:-1] = (before * after > 0) & (np.minimum(np.abs(before), np.abs(after)) > least)
    return alone


def _split(logs: Floats, weights: Floats, freedom: float, alpha: float, first: int = 0) -> list[int]:
    """The places of all steps, each the index of the first point of a new level; ``first`` is that of ``logs[0]``."""
    count = len(logs)
    if count < 2:
        return []
    ends = np.arange(1, count)
    weight, total = np.cumsum(weights), np.cumsum(weights * logs)
    left, right = weight[:-1], weight[-1] - weight[:-1]
    difference = (total[-1] - total[:-1]) / right - total[:-1] / left
    z = np.abs(difference) / np.sqrt(1 / left + 1 / right)
    best = int(np.argmax(z))
    p_value = 2 * float(special.stdtr(freedom, -z[best])) if math.isfinite(freedom) else 2 * special.ndtr(-z[best])
    if p_value * len(ends) >= alpha:
        return []
    at = best + 1
    parts = ((logs[:at], weights[:at], first), (logs[at:], weights[at:], first + at))
    before, after = (_split(part, own, freedom, alpha, place) for part, own, place in parts)
    return [*before, first + at, *after]


def _step(logs: Floats, variance: Floats, before: int, at: int, after: int, place: int) -> Step:
    """The step between the levels of ``before`` to ``at`` and ``at`` to ``after``, which begins at point ``place``."""
    weights = 1 / variance
    levels = [
        float(np.average(logs[one:other], weights=weights[one:other])) for one, other in ((before, at), (at, after))
    ]
    value = levels[1] - levels[0]
    reach = 1.96 * math.sqrt(1 / float(weights[before:at].sum()) + 1 / float(weights[at:after].sum()))
    low, high = math.exp(value - reach), math.exp(value + reach)
    return Step(place, after - at, math.exp(value), low, high)
