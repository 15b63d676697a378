"""The results file: one strict JSON file per run, whole at every moment, and how it is read back and gone on with.

NaN and infinities are written as strings and read back as floats. A run that did not end says ``incomplete``.
"""

import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ..api.operations import Status
from ..api.records import BenchOptions, Record, Run
from .environment import identity

SCHEMA = 2
"""The version of the results file that this code reads and writes."""

RETRIED = (Status.ERROR, Status.TIMEOUT)
"""What a resumed run tries again: it may be the machine's doing. Every other verdict is a result, and stands."""

_RUN = TypeAdapter(Run)
_RECORD = TypeAdapter(Record)


class ResultsError(ValueError):
    """A results file that cannot be written, read or used. The message names the file and the reason."""


def run_to_json(run: Run) -> str:
    """``run`` as strict JSON text, each record on a line of its own so that two versions of a file can be compared."""
    return _joined(run, [_line(record) for record in run.records])


def _line(record: Record) -> str:
    return json.dumps(json.loads(_RECORD.dump_json(record)))


def _joined(run: Run, lines: Sequence[str]) -> str:
    parts = []
    for name, value in json.loads(_RUN.dump_json(dataclasses.replace(run, records=()))).items():
        text = "[\n" + ",\n".join(lines) + "\n]" if name == "records" and lines else json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def read_run(path: Path) -> Run:
    """The run in a results file, brought up to the newest schema.

    Raises ResultsError if it is missing, damaged (the message says how many whole records it still holds), or of a
    newer boltzbench.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    return _parsed(path, text)


def read_runs(paths: Iterable[Path]) -> tuple[list[tuple[Path, Run]], list[ResultsError]]:
    """The runs of all files that can be read, and what is wrong with the others."""
    runs, errors = [], []
    for path in paths:
        try:
            runs.append((path, read_run(path)))
        except ResultsError as error:
            errors.append(error)
    return runs, errors


def _parsed(path: Path, text: bytes) -> Run:
    try:
        content = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        whole = _whole_records(text)
        found = f"{whole} whole record{'s' * (whole != 1)}" if whole else "no whole record"
        raise ResultsError(f"{path} is damaged or not a results file: {error}; it holds {found}") from error
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is not int or schema < 1:
        raise ResultsError(f'{path} is not a results file: it states no "schema" version')
    if schema > SCHEMA:
        raise ResultsError(
            f"{path} has schema {schema}, written by a newer boltzbench; this one reads {SCHEMA}: upgrade it"
        )
    if schema < SCHEMA:
        raise ResultsError(
            f"{path} has schema {schema}, from before the first release; this boltzbench reads {SCHEMA}: run it again"
        )
    try:
        return _RUN.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ResultsError(f"{path} is not a valid results file: {place}: {first['msg']}") from error


def _whole_records(text: bytes) -> int:
    count = 0
    for line in text.splitlines():
        try:
            value = from_json(line.rstrip(b","), allow_inf_nan=False)
        except ValueError:
            continue
        count += isinstance(value, dict) and {"operation", "implementation", "case", "status"} <= value.keys()
    return count


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a reader sees either the old file or the new one whole, even after a power cut.

    What is not a regular file (``/dev/null``, a pipe) is written to directly: it must not be replaced.
    Raises ResultsError.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")
        else:
            _replace(target, text).close()
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from error


def _replace(target: Path, text: str) -> IO[str]:
    """Put a new file in the place of ``target``; returned open and, from before it gets its name, locked."""
    temporary = _temporary(target)
    file = temporary.open("x", encoding="utf-8")
    try:
        _lock(file)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        file.close()
        temporary.unlink(missing_ok=True)
        raise
    return file


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _lock(file: IO[Any]) -> None:
    """Lock ``file`` until it is closed or the process ends. Raises BlockingIOError if another has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):  # file systems that have no locks
            raise


def require_writable(path: Path) -> None:
    """Raise ResultsError unless the file ``path`` could be written now. Leaves nothing behind."""
    if path.is_dir():
        raise ResultsError(f"cannot write {path}: it is a folder")
    if path.exists() and not path.is_file():
        return
    probe = _temporary(path.resolve())
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from error


def record_key(record: Record) -> str:
    """16 hexadecimal digits for what was asked in a record and of which source, whatever was found."""
    asked = (record.operation, record.implementation, record.case, record.purpose)
    data = (sorted(record.sizes.items()), record.dtype, record.seed)
    return hashlib.sha256(json.dumps([asked, data, record.source_hash]).encode()).hexdigest()[:16]


