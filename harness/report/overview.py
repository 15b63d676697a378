"""The first screen of the page: the verdict on each run, the map of operations by implementations, doubtful figures."""

import math
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..api.operations import Status
from ..api.records import Run
from .rows import BASELINE, Row, Score, environment, geometric_mean, number, percent, scores, tested
from .tables import counted, grouped

FIRST = 5
"""Doubtful figures that are shown at once; the rest is folded."""

DEEPEST = 4.0
"""The binary logarithm of the speed from which on the colour no longer deepens: 16 times as fast or as slow."""

OWN = ("time in ", "overhead ")
"""The beginnings of facts that differ from run to run."""


@dataclass(frozen=True)
class Verdict:
    """A sentence on a run. ``kind`` is ``bad`` if something failed, ``idle`` if nothing agrees or chains did not mix,
    else ``good``. ``facts`` follow it."""

    kind: Literal["good", "idle", "bad"]
    words: str
    facts: tuple[str, ...]

    @property
    def mark(self) -> str:
        return {"good": "✓", "idle": "!", "bad": "✗"}[self.kind]


def verdict(run: Run, doubtful: int, figures: int) -> Verdict:
    """What failed, or that all agrees; then the numbers of figures, of doubtful ones, and of unavailable checks."""
    score = [each for of in scores(run.records).values() for each in of.values()]
    passed, failed = sum(each.passed for each in score), sum(each.failed for each in score)
    standings = tested(run)
    claims, broken = (sum(len(getattr(each, kind)) for each in standings) for kind in ("tried", "failed"))
    unmixed = len({(each.sampler, each.target) for each in standings if each.unmixed})
    wrong = sum(each.status is not Status.PASSED for each in run.outcomes)
    bad = [
        *([f"{failed} of {counted(passed + failed, 'check')} failed"] if failed else []),
        *([f"{broken} of {counted(claims, 'claim')} about samplers failed"] if broken else []),
        *([f"{wrong} of {counted(len(run.outcomes), 'experiment')} disagree with exact values"] if wrong else []),
    ]
    fine = [
        *([f"all {passed} checks agree" if passed > 1 else "one check agrees"] if passed and not failed else []),
        *([f"all {counted(claims, 'claim')} about samplers hold"] if claims and not broken else []),
        *([f"all estimates of {counted(len(run.outcomes), 'experiment')} agree"] if run.outcomes and not wrong else []),
    ]
    mixing = [f"{counted(unmixed, 'pair')} of sampler and target did not mix"] if unmixed else []
    said = [*bad, *mixing, *fine] or ["nothing was checked"]
    facts = [counted(figures, "figure")] if figures else []
    if figures:
        facts.append(f"{doubtful} to distrust" if doubtful else "none to distrust")
    if unavailable := sum(each.unavailable for each in score):
        facts.append(f"{counted(unavailable, 'check')} unavailable here")
    words = "; ".join(said)
    kind: Literal["good", "idle", "bad"] = "bad" if bad else "good" if fine and not mixing else "idle"
    return Verdict(kind, words[0].upper() + words[1:], tuple(facts))


@dataclass(frozen=True)
class Cell:
    """An implementation of an operation in one run. ``speed`` is the geometric mean of its speeds over torch in the
    cases that all implementations have, of the cold figures if there are any; ``share`` the largest share of a limit
    that it reaches. ``words`` explain both."""

    run: int
    score: Score
    speed: float | None
    share: float | None
    words: str

    @property
    def kind(self) -> str:
        """``failed``, ``timed``, ``agrees`` or ``unavailable``."""
        if self.score.failed:
            return "failed"
        if self.speed is not None or self.share is not None:
            return "timed"
        return "agrees" if self.score.passed else "unavailable"

    @property
    def depth(self) -> float:
        """From -1, 16 times as slow as torch, to 1, 16 times as fast."""
        return max(-1.0, min(1.0, math.log2(self.speed) / DEEPEST)) if self.speed else 0.0


