"""`save`: results of callables as a results file, which `report`, `compare` and the others read."""

from collections.abc import Iterator
from dataclasses import replace
from os import PathLike
from pathlib import Path

import torch

from ..api.records import Record, Run
from ..results.environment import describe
from ..results.file import SCHEMA, run_to_json, write_text
from ..results.source_hash import source_hash
from .call import BACKEND
from .compare import Compared
from .measure import limits_of
from .measured import Measured
from .sweep import Sweep

PLUGIN = "measured by hand"


def save(path: str | PathLike[str], *results: Measured | Compared | Sweep) -> None:
    """Write what `measure`, `compare` and `sweep` returned to a results file, as ``boltzbench report`` reads it.

    A results file holds no figure of what was not checked: raises ValueError for a result without a reference, for
    results of two devices, for two results of one name and case, or for none. Raises ResultsError if the file cannot be
    written.
    """
    found = [each for result in results for each in _all(result)]
    if not found:
        raise ValueError("nothing to save: give results of measure, compare or sweep")
    for each in found:
        if each.agreement.passed and not each.checked:
            raise ValueError(
                f"{each.name} is unchecked, and a results file holds checked figures only: give a reference"
            )
    devices = sorted({each.device for each in found if each.device})
    if len(devices) > 1:
        raise ValueError(f"results of {' and '.join(devices)}: a results file is that of one device")
    records = [_record(each) for each in found]
    keys = [(each.operation, each.implementation, each.case) for each in records]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"two results are named {' '.join(twice[0])}: give the callables other names, as compare does")
    device = torch.device(devices[0] if devices else "cpu")
    rates = limits_of(device) if any(each.share is not None for each in found) else {}
    run = Run(SCHEMA, "complete", describe(device), tuple(records), ceilings=rates)
    write_text(Path(path), run_to_json(run))


def _all(result: Measured | Compared | Sweep) -> Iterator[Measured]:
    if isinstance(result, Measured):
        yield result
    elif isinstance(result, Compared):
        yield from result.results.values()
    elif isinstance(result, Sweep):
        yield from result.results
    else:
        raise TypeError(f"save takes results of measure, compare and sweep: got {result!r}")


def _record(each: Measured) -> Record:
    record = Record(
        each.operation, each.name, BACKEND, PLUGIN, each.case, "bench", each.agreement.status,
        each.agreement.message, each.agreement.error, each.agreement.bound,
        sizes=each.sizes, dtype=each.dtype, source_hash=source_hash(each.fn) if each.fn else "", untimed=each.untimed,
        device=each.device,
    )  # fmt: skip
    return replace(record, measurements=(each.measurement,)) if each.measurement else record
