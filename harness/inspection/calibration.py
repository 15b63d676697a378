"""The predictions held to measurements that others published: the error by group, and the fit of the constants.

`published.json` holds a record for each measurement. Another one is another record:

- ``name``, ``group`` (kernels of one kind), ``source``, ``device`` (a key of `DEVICES`);
- ``seconds`` as published, for ``total`` items in ``launches`` launches from a ``stream``, a ``graph`` or
  ``eager torch``; ``synchronisations``: how often the host waits for the device meanwhile; ``helper_bytes``: moved by
  other kernels;
- ``clocks`` of a multiprocessor per item by pipe, without "memory"; ``bytes_per_item``; ``warps`` resident;
- ``instructions``, ``items``, ``rounds``, ``loaded_bytes``: of one thread in one pass of the hot path, counted in the
  machine code that its source compiles to;
- ``fitted``: false for a point that no fit may see; ``spills``: uses local memory, which is not modelled.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from math import exp, log, sqrt
from typing import Any

from .architectures import DEVICES
from .prediction import CONSTANTS, LAUNCH, Constants, Demand, expected_clocks, terms

PRIOR = Constants(1.0, 4.0, 4.0, 8.0e-6, 4.0e-5)
"""What is known without the points: gpu-benches' pointer chase takes 572 to 655 ns, and an instruction that waits for
another 4 clocks (CUDA C++ Programming Guide, "Multiprocessor Level", for capability 7.x). The others are guesses."""
TRUST = 0.25
"""Logarithmic standard deviation of `PRIOR`, beside `NOISE`, that of a point. A constant that the points at hand do not
determine stays where the prior has it."""
NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class Point:
    """One published measurement; the fields are explained above."""

    name: str
    group: str
    source: str
    device: str
    fitted: bool
    seconds: float
    total: float
    bytes_per_item: float
    warps: int
    instructions: int
    items: int
    rounds: float
    loaded_bytes: float
    clocks: dict[str, float]
    launches: int
    launched_from: str
    synchronisations: int
    helper_bytes: float
    threads: int
    registers: int
    spills: bool

    @property
    def demand(self) -> Demand:
        memory = self.bytes_per_item / DEVICES[self.device].bytes_per_clock
        return Demand(
            {"memory": memory, **self.clocks},
            *(self.instructions, self.items, self.rounds, self.loaded_bytes, self.bytes_per_item, self.warps),
        )


@cache
def published() -> tuple[Point, ...]:
    """All points."""
    text = files(__package__).joinpath("published.json").read_text()
    return tuple(Point(**each) for each in json.loads(text)["points"])


def seconds(point: Point, constants: Constants = CONSTANTS, without: str = "") -> float:
    """The time that the model expects. ``without`` names a term to leave out, to see what it is worth."""
    arch = DEVICES[point.device]
    found = terms(point.demand, arch, constants)
    if without:
        found |= {without: 0.0}
    overhead = {**LAUNCH, "eager torch": constants.eager}[point.launched_from]
    return (
        point.total * expected_clocks(found, constants) / (arch.multiprocessors * arch.clock)
        + point.launches * overhead
        + point.synchronisations * constants.synchronisation
        + point.helper_bytes / (arch.bandwidth * arch.copy_share)
    )


def error(point: Point, constants: Constants = CONSTANTS, without: str = "") -> float:
    """The logarithm of expected over published time: positive where the kernel is faster than expected."""
    return log(seconds(point, constants, without) / point.seconds)


def best_case_error(point: Point) -> float:
    """The same for the best case, which knows neither waiting nor launches."""
    arch = DEVICES[point.device]
    clocks = point.demand.clocks
    return log(point.total * max(clocks.values()) / (arch.multiprocessors * arch.clock) / point.seconds)


def rms(errors: Iterable[float]) -> float:
    """The root mean square."""
    squares = [each**2 for each in errors]
    return sqrt(sum(squares) / len(squares))


def fit(points: Sequence[Point]) -> Constants:
    """The constants that fit ``points`` best, beside `PRIOR`: least squares of logarithms."""
    from scipy.optimize import least_squares

    start = asdict(PRIOR)

    def constants(logs: Iterable[float]) -> Constants:
        return Constants(**{name: each * exp(log_) for (name, each), log_ in zip(start.items(), logs, strict=True)})

    def residuals(logs: Any) -> list[float]:
        tried = constants(logs)
        return [error(each, tried) / NOISE for each in points] + [float(each) / TRUST for each in logs]

    return constants(least_squares(residuals, [0.0] * len(start)).x)


@dataclass(frozen=True)
class Calibration:
    """The error on one set of points: of the best case, of the model, and of the model fitted without this group."""

    group: str
    points: int
    best_case: float
    model: float
    left_out: float


def calibrate(points: Sequence[Point] = (), model: Callable[[Point, Constants], float] = error) -> list[Calibration]:
    """A row for each group, one for all points of the fit, and one for the points that no fit has seen.

    A group's points are left out of the fit that predicts them in the last column. ``model`` is for tests.
    """
    points = [each for each in points or published() if not each.spills]
    fitted = [each for each in points if each.fitted]
    unseen = [each for each in points if not each.fitted]
    rows, all_left_out = [], []
    for group in dict.fromkeys(each.group for each in fitted):
        inside = [each for each in fitted if each.group == group]
        without = fit([each for each in fitted if each.group != group])
        errors = [model(each, without) for each in inside]
        all_left_out += errors
        rows.append(_row(group, inside, errors, model))
    rows.append(_row("all of these", fitted, all_left_out, model))
    if unseen:
        rows.append(_row("never fitted", unseen, [model(each, CONSTANTS) for each in unseen], model))
    return rows


def _row(
    group: str, points: Sequence[Point], left_out: Iterable[float], model: Callable[[Point, Constants], float]
) -> Calibration:
    best, expected = rms(map(best_case_error, points)), rms(model(each, CONSTANTS) for each in points)
    return Calibration(group, len(points), best, expected, rms(left_out))