@dataclass(frozen=True)
class Map:
    """Cells by operation and implementation, each with one for each run; and the implementations that run nowhere."""

    implementations: tuple[str, ...]
    cells: dict[str, dict[str, list[Cell]]]
    absent: tuple[str, ...]


def speed_map(runs: Sequence[tuple[str, Run]], rows: Sequence[Row]) -> Map:
    """The map of all runs: torch first, then the implementations of which most operations were timed."""
    measured = (row for row in rows if row.measurement)
    timed = grouped(measured, lambda row: (row.number, row.record.operation, row.record.implementation))
    cells: dict[str, dict[str, list[Cell]]] = {}
    for place, (_, run) in enumerate(runs):
        for operation, of in scores(run.records).items():
            timings_of = {name: timed.get((place, operation, name), []) for name in of}
            cases = _cases_of_all(timings_of.values())
            for name, score in of.items():
                cell = _cell(place, score, timings_of[name], cases)
                cells.setdefault(operation, {}).setdefault(name, []).append(cell)
    names = dict.fromkeys(name for of in cells.values() for name in of)
    every = [(name, cell) for of in cells.values() for name, own in of.items() for cell in own]
    here = {name for name, cell in every if cell.kind != "unavailable"}
    timings = Counter(name for name, cell in every if cell.kind == "timed")
    ordered = sorted((name for name in names if name in here), key=lambda name: (name != BASELINE, -timings[name]))
    return Map(tuple(ordered), cells, tuple(name for name in names if name not in here))


def _cases_of_all(implementations: Iterable[Sequence[Row]]) -> set[str]:
    """The cases over which speeds are compared: those that all implementations have, or if there are none, all."""
    cases = [{row.record.case for row in rows if row.over_torch is not None} for rows in implementations]
    cases = [each for each in cases if each] or [set()]
    return set.intersection(*cases) or set.union(*cases)


def _cell(place: int, score: Score, rows: Sequence[Row], cases: Container[str]) -> Cell:
    cold = [row for row in rows if row.mode == "cold"] or list(rows)
    speeds = [row.over_torch for row in cold if row.over_torch is not None and row.record.case in cases]
    reached = [(row.measurement, row.place) for row in cold if row.measurement]
    known = [(each.roofline_share, each.limit, case) for each, case in reached if each.roofline_share is not None]
    shares = [each for each in known if math.isfinite(each[0])]
    words = [f"{score.words} checks agree"] if score.passed or score.failed else score.reasons[:1]
    speed = share = None
    if speeds:
        speed = geometric_mean(speeds)
        span = f"{number(min(speeds))} to {number(max(speeds))} times as fast as {BASELINE}"
        words.append(f"{counted(len(speeds), 'case')}: {span}, geometric mean {number(speed)}")
    if shares:
        share, limit, case = max(shares)
        words.append(f"at most {percent(share)} of {limit}, in {case}")
    return Cell(place, score, speed, share, "; ".join(words))


def doubtful(rows: Sequence[Row]) -> list[Row]:
    """The rows with warnings: suspect ones first, then throttled ones, then by noise."""
    return sorted((row for row in rows if row.warnings), key=_doubt)


def _doubt(row: Row) -> tuple[bool, bool, float]:
    assert row.measurement is not None
    return not row.measurement.suspicions, not row.throttled, -row.measurement.noise


def facts(runs: Sequence[tuple[str, Run]]) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]]]:
    """Facts of the environments, each with its value in every run: those that tell the runs apart, and the others."""
    found = [environment(run) for _, run in runs]
    names = dict.fromkeys(name for each in found for name in each)
    table = [(name, [each.get(name, "-") for each in found]) for name in names]
    apart = [row for row in table if len({*row[1]}) > 1 and not row[0].startswith(OWN)]
    return apart, [row for row in table if row not in apart]
