"""Submits the shards of a plan to an executor, follows them to their end, and merges what they have."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

from ..api.messages import UsageError, describe_error
from ..results.file import ResultsError, read_progress
from .job import ShardJob, ShardState, state_of
from .merge import Merged, merge

SILENCE_SECONDS = 300.0
"""A job at work that gives no sign of life for so long counts as lost, with its machine."""
POLL_SECONDS = 1.0

CHOSEN_HERE = ("--shard", "--out", "--resume", "--new-only", "--json", "--profile")
"""Options of `bench` that a submission sets itself, or that make no results file."""


class Future(Protocol):
    """What an executor returns: `concurrent.futures.Future` and its like."""

    def done(self) -> bool:
        """Whether the job has ended, well or not."""

    def cancel(self) -> Any:
        """End the job."""


class Executor(Protocol):
    """`concurrent.futures.Executor` and its like. One with a ``submit_all`` gets all jobs at once."""

    def submit(self, job: ShardJob, /) -> Any:
        """Call the job somewhere; returns a `Future`."""


@dataclass(frozen=True)
class Submission:
    """What has become of a plan: the state of each shard, and for each unfinished one the reason.

    ``merged`` is the run so far, None if there is none; ``path`` is its file. A detached submission is not merged.
    """

    folder: Path
    states: Mapping[int, ShardState]
    reasons: Mapping[int, str]
    merged: Merged | None
    path: Path

    @property
    def complete(self) -> bool:
        return all(state.complete for state in self.states.values())


@dataclass(frozen=True)
class Progress:
    """The shards at work or waiting, the ended ones with their reasons, and the checks done and planned so far."""

    shards: int
    complete: int
    at_work: int
    waiting: int
    failed: int
    records: int
    steps: int

    def __str__(self) -> str:
        parts = [f"{self.complete} of {self.shards} shards are complete", f"{self.at_work} at work"]
        parts += [f"{self.waiting} waiting"] * bool(self.waiting) + [f"{self.failed} failed"] * bool(self.failed)
        return f"{', '.join(parts)}; {self.records} of {self.steps or '?'} checks"


def submit(
    arguments: Sequence[str],
    shards: int,
    executor: Executor,
    *,
    out: Path = Path("runs"),
    at_work: Callable[[Path], Mapping[int, Future]] = lambda folder: {},
    show: Callable[[Progress], None] = lambda progress: None,
    detach: bool = False,
    silence: float = SILENCE_SECONDS,
) -> Submission:
    """Run ``boltzbench bench`` as so many shards, each a job of the executor, and merge them.

    ``arguments`` are those of the command, such as ``["bench", "-o", "sgld"]``. All machines must see the folder
    ``out`` under the same path. It gets the merged file, and beside it a folder with those of the shards. The same call
    continues an unfinished submission: it neither repeats what is finished nor starts a second job for a shard that
    ``at_work`` gives a job of. After a complete one it begins a new one.

    ``show`` gets the progress about once a second. If ``detach``, the function returns when the jobs are submitted. A
    job that gives no sign of life for ``silence`` seconds is cancelled.

    Raises UsageError for arguments that a submission cannot have, and if another process follows the same submission.
    """
    _require_possible(arguments, shards)
    folder = _folder(out.resolve(), arguments, shards)
    with _alone(folder):
        folders = {number: folder / f"shard-{number}" for number in range(1, shards + 1)}
        states = {number: state_of(own) for number, own in folders.items()}
        unfinished = [number for number, state in states.items() if not state.complete]
        futures = {number: job for number, job in at_work(folder).items() if number in unfinished and not job.done()}
        jobs = {
            number: ShardJob(tuple(arguments), number, shards, str(folders[number]), os.getcwd())
            for number in unfinished
            if number not in futures
        }
        for number in jobs:
            (folders[number] / "alive").unlink(missing_ok=True)
            (folders[number] / "failure.txt").unlink(missing_ok=True)
        futures |= _submit_all(executor, jobs)
        path = folder.with_suffix(".json")
        if detach:
            return Submission(folder, states, {}, None, path)
        reasons = _follow(folders, futures, show, silence)
        states = {number: state_of(own) for number, own in folders.items()}
        reasons = {number: reasons.get(number, "") for number, state in states.items() if not state.complete}
        files = [file for state in states.values() for file in state.files]
        return Submission(folder, states, reasons, merge(files, path, last_wins=True) if files else None, path)


def _require_possible(arguments: Sequence[str], shards: int) -> None:
    if shards < 1:
        raise UsageError(f"a plan has at least one shard, got {shards}")
    if not arguments or arguments[0] != "bench":
        got = repr(arguments[0]) if arguments else "nothing"
        raise UsageError(f"submit runs bench on many machines, as in `submit --nodes 8 -- bench -o sgld`: got {got}")
    for each in arguments:
        if each.partition("=")[0] in CHOSEN_HERE:
            raise UsageError(f"{each} cannot be submitted: submit chooses the shards and their files itself")


def _folder(out: Path, arguments: Sequence[str], shards: int) -> Path:
    """The folder of the unfinished submission of these arguments, or of a new one."""
    digest = hashlib.sha256(json.dumps([[*arguments], shards]).encode()).hexdigest()[:8]
    number = 1
    while _is_complete((folder := out / f"submit-{digest}-{number}").with_suffix(".json")):
        number += 1
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultsError(f"cannot write results to the folder {out}: {error.strerror}") from error
    return folder


def _is_complete(path: Path) -> bool:
    try:
        return path.exists() and read_progress(path)[0].status == "complete"
    except ResultsError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a submission. Raises UsageError if another process has it."""
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = "another process has submitted the same command and follows its jobs"
            raise UsageError(f"{words} (folder {folder}): wait for it or end it") from None
        except OSError:  # the file system has no locks
            pass
        yield


