"""The results file: one strict JSON file for each run, readable at every moment. An interrupted run can resume.

NaN and infinities are written as strings and read back as floats. An interrupted run has the status ``incomplete``.
Records come last, so that a run in progress adds one at the end of its file. If its process is killed meanwhile, part
of that record stays there, and readers leave it out.
"""

import dataclasses
import errno
import fcntl
import hashlib
import io
import itertools
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from ..api.operations import Status
from ..api.records import BenchOptions, Control, LeftOut, Record, Run, Shard, Standing, UsedDevice
from .environment import identity
from .parts import OWN, by_device

SCHEMA = 2
"""The version of the results file that this code reads and writes."""

RETRIED = (Status.ERROR, Status.TIMEOUT, Status.OUT_OF_MEMORY)
"""The statuses that a resumed run tries again, since the machine may have caused them. All others are results."""

RECORDS, END = b'"records": [\n', b"]\n}\n"
"""The line before the records of a file, and the lines after them."""

Taken = TypeVar("Taken")

RUN = TypeAdapter(Run)
_RECORD = TypeAdapter(Record)


class ResultsError(ValueError):
    """A results file that cannot be written, read or used. The message names the file and the reason."""


class OtherJSON(ResultsError):
    """A JSON file that is none of results: it has neither a "schema" nor "records"."""


def run_to_json(run: Run) -> str:
    """``run`` as strict JSON text. Each record has its own line, so that `diff` can compare two files."""
    return _joined(run, [_line(record) for record in run.records])


def _line(record: Record) -> str:
    return json.dumps(json.loads(_RECORD.dump_json(record)))


def _joined(run: Run, lines: Sequence[str]) -> str:
    return "".join(run_text(run, lines))


def run_text(run: Run, lines: Iterable[str]) -> Iterator[str]:
    """The text of a results file in pieces: ``run`` without its records, and ``lines`` of `record_lines` instead."""
    fields = json.loads(RUN.dump_json(dataclasses.replace(run, records=())))
    head = "".join(f"{json.dumps(name)}: {json.dumps(value)},\n" for name, value in fields.items() if name != "records")
    yield "{\n" + head + RECORDS.decode()
    separator = ""
    for line in lines:
        yield separator + line
        separator = ",\n"
    yield "\n" * bool(separator) + END.decode()


def record_lines(path: Path) -> Iterator[str]:
    """The text of each record in a results file, in order and one at a time.

    They are not validated, which `read_records` does; what is left of an unfinished record may come last.
    """
    with path.open("rb") as file:
        if RECORDS not in file:  # laid out by another program
            yield from map(_line, read_run(path).records)
            return
        for line in file:
            if line.startswith(b"{"):
                text = line.decode(errors="replace").rstrip(",\n")
                if not text.endswith("}"):  # its run was killed when it began the next record
                    with suppress(ValueError):
                        text = text[: json.JSONDecoder().raw_decode(text)[1]]
                yield text


def read_run(path: Path) -> Run:
    """The run in a results file.

    Raises ResultsError if the file is missing, has another schema, or is damaged; then the message gives the number of
    intact records.
    """
    run, records = read_records(path, lambda record: record)
    return dataclasses.replace(run, records=tuple(records))


def read_records(path: Path, take: Callable[[Record], Taken]) -> tuple[Run, list[Taken]]:
    """The run in a results file without its records, and what ``take`` makes of each of them.

    Records are read one at a time, so that a large file needs no more memory than the results. Raises as `read_run`.
    """
    try:
        with path.open("rb") as file:
            return _parsed(path, file if file.seekable() else io.BytesIO(file.read()), take)
    except IsADirectoryError as error:
        raise ResultsError(f"cannot read {path}: it is a folder; name a results file in it") from error
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error


def read_progress(path: Path) -> tuple[Run, int]:
    """The run in a file that `ResultsFile` or `merge` wrote, without its records, and their number. None is validated.

    Raises ResultsError.
    """
    try:
        with path.open("rb") as file:
            head = b"".join(itertools.takewhile(lambda line: line != RECORDS, file))
            count = sum(line.startswith(b"{") for line in file)
        return RUN.validate_python({**from_json(head.rstrip(b",\n") + b"}"), "records": ()}), count
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    except (TypeError, ValueError) as error:
        raise ResultsError(f"{path} is not a results file of bench") from error


def read_runs(paths: Iterable[Path]) -> tuple[list[tuple[Path, Run]], list[ResultsError]]:
    """The runs in all readable files, and the errors of the others. A merged file of several kinds of device has a run
    for each of them."""
    runs, errors = [], []
    for path in paths:
        try:
            run = read_run(path)
            runs += [(path, dataclasses.replace(each, records=tuple(own))) for each, own in by_device(run, run.records)]
        except ResultsError as error:
            errors.append(error)
    return runs, errors


