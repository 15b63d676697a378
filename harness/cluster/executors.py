"""Jobs on a Slurm cluster, or in processes of this machine, through submitit."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from ..api.messages import UsageError, unknown
from .job import STOPPING_SECONDS, ShardJob
from .submission import Future

CLUSTERS = ("auto", "slurm", "local")
QUEUE_SECONDS = 5.0
"""The queue is asked at most this often."""


def chosen_cluster(name: str) -> str:
    """``slurm`` or ``local``. Raises UsageError if it cannot be used here."""
    if name not in CLUSTERS:
        raise unknown("cluster", name, CLUSTERS)
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UsageError("submit needs submitit; install it with: pip install 'boltzbench[slurm]'") from None
    if name != "local" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise UsageError(
            "there is no Slurm on this machine (sbatch and srun): run submit on a login node of the cluster, or add "
            "--cluster local to run the shards here"
        )
    return "local" if name == "local" else "slurm"


class Submitit:
    """An executor whose jobs outlive this process, and are found again by their numbers.

    ``parameters`` are those of submitit's executor. On Slurm, all jobs are one array.
    """

    def __init__(self, cluster: str, **parameters: Any) -> None:
        self._cluster, self._parameters = cluster, parameters

    def submit_all(self, jobs: Mapping[int, ShardJob]) -> dict[int, Future]:
        """Submit all jobs."""
        import submitit

        folder = Path(next(iter(jobs.values())).folder).parent
        executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=self._cluster)
        executor.update_parameters(**self._parameters)
        try:
            with _quiet(folder / "jobs" / "controllers.log", self._cluster), _interruptible():
                submitted = executor.submit_array([*jobs.values()])
        except submitit.core.utils.FailedJobError as error:  # of sbatch
            words = " ".join(str(error).split())
            raise UsageError(f"Slurm refuses the jobs: {words}") from error
        ids = {number: job.job_id for number, job in zip(jobs, submitted, strict=True)}
        _write_ids(folder, {**_read_ids(folder), **ids})
        return self._jobs(ids)

    def submit(self, job: ShardJob, /) -> Future:
        """Submit one job."""
        return self.submit_all({job.number: job})[job.number]

    def at_work(self, folder: Path) -> dict[int, Future]:
        """The jobs of a submission that an earlier process has submitted."""
        return self._jobs(_read_ids(folder))

    def stop(self, folder: Path) -> str:
        """After Ctrl-C: ends jobs on this machine. Says what becomes of the jobs."""
        jobs = {number: job for number, job in self.at_work(folder).items() if not job.done()}
        if self._cluster == "slurm":
            ids = sorted({job_id.partition("_")[0] for job_id in _read_ids(folder).values()})
            return f"The jobs go on; `scancel {' '.join(ids)}` ends them." if jobs else ""
        end = monotonic() + STOPPING_SECONDS
        for job in jobs.values():
            job.cancel()
        while any(not job.done() for job in jobs.values()) and monotonic() < end:
            sleep(0.1)
        return ""

    def _jobs(self, ids: Mapping[int, str]) -> dict[int, Future]:
        if self._cluster == "local":
            return {number: _LocalJob(int(job_id)) for number, job_id in ids.items()}
        queue = _Queue()
        return {number: _SlurmJob(job_id, queue) for number, job_id in ids.items()}


@contextmanager
def _quiet(log: Path, cluster: str) -> Iterator[None]:
    """Processes that begin meanwhile write to the log: after Ctrl-C, those of local jobs would print tracebacks."""
    if cluster != "local":
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with log.open("ab") as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for descriptor, before in zip((1, 2), kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Processes that begin meanwhile hear SIGINT, even if this one ignores it, as in the background of a script."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if before is signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)


def _read_ids(folder: Path) -> dict[int, str]:
    with suppress(OSError, ValueError):
        return {int(number): str(job_id) for number, job_id in json.loads((folder / "ids.txt").read_text()).items()}
    return {}


def _write_ids(folder: Path, ids: Mapping[int, str]) -> None:
    (folder / "ids.txt").write_text(json.dumps(ids))


class _LocalJob:
    """A job of submitit's local executor: the process that starts it again after a checkpoint, and ends with it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def done(self) -> bool:
        with suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)
        process = Path("/proc", str(self._pid))
        try:
            words, state = (process / "cmdline").read_bytes(), (process / "stat").read_text().rpartition(") ")[2][0]
        except OSError:
            return True
        return state == "Z" or (bool(words) and b"submitit" not in words)  # no words: it only begins

    def cancel(self) -> None:
        with suppress(ProcessLookupError):
            if not self.done():
                os.kill(self._pid, signal.SIGINT)


class _SlurmJob:
    """A job in Slurm's queue. A requeued one, preempted or of a lost node, stays there."""

    def __init__(self, job_id: str, queue: "_Queue") -> None:
        self._id, self._queue = job_id, queue

    def done(self) -> bool:
        return not self._queue.has(self._id)

    def cancel(self) -> None:
        subprocess.run(["scancel", self._id], check=False, capture_output=True)


class _Queue:
    """What `squeue` shows of this user's jobs. It needs no accounting database, as `sacct` does."""

    def __init__(self, run: Callable[..., "subprocess.CompletedProcess[str]"] = subprocess.run) -> None:
        self._run = run
        self._asked, self._ids = float("-inf"), frozenset[str]()

    def has(self, job_id: str) -> bool:
        if monotonic() - self._asked > QUEUE_SECONDS:
            command = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
            asked = self._run(command, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                self._ids = frozenset(asked.stdout.split())
                self._asked = monotonic()
            elif not self._ids:  # the controller does not answer: nothing is known to have ended
                return True
        return job_id in self._ids