def _submit_all(executor: Executor, jobs: Mapping[int, ShardJob]) -> dict[int, Future]:
    if not jobs:
        return {}
    if submit_all := getattr(executor, "submit_all", None):
        return dict(submit_all(jobs))
    return {number: executor.submit(job) for number, job in jobs.items()}


def _follow(
    folders: Mapping[int, Path], futures: dict[int, Future], show: Callable[[Progress], None], silence: float
) -> dict[int, str]:
    """Wait until no job is at work. Returns why the shards of those that ended are unfinished, if they are."""
    reasons: dict[int, str] = {}
    beats: dict[int, tuple[int, float]] = {}
    left = dict(futures)
    while left:
        for number, future in [*left.items()]:
            if future.done():
                reasons[number] = _reason(folders[number], future)
                del left[number]
            elif (since := _silent_since(folders[number], number, beats)) and monotonic() - since > silence:
                future.cancel()
                reasons[number] = f"its job gave no sign of life for {silence:g} s and was cancelled"
                del left[number]
        show(_progress(folders, left, beats))
        if left:
            sleep(min(POLL_SECONDS, silence / 4))
    return reasons


def _silent_since(folder: Path, number: int, beats: dict[int, tuple[int, float]]) -> float | None:
    """When this process saw the last new sign of life; None if the job is not at work. No other clock is asked."""
    try:
        beat = (folder / "alive").stat().st_mtime_ns
    except OSError:
        beats.pop(number, None)
        return None
    if beats.get(number, (0, 0.0))[0] != beat:
        beats[number] = beat, monotonic()
    return beats[number][1]


def _reason(folder: Path, future: Future) -> str:
    """Why the shard of a job that has ended is unfinished; empty if it is complete."""
    if state_of(folder).complete:
        return ""
    failure = folder / "failure.txt"
    if failure.exists():
        return failure.read_text().strip()
    words = "its job ended without a result"
    ask = None if hasattr(future, "paths") else getattr(future, "exception", None)  # submitit's would wait for a file
    error = ask() if ask else None
    return f"{words}: {describe_error(error)}" if error else words


def _progress(folders: Mapping[int, Path], left: Mapping[int, Future], beats: Mapping[int, Any]) -> Progress:
    states = {number: state_of(folder) for number, folder in folders.items()}
    complete = sum(state.complete for state in states.values())
    unfinished = [number for number in left if not states[number].complete]
    at_work = sum(number in beats for number in unfinished)
    failed = len(folders) - complete - len(unfinished)
    steps = [state.steps for state in states.values() if state.files]
    known = sum(steps) if len(steps) == len(folders) else 0
    records = sum(state.records for state in states.values())
    return Progress(len(folders), complete, at_work, len(unfinished) - at_work, failed, records, known)
