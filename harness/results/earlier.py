"""What earlier runs have timed on the same kind of device, so that `run` need not time it again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api.operations import Status
from ..api.records import Record
from .environment import device_name, identity
from .file import read_runs, record_key

OF_ONE_CARD_OR_CHECKOUT = ("device", "gpu uuid", "harness")
"""The fields of the identity on which it does not depend what is installed."""


def timed_before(folder: Path, environment: Mapping[str, Any]) -> dict[str, Path]:
    """For each step that a run below ``folder`` timed, on a device of the same name: its `record_key`, and the file.

    A step that passed and is not timed on this device counts too, and one that was unavailable to the same software.
    The key holds the hash of the source, so a step whose source has changed is missing. Files that are no readable
    runs are ignored.
    """
    found: dict[str, Path] = {}
    runs, _ = read_runs(sorted(folder.rglob("*.json")))
    for path, run in runs:
        if device_name(run.environment) == device_name(environment):
            same_software = _software(run.environment) == _software(environment)
            for record in run.records:
                if _has_result(record, same_software):
                    found[record_key(record)] = path
    return found


def _has_result(record: Record, same_software: bool) -> bool:
    if record.status is Status.UNAVAILABLE:
        return same_software
    return record.status is Status.PASSED and bool(record.untimed or record.measurements)


def _software(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity(environment).items() if name not in OF_ONE_CARD_OR_CHECKOUT}