class ResultsFile:
    """The results file of a run in progress: on disk, and whole, after each record.

    Made in ``folder`` (created if missing) under a name that no other run has. Raises ResultsError at once if it
    cannot be written there. Until `finish` or `close` no other process can go on with it.

    ``kept`` are the keys of the records that a resumed run need not make again. ``dropped`` counts, by the reason in
    words, those that it must.
    """

    def __init__(self, folder: Path, environment: Mapping[str, Any], problems: tuple[str, ...] = ()) -> None:
        device = str(environment.get("device", "")).replace(":", "")
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = folder / f"{started}-{device}-{secrets.token_hex(4)}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("x")  # exclusive: of two runs that hit on one name, one stops here
        except OSError as error:
            raise ResultsError(f"cannot write results to the folder {folder}: {error.strerror}") from error
        self._begin(path, file, Run(SCHEMA, "incomplete", environment, (), problems), Counter())

    @classmethod
    def resume(
        cls,
        path: Path,
        environment: Mapping[str, Any],
        sources: Mapping[tuple[str, str], str],
        *,
        modes: Collection[str] = (),
        problems: tuple[str, ...] = (),
    ) -> "ResultsFile":
        """Go on with an interrupted run in the same file.

        ``sources`` has the source hash that each (operation, implementation) has now. A record stands if its own is
        the same, it did not end in one of `RETRIED`, and it has been timed in all of ``modes``, or says why not. One
        that ``sources`` does not know stands too.

        Raises ResultsError if the file cannot be read or written, the run is complete, another process is writing
        it, or its environment is another: every field of `environment.IDENTITY` must be the same.
        """
        file = _open_alone(path)
        try:
            run = _parsed(path, file.read())
            if run.status == "complete":
                raise ResultsError(f"cannot resume {path}: the run is complete")
            _require_same(path, run.environment, environment)
        except BaseException:
            file.close()
            raise
        dropped: Counter[str] = Counter()
        kept = []
        for record in run.records:
            source = sources.get((record.operation, record.implementation))
            if source is None:  # not part of what goes on: its plugin is not here now, and cannot do it anew
                kept.append(record)
            elif record.source_hash != source:
                dropped["the source has changed"] += 1
            elif record.status in RETRIED:
                dropped["it ended in error or timeout"] += 1
            elif _lacks_a_mode(record, modes):
                dropped["it was timed in other modes"] += 1
            else:
                kept.append(record)
        # The sources of what is kept are the same now as then: this environment is that of every record.
        resumed = cls.__new__(cls)
        run = dataclasses.replace(run, environment=environment, records=tuple(kept), problems=problems)
        resumed._begin(path, file, run, dropped)
        for left in path.resolve().parent.glob(f".{path.resolve().name}.*.tmp"):  # by a process that was killed
            left.unlink(missing_ok=True)
        return resumed

    def _begin(self, path: Path, file: IO[Any], run: Run, dropped: Counter[str]) -> None:
        self.path, self.run, self.dropped = path, run, dropped
        self.kept = frozenset(map(record_key, run.records))
        self._file = file
        self._lines = [_line(record) for record in run.records]
        self._save()

    def add(self, record: Record) -> None:
        """Append ``record`` and write the file anew."""
        self._lines.append(_line(record))
        self._change(records=(*self.run.records, record))

    def update(
        self,
        *,
        ceilings: Mapping[str, float] | None = None,
        overheads: Mapping[str, float] | None = None,
        seconds: Mapping[str, float] | None = None,
        command: BenchOptions | None = None,
        problems: tuple[str, ...] | None = None,
    ) -> None:
        """Put values beside, or in the place of, those that the run has under the same names; the last two replace."""
        self._change(
            ceilings={**self.run.ceilings, **(ceilings or {})},
            overheads={**self.run.overheads, **(overheads or {})},
            seconds={**self.run.seconds, **(seconds or {})},
            command=command or self.run.command,
            problems=self.run.problems if problems is None else problems,
        )

    def finish(self) -> None:
        """Say that the run has ended as planned."""
        self._change(status="complete")
        self.close()

    def close(self) -> None:
        """Leave the file as it is, for another process to go on with. The end of the process does the same."""
        self._file.close()

    def _change(self, **fields: Any) -> None:
        self.run = dataclasses.replace(self.run, **fields)
        self._save()

    def _save(self) -> None:
        try:
            file = _replace(self.path.resolve(), _joined(self.run, self._lines))
        except OSError as error:
            raise ResultsError(f"cannot write {self.path}: {error.strerror}") from error
        self._file.close()
        self._file = file


def _open_alone(path: Path) -> IO[bytes]:
    """The file open and locked, so that nobody else writes it. Raises ResultsError."""
    while True:
        try:
            file = path.open("r+b")
        except OSError as error:
            raise ResultsError(f"cannot resume {path}: {error.strerror}") from error
        try:
            _lock(file)
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except BlockingIOError as error:
            file.close()
            raise ResultsError(f"cannot resume {path}: another process is writing it now") from error
        except OSError as error:
            file.close()
            raise ResultsError(f"cannot resume {path}: {error.strerror}") from error
        file.close()  # its writer had put a new file in its place: look again


def _require_same(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    was, is_now = identity(then), identity(now)
    differing = [f"{field} was {was[field]}, is {is_now[field]}" for field in was if was[field] != is_now[field]]
    if differing:
        raise ResultsError(f"cannot resume {path}: another environment: {'; '.join(differing)}")


def _lacks_a_mode(record: Record, modes: Collection[str]) -> bool:
    timed = record.status is Status.PASSED and record.purpose in ("bench", "real") and not record.untimed
    return timed and not set(modes) <= {each.mode for each in record.measurements}
