"""Runs with given times, as `bench` writes them, for the tests of what reads runs. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Control, Measurement, Record, Run
from boltzbench.harness.results.file import SCHEMA, run_to_json

CPU = {"device": "cpu", "cpu": "EPYC", "cores": 4, "threads": 4}
FIRST = datetime(2026, 11, 1, 4, 5, tzinfo=UTC)


def timing(median: float, generator: np.random.Generator, noise: float = 0.004) -> Measurement:
    """Forty samples whose median has a relative standard error of ``noise``."""
    samples = median * np.exp(noise * np.sqrt(40) / 1.2533 * generator.standard_normal(40))
    p10, middle, p90 = (float(each) for each in np.percentile(samples, (10, 50, 90)))
    return Measurement("EPYC", "cold", tuple(samples.tolist()), middle, p10, p90, 1 / middle, "rows", 8 / middle, 0.0)


def timed_run(
    times: Mapping[str, float | str],
    day: int,
    generator: np.random.Generator,
    *,
    ratio: float = 1.002,
    **environment: Any,
) -> Run:
    """A run on day ``day`` of cases such as ``softmax triton n=3``, each with a median in seconds, or with an error."""
    records = []
    for name, median in times.items():
        operation, implementation, case = name.split(" ", 2)
        failed = isinstance(median, str)
        records.append(
            Record(
                *(operation, implementation, implementation, "p (d 1)", case, "bench"),
                Status.ERROR if failed else Status.PASSED,
                str(median) if failed else "",
                measurements=() if isinstance(median, str) else (timing(median, generator),),
            )
        )
    control = Control("softmax", "torch", "n=3", "cold", (1.0,), ratio, 0.001)
    started = f"{FIRST + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}"
    facts = {**CPU, "commit": f"{day:010x}ffff", "dirty": False, **environment}
    return Run(SCHEMA, "complete", facts, tuple(records), controls=(control,), started=started)


def write(folder: Path, run: Run, name: str = "") -> Path:
    """Write a run to ``folder``, named by its start unless a name is given."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{run.started.replace(':', '').replace('-', '')}-{run.environment['cpu']}.json")
    path.write_text(run_to_json(run))
    return path
