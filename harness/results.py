"""The results file: one strict JSON file per run, whole at every moment, and how it is read back.

NaN and infinities are written as strings and read back as floats. A run that did not end says ``incomplete``.
"""

import dataclasses
import json
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from .types import Record, Run

SCHEMA = 1
"""The version of the results file that this code writes, and the newest that it reads."""

_RUN = TypeAdapter(Run)


class ResultsError(ValueError):
    """A results file that cannot be written or read. The message names the file and the reason."""


def run_to_json(run: Run) -> str:
    """``run`` as strict JSON text, each record on a line of its own so that two versions of a file can be compared."""
    parts = []
    for name, value in json.loads(_RUN.dump_json(run)).items():
        if name == "records" and value:
            text = "[\n" + ",\n".join(json.dumps(record) for record in value) + "\n]"
        else:
            text = json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_run(path: Path) -> Run:
    """The run in a results file. Raises ResultsError if it is missing, damaged, or of a newer boltzbench."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    try:
        content = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise ResultsError(f"{path} is damaged or not a results file: {error}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is not int or schema < 1:
        raise ResultsError(f'{path} is not a results file: it states no "schema" version')
    if schema > SCHEMA:
        raise ResultsError(
            f"{path} has schema {schema}, written by a newer boltzbench; this one reads up to {SCHEMA}: upgrade it"
        )
    try:
        return _RUN.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ResultsError(f"{path} is not a valid results file: {place}: {first['msg']}") from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees either the old file or the new one whole, even after a power cut.

    What is not a regular file (``/dev/null``, a pipe) is written to directly: it must not be replaced.
    Raises ResultsError.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
            return
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from error


def require_writable(path: Path) -> None:
    """Raise ResultsError unless the file ``path`` could be written now. Leaves nothing behind."""
    if path.is_dir():
        raise ResultsError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():
        return
    probe = path.resolve().with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from error


class ResultsFile:
    """The results file of a run in progress: on disk, and whole, after each record.

    Made in ``folder`` (created if missing) under a name that no other run has. Raises ResultsError at once if it
    cannot be written there.
    """

    def __init__(self, folder: Path, environment: Mapping[str, Any], problems: tuple[str, ...] = ()) -> None:
        self.run = Run(SCHEMA, "incomplete", environment, (), problems)
        device = str(environment.get("device", "")).replace(":", "")
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.path = folder / f"{started}-{device}-{secrets.token_hex(4)}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.touch(exist_ok=False)  # exclusive: of two runs that hit on one name, one stops here
        except OSError as error:
            raise ResultsError(f"cannot write results to the folder {folder}: {error.strerror}") from error
        self._save()

    def add(self, record: Record) -> None:
        """Append ``record`` and write the file anew."""
        self.run = dataclasses.replace(self.run, records=(*self.run.records, record))
        self._save()

    def finish(self) -> None:
        """Say that the run has ended as planned."""
        self.run = dataclasses.replace(self.run, status="complete")
        self._save()

    def _save(self) -> None:
        write_text(self.path, run_to_json(self.run))