def _parsed(path: Path, file: IO[bytes], take: Callable[[Record], Taken]) -> tuple[Run, list[Taken]]:
    try:
        content, taken = _content_by_line(file, take)
    except ValueError:  # cut, damaged, or laid out by another program, or a record is invalid
        file.seek(0)
        try:
            content, taken = _content_until_cut(file, take)
        except ValueError:
            file.seek(0)
            content, taken = _whole_content(path, file.read()), None
    schema = content.get("schema") if isinstance(content, dict) else None
    if type(schema) is not int or schema < 1:
        kind = ResultsError if isinstance(content, dict) and {"schema", "records"} & content.keys() else OtherJSON
        raise kind(f'{path} is not a results file: it states no "schema" version')
    if schema > SCHEMA:
        raise ResultsError(
            f"{path} has schema {schema}, written by a newer boltzbench; this one reads {SCHEMA}: upgrade boltzbench"
        )
    if schema < SCHEMA:
        raise ResultsError(
            f"{path} has schema {schema}, from before the first release; this boltzbench reads {SCHEMA}: repeat the run"
        )
    try:
        run = RUN.validate_python(content if taken is None else {**content, "records": ()})
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ResultsError(f"{path} is not a valid results file: {place}: {first['msg']}") from error
    if taken is None:
        taken = [take(record) for record in run.records]
    for name in OWN if run.parts else ():
        stated, found = sum(getattr(part, name) for part in run.parts), len(getattr(run, name))
        found = len(taken) if name == "records" else found
        if stated != found:
            raise ResultsError(f"{path} is not a valid results file: its parts have {stated} {name}, the whole {found}")
    return dataclasses.replace(run, records=()), taken


def _content_by_line(file: IO[bytes], take: Callable[[Record], Taken]) -> tuple[Any, list[Taken]]:
    """The content of a file that `_joined` wrote, with 0 in the place of each record, and what ``take`` makes of these.

    Raises ValueError if the file is not like that.
    """
    rest: list[bytes] = []
    taken: list[Taken] = []
    inside = False
    for line in file:
        if inside and line.startswith(b"{"):
            record = line.rstrip(b",\n")
            taken.append(take(_RECORD.validate_python(from_json(record, allow_inf_nan=False))))
            line = b"0" + line[len(record) :]
        elif line == RECORDS or line.startswith(b"]"):
            inside = line == RECORDS
        rest.append(line)
    content = from_json(b"".join(rest), allow_inf_nan=False)
    if isinstance(content, dict) and content.get("records", []) != [0] * len(taken):
        raise ValueError("records do not have their own lines")
    return content, taken


def _content_until_cut(file: IO[bytes], take: Callable[[Record], Taken]) -> tuple[Any, list[Taken]]:
    """The same of a run in progress, without the record at the end of the file that is not whole.

    Raises ValueError if the file is not like that.
    """
    head = b"".join(itertools.takewhile(lambda line: line != RECORDS, file))
    content = from_json(head.rstrip(b",\n") + b"}", allow_inf_nan=False)
    if not isinstance(content, dict) or content.get("status") != "incomplete":
        raise ValueError("no run in progress")
    taken: list[Taken] = []
    for line in file:
        try:
            record, _ = json.JSONDecoder().raw_decode(line.decode())  # what is left of `END` may follow
            taken.append(take(_RECORD.validate_python(record)))
        except ValueError:
            break
    if any(line.strip(b"]}\n") for line in file):
        raise ValueError("the damage is not at the end")
    return content, taken


def _whole_content(path: Path, text: bytes) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        whole = _whole_records(text)
        found = f"{whole} whole record{'s' * (whole != 1)}" if whole else "no whole record"
        raise ResultsError(f"{path} is damaged or not a results file: {error}; it holds {found}") from error


def _whole_records(text: bytes) -> int:
    count = 0
    for line in text.splitlines():
        try:
            value = from_json(line.rstrip(b","), allow_inf_nan=False)
        except ValueError:
            continue
        count += isinstance(value, dict) and {"operation", "implementation", "case", "status"} <= value.keys()
    return count


def write_text(path: Path, text: str | Iterable[str]) -> None:
    """Replace the file at ``path`` atomically: a reader sees the old text or the new one, even after a power failure.

    ``text`` may come in pieces. A path that is not a regular file (``/dev/null``, a pipe) is written directly. Raises
    ResultsError.
    """
    target = path.resolve()
    try:
        if target.exists() and not target.is_file():
            with target.open("w", encoding="utf-8") as file:
                file.writelines([text] if isinstance(text, str) else text)
        else:
            _replace(target, text).close()
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror}") from error


