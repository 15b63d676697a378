"""What each newer schema of the results file changed, as functions that bring a file of the one before up to it."""

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

SCHEMA = 2
"""The version of the results file that this code writes, and the newest that it reads."""


def migrated(content: dict[str, Any]) -> dict[str, Any]:
    """The parsed JSON object of a results file of any schema up to `SCHEMA`, as the newest one has it."""
    while content["schema"] < SCHEMA:
        content = MIGRATIONS[content["schema"]](content) | {"schema": content["schema"] + 1}
    return content


def _from_1(content: dict[str, Any]) -> dict[str, Any]:
    """A record could have one measurement, of which neither the noise nor the use of the clock were written down.

    Then ``cold`` was timed between device events behind a flush, and ``hot`` by the host's clock around a launch.
    """
    records = []
    for record in content.get("records", ()):
        rest = {name: value for name, value in record.items() if name != "measurement"}
        measurement = record.get("measurement")
        if measurement is not None:
            method = "queue" if measurement["mode"] == "cold" else "host"
            measurement = {**measurement, "noise": _noise([float(sample) for sample in measurement["samples"]])}
            rest["measurements"] = [{**measurement, "method": method}]
        records.append(rest)
    return {**content, "records": records}


def _noise(samples: list[float]) -> float:
    # As `timing.median_noise` has it, which is not called: what it will become does not change what was measured.
    if len(samples) < 2:
        return 0.0
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    error = 1.2533 / 1.349 * (high - low) / math.sqrt(len(samples))
    return error / median if median else 0.0


MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _from_1}
"""By the schema that each begins from."""
