"""The job of a shard, on whatever machine it gets: runs `bench`, and continues where an earlier job has ended.

A shard has a folder, which all machines see. It holds the shard's results file, or several if it was continued on other
devices; ``log.txt``, what `bench` printed; ``failure.txt``, why the last job failed; ``lock``, held by the job at work;
and ``alive``, which the job touches every `BEAT_SECONDS`.
"""

import ctypes
import fcntl
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

from ..results.file import ResultsError, read_progress

BENCH = (sys.executable, "-m", "boltzbench.harness", "bench")
BEAT_SECONDS = 5.0
STOPPING_SECONDS = 20.0
"""For `bench` to write what it has; then it is killed."""
PREEMPTION_SECONDS = 30.0
"""Slurm's SIGTERM, which also ends `bench`, may announce a preemption: then submitit's signal follows."""
LOCK_SECONDS = 60.0
"""For an earlier job of the shard to end."""

WITH_RESUME = ("--device", "--time-limit")
"""The options of `bench` that go with its --resume."""


class ShardFailed(Exception):
    """A shard could not be finished. The message says why."""


@dataclass(frozen=True)
class ShardState:
    """What a shard has: records in its files, the number it should have (0: unknown), and whether it is complete."""

    files: tuple[Path, ...]
    records: int
    steps: int
    complete: bool


def state_of(folder: Path) -> ShardState:
    """The state of the shard in a folder, its files in the order of the last write. What cannot be read is left out."""
    files, records, steps, complete = [], 0, 0, False
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
        try:
            run, count = read_progress(path)
        except ResultsError:
            continue
        files.append(path)
        records += count
        steps = run.shard.steps if run.shard else steps
        complete = complete or run.status == "complete"  # it has what the earlier ones lack
    return ShardState(tuple(files), min(records, steps), steps, complete)


@dataclass
class ShardJob:
    """Runs shard ``number`` of ``of`` of a plan in ``folder``, which is absolute.

    ``arguments`` are those of the command, `bench` first; ``directory`` is the working directory. A call returns the
    exit status of `bench`, 0 or 1, and raises ShardFailed if the shard is unfinished. It may run on any machine, any
    number of times: it finishes what is left.
    """

    arguments: tuple[str, ...]
    number: int
    of: int
    folder: str
    directory: str

    def __post_init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_child": None}

    def __call__(self) -> int:
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        failure, alive = folder / "failure.txt", folder / "alive"
        with _locked(folder / "lock", LOCK_SECONDS) as lock:
            failure.unlink(missing_ok=True)
            try:
                status = self._carry_out(folder, lock)
            except ShardFailed as failed:
                failure.write_text(f"{failed}\n")
                raise
            finally:
                alive.unlink(missing_ok=True)
        return status

    def checkpoint(self) -> Any:
        """Called by submitit before a job is preempted or its time is over: ends `bench`; the same job continues it."""
        from submitit.helpers import DelayedSubmission

        self._stop()
        (Path(self.folder) / "alive").unlink(missing_ok=True)
        return DelayedSubmission(self)

    def _carry_out(self, folder: Path, lock: IO[Any]) -> int:
        state = state_of(folder)
        if state.complete:
            return 0
        status = 2
        if state.files:
            status = self._bench(["--resume", str(state.files[-1]), *_options(self.arguments[1:], WITH_RESUME)], lock)
        if status == 2:  # nothing to resume, or another device or software: a further run has what is left
            shard = ["--shard", f"{self.number}/{self.of}", "--out", str(folder), "--new-only"]
            status = self._bench([*self.arguments[1:], *shard], lock)
        if status in (0, 1) and state_of(folder).complete:
            return status
        if status == -signal.SIGTERM:
            sleep(PREEMPTION_SECONDS)
        ended = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        raise ShardFailed(f"bench {ended} on {platform.node()}: {_last_line(folder / 'log.txt')}")

    def _bench(self, arguments: Sequence[str], lock: IO[Any]) -> int:
        folder = Path(self.folder)
        alive = folder / "alive"
        with (folder / "log.txt").open("ab") as log:
            self._child = subprocess.Popen(
                [*BENCH, *arguments],
                cwd=self.directory if Path(self.directory).is_dir() else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),  # if this process is killed, the lock lasts until bench has ended
                preexec_fn=_follows_parent(),
            )
            try:
                while True:
                    alive.write_text(platform.node())
                    with suppress(subprocess.TimeoutExpired):
                        return self._child.wait(BEAT_SECONDS)
            except BaseException:
                self._stop()
                raise

    def _stop(self) -> None:
        """End `bench`, which keeps what it has."""
        if self._child is None or self._child.poll() is not None:
            return
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()


@contextmanager
def _locked(path: Path, seconds: float) -> Iterator[IO[Any]]:
    """The file, locked. Raises ShardFailed if another process holds the lock for so long."""
    end = monotonic() + seconds
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if monotonic() > end:
                    raise ShardFailed("another job is at work on this shard") from None
                sleep(0.2)
            except OSError:  # the file system has no locks
                break
        yield file


def _follows_parent() -> Callable[[], None]:
    """What a child does first: it ends as after Ctrl-C if its parent dies, and leaves submitit's signal to it.

    A job in the background of a script ignores SIGINT; its child must not.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)

    def prepare() -> None:
        if prctl:
            prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)

    return prepare


def _options(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Those of the arguments that are these options, with their values."""
    found: list[str] = []
    for each, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if each in names:
            found += [each, value]
        elif each.partition("=")[0] in names:
            found.append(each)
    return found


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n") if path.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