def _replace(target: Path, text: str | Iterable[str]) -> IO[str]:
    """Replace ``target`` by a new file, which is locked before it gets its name, and return it open."""
    temporary = _temporary(target)
    file = temporary.open("x", encoding="utf-8")
    try:
        _lock(file)
        file.writelines([text] if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        with suppress(OSError):  # the disk is full for what is left to write, too
            file.close()
        raise
    return file


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _lock(file: IO[Any]) -> None:
    """Lock ``file`` until it is closed or the process ends. Raises BlockingIOError if it is locked already."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):  # the file system has no locks
            raise


def require_writable(path: Path) -> None:
    """Raise ResultsError if the file ``path`` cannot be written now. Leaves nothing behind."""
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
    """16 hexadecimal digits that identify the step of a record (names, data, seed, source) and not its result."""
    names = (record.operation, record.implementation, record.case, record.purpose)
    data = (sorted(record.sizes.items()), record.dtype, record.seed)
    return hashlib.sha256(json.dumps([names, data, record.source_hash]).encode()).hexdigest()[:16]


class ResultsFile:
    """The results file of a run in progress: complete and valid on disk after each record, which adds only itself.

    The file gets a unique name in ``folder``, which is created if missing. Raises ResultsError at once if it cannot be
    written there. No other process can resume the run until `finish` or `close`.

    ``kept`` holds the keys of the records that a resumed run keeps. ``dropped`` counts the records to repeat, by the
    reason in words.
    """

    def __init__(self, folder: Path, environment: Mapping[str, Any], problems: tuple[str, ...] = ()) -> None:
        device = str(environment.get("device", "")).replace(":", "").replace(",", "-")
        now = datetime.now(UTC)
        path = folder / f"{now:%Y%m%dT%H%M%SZ}-{device}-{secrets.token_hex(4)}.json"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("x")  # exclusive: of two runs with the same name, one fails here
        except OSError as error:
            reason = "it is a file" if folder.is_file() else error.strerror
            raise ResultsError(f"cannot write results to the folder {folder}: {reason}") from error
        run = Run(SCHEMA, "incomplete", environment, (), problems, started=f"{now:%Y-%m-%dT%H:%M:%SZ}")
        self._begin(path, file, run, Counter())

    @classmethod
    def resume(
        cls,
        path: Path,
        environment: Mapping[str, Any],
        sources: Mapping[tuple[str, str], str],
        *,
        modes: Collection[str] = (),
        problems: tuple[str, ...] = (),
        devices: tuple[UsedDevice, ...] = (),
    ) -> "ResultsFile":
        """Resume an interrupted run in the same file, on the same ``devices`` if they are several.

        ``sources`` maps each (operation, implementation) to its present source hash. A record is kept if its source is
        unchanged, its status is not in `RETRIED`, and it has times in all of ``modes`` or states why not. A record of
        an implementation that ``sources`` lacks is kept too.

        Raises ResultsError if the file cannot be read or written, the run is complete, another process is writing the
        file, or a field of `environment.IDENTITY` or a device differs.
        """
        file = _open_alone(path)
        try:
            run, records = _parsed(path, file, lambda record: record)
            if run.status == "complete":
                raise ResultsError(f"cannot resume {path}: the run is complete")
            if run.parts:
                raise ResultsError(f"cannot resume {path}: it is merged; resume its parts, then merge again")
            _require_same(path, run, environment, devices)
        except BaseException:
            file.close()
            raise
        dropped: Counter[str] = Counter()
        kept = []
        for record in records:
            source = sources.get((record.operation, record.implementation))
            if source is None:  # its plugin is not installed now, so the case cannot be repeated
                kept.append(record)
            elif record.source_hash != source:
                dropped["the source has changed"] += 1
            elif record.status in RETRIED:
                dropped["ended in error or timeout"] += 1
            elif _lacks_a_mode(record, modes):
                dropped["timed in other modes"] += 1
            else:
                kept.append(record)
        # All kept records have the present source, so the present environment holds for them too.
        resumed = cls.__new__(cls)
        run = dataclasses.replace(run, environment=environment, records=tuple(kept), problems=problems)
        resumed._begin(path, file, run, dropped)
        for left in path.resolve().parent.glob(f".{path.resolve().name}.*.tmp"):  # from a process that was killed
            left.unlink(missing_ok=True)
        return resumed

    def _begin(self, path: Path, file: IO[Any], run: Run, dropped: Counter[str]) -> None:
        self.path, self.dropped = path, dropped
        self.kept = frozenset(map(record_key, run.records))
        self._file, self._run, self._size = file, run, 0
        self._records = list(run.records)
        self._lines = [_line(record) for record in run.records]
        self._save()

    @property
    def run(self) -> Run:
        """The run so far."""
        return dataclasses.replace(self._run, records=tuple(self._records))

    def add(self, record: Record) -> None:
        """Append ``record`` to the file."""
        line = _line(record)
        before = b"\n" if self._lines else b""
        added = before.replace(b"\n", b",\n") + line.encode() + b"\n"
        place = self._size - len(END) - len(before)
        self._records.append(record)  # before it is written, so that Ctrl-C meanwhile does not lose it
        self._lines.append(line)
        try:
            _write_at(self._file.fileno(), place, added + END)
        except OSError as error:
            self._records.pop()
            self._lines.pop()
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._size)
                _write_at(self._file.fileno(), place, before + END)
            raise ResultsError(f"cannot write {self.path}: {error.strerror}") from error
        self._size = place + len(added) + len(END)

    def add_control(self, control: Control) -> None:
        """Append a control."""
        self._change(controls=(*self._run.controls, control))

    def update(
        self,
        *,
        ceilings: Mapping[str, float] | None = None,
        overheads: Mapping[str, float] | None = None,
        seconds: Mapping[str, float] | None = None,
        command: BenchOptions | None = None,
        problems: tuple[str, ...] | None = None,
        left_out: tuple[LeftOut, ...] | None = None,
        standings: tuple[Standing, ...] | None = None,
        devices: tuple[UsedDevice, ...] | None = None,
        shard: Shard | None = None,
    ) -> None:
        """Merge the mappings into those of the run; replace the rest. None changes nothing."""
        self._change(
            ceilings={**self._run.ceilings, **(ceilings or {})},
            overheads={**self._run.overheads, **(overheads or {})},
            seconds={**self._run.seconds, **(seconds or {})},
            command=command or self._run.command,
            problems=self._run.problems if problems is None else problems,
            left_out=self._run.left_out if left_out is None else left_out,
            standings=self._run.standings if standings is None else standings,
            devices=self._run.devices if devices is None else devices,
            shard=shard or self._run.shard,
        )

    def arrange(self, place: Callable[[Record], int]) -> None:
        """Put the records into the order of their places. The file has it when it is saved next."""
        order = sorted(range(len(self._records)), key=lambda i: place(self._records[i]))
        self._records = [self._records[i] for i in order]
        self._lines = [self._lines[i] for i in order]

    def finish(self) -> None:
        """Mark the run as complete and close the file."""
        self._change(status="complete")
        self.close()

    def close(self) -> None:
        """Release the file, so that another process can resume the run. The end of the process does the same."""
        self._file.close()

    def _change(self, **fields: Any) -> None:
        self._run = dataclasses.replace(self._run, **fields)
        self._save()

    def _save(self) -> None:
        text = _joined(self._run, self._lines)
        try:
            file = _replace(self.path.resolve(), text)
        except OSError as error:
            raise ResultsError(f"cannot write {self.path}: {error.strerror}") from error
        self._file.close()
        self._file, self._size = file, len(text.encode())


def _write_at(descriptor: int, place: int, data: bytes) -> None:
    """Write to an open file, and have the disk keep it."""
    while data:
        written = os.pwrite(descriptor, data, place)
        place, data = place + written, data[written:]
    os.fsync(descriptor)


def _open_alone(path: Path) -> IO[bytes]:
    """Open and lock the file, so that no other process writes it. Raises ResultsError."""
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
        file.close()  # its writer has just replaced the file: try again


def _require_same(path: Path, run: Run, environment: Mapping[str, Any], devices: Sequence[UsedDevice]) -> None:
    was = identity(run.environment) | _cards(run.devices)
    is_now = identity(environment) | _cards(devices)
    fields = dict.fromkeys((*was, *is_now))
    differing = [field for field in fields if was.get(field) != is_now.get(field)]
    if differing:
        words = "; ".join(f"{field} was {was.get(field)}, is {is_now.get(field)}" for field in differing)
        raise ResultsError(f"cannot resume {path}: the environment differs: {words}")


def _cards(devices: Sequence[UsedDevice]) -> dict[str, Any]:
    """The UUIDs of several devices, beside that of the first, which the environment has."""
    return {f"gpu uuid of {each.device}": (each.gpu or {}).get("uuid") for each in devices[1:]}


def _lacks_a_mode(record: Record, modes: Collection[str]) -> bool:
    timed = record.status is Status.PASSED and record.purpose in ("bench", "real") and not record.untimed
    return timed and not set(modes) <= {each.mode for each in record.measurements}
