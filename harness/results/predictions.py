"""The rates that `inspect` expects of the kernels of a case, from the JSON of `bench --profile`.

A profile says which kernels each launch ran, and what their machine code lets expect. A later run of the same source on
the same kind of device is compared with it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ..api.records import Measurement, Record, Run
from .file import ResultsError

DOMINANT = 0.9
"""The share of a launch's time that a kernel takes, for its rate to be that of the launch."""
SHORTEST = 50e-6
"""The model predicts launches that fill the device for long; shorter ones than this many seconds are not compared."""


@dataclass(frozen=True)
class Expectation:
    """A kernel's rate in ``unit`` per second, on ``device``: between ``low`` and ``high`` with a probability of 90 %.

    ``decides`` is the term that takes longest.
    """

    kernel: str
    device: str
    unit: str
    rate: float
    low: float
    high: float
    decides: str

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.rate <= self.high < inf:
            raise ValueError("the expected rate is not a positive number inside its interval")

    def measured(self, measurement: Measurement) -> float | None:
        """The measured rate in the kernel's unit; None if the case does not say how many of them it has."""
        if self.unit == measurement.unit:
            return measurement.items_per_second
        return measurement.flops_per_second / 2 or None if self.unit == "multiply-adds" else None


@dataclass(frozen=True)
class Profiled:
    """A case of a profile: its source, and what is expected of its kernel, or in ``why`` why nothing is."""

    source_hash: str
    expectation: Expectation | None
    why: str = ""


@dataclass(frozen=True)
class Predictions:
    """Those of one profile, by operation, implementation and case; ``gpu`` is its GPU's name."""

    gpu: str
    cases: Mapping[tuple[str, str, str], Profiled]

    def of(self, run: Run, record: Record, measurement: Measurement) -> Expectation | str | None:
        """What is expected of a measurement, or why it cannot be compared; None if the profile does not have it."""
        found = self.cases.get((record.operation, record.implementation, record.case))
        if found is None or measurement.mode != "cold":
            return None
        if (run.environment.get("gpu") or {}).get("name") != self.gpu:
            return f"predicted for another device, {self.gpu}"
        if found.source_hash != record.source_hash:
            return "its source is not that of the profile"
        if found.expectation is None:
            return found.why
        if found.expectation.measured(measurement) is None:
            return f"the kernel is predicted in {found.expectation.unit}, which the case does not count"
        if measurement.median < SHORTEST:
            return f"shorter than {SHORTEST * 1e6:g} µs"
        return found.expectation


def read_predictions(path: Path) -> Predictions:
    """The JSON that `bench --profile` writes. Raises ResultsError."""
    try:
        whole = json.loads(path.read_text())
        device = whole["environment"]["gpu"]
        if device is None:
            raise ResultsError(f"--predictions {path}: it is of a CPU, and `inspect` predicts kernels on GPUs")
        if not isinstance(gpu := device["name"], str):
            raise TypeError
        cases = {
            (each["operation"], each["implementation"], each["case"]): _profiled(each) for each in whole["records"]
        }
    except ResultsError:
        raise
    except OSError as error:
        raise ResultsError(f"--predictions {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        words = f" (there is no {error})" if isinstance(error, KeyError) else ""
        words = " (a prediction is incomplete)" if isinstance(error, ValidationError) else words
        raise ResultsError(f"--predictions {path}: this is no JSON that `bench --profile` wrote{words}") from error
    return Predictions(gpu, cases)


_EXPECTATION = TypeAdapter(Expectation | None)


def _profiled(record: Mapping[str, Any]) -> Profiled:
    """The expectation of the kernel that takes nearly all of the launch's time."""
    times = [(each["seconds"] or 0.0) * each["launches"] for each in record["kernels"]]
    source = str(record["source_hash"])
    if not sum(times):
        return Profiled(source, None, record["message"] or "no kernel is known")
    longest = max(range(len(times)), key=times.__getitem__)
    if times[longest] < DOMINANT * sum(times):
        return Profiled(source, None, "its launch runs several kernels")
    expected = _EXPECTATION.validate_python(record["kernels"][longest]["expected"])
    return Profiled(source, expected, "" if expected else "`inspect` does not predict its kernel")
