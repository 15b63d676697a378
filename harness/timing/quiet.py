"""Keeps a device quiet while it is timed: runs take turns, and the load of other processes on a CPU is seen."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from ..results.environment import cache_folder
from ..results.file import ResultsError

SHORTEST_INTERVAL = 0.25
"""Seconds after which the system's counts, of 10 ms on each CPU, tell the load of others within 4 %."""

POLL_SECONDS = 0.2
"""Seconds between two tries to get a device that another run has."""


class HostLoad:
    """The fraction of the CPUs that other processes use, from the system's count of busy time and this process's own.

    `begin` and `end` enclose the time that counts; several intervals add up until they are long enough.
    """

    def __init__(self, read: Callable[[], tuple[float, float, float] | None] | None = None) -> None:
        self._read = read or _read_times
        self._from: tuple[float, float, float] | None = None
        self._sums = [0.0, 0.0, 0.0]

    def begin(self) -> None:
        self._from = self._read()

    def end(self) -> None:
        until = self._read()
        if self._from is None or until is None:
            return
        self._sums = [
            total + after - before for total, before, after in zip(self._sums, self._from, until, strict=True)
        ]
        self._from = None

    def others(self) -> float | None:
        """The load of others since the last answer; 1 is all CPUs that this process may use. None if the system does
        not say, or if the time was too short: then it counts the next time."""
        seconds, own, busy = self._sums
        if seconds < SHORTEST_INTERVAL:
            return None
        self._sums = [0.0, 0.0, 0.0]
        return min(max((busy - own) / (seconds * len(os.sched_getaffinity(0))), 0.0), 1.0)


def _read_times() -> tuple[float, float, float] | None:
    """The time now, the CPU time of this process, and the busy time of all CPUs that it may use, in seconds."""
    try:
        with open("/proc/stat") as file:
            busy = busy_seconds(file, os.sched_getaffinity(0))
    except (OSError, ValueError, AttributeError):  # not Linux, or another format
        return None
    return time.monotonic(), time.process_time(), busy


def busy_seconds(lines: IO[str], cpus: set[int]) -> float:
    """The time that these CPUs were busy, from the lines of /proc/stat. What a hypervisor took counts too."""
    total = 0
    for line in lines:
        name, *numbers = line.split()
        if not name.startswith("cpu"):
            break
        if name != "cpu" and int(name[3:]) in cpus:
            user, nice, system, _idle, _waiting, *others = map(int, numbers[:8])
            total += user + nice + system + sum(others)
    return total / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def taking_turns(device: str, waiting: Callable[[str], None], seconds: float | None = None) -> Iterator[None]:
    """Hold the lock of a device, named ``cpu`` or by a GPU's UUID: two runs of one user on it take turns.

    If another run has it, call ``waiting`` with a sentence and wait; at most ``seconds`` long, then raise ResultsError.
    The lock ends with the context or the process. Without a folder for caches there is none.
    """
    file = _lock_file(device)
    if file is None:
        yield
        return
    with file:
        _wait_for(file, device, waiting, seconds)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def _lock_file(device: str) -> IO[str] | None:
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Path(folder, f"lock-{re.sub(r'[^A-Za-z0-9-]+', '-', device)}").open("a+")
    except OSError:  # the lock only spares disturbance
        return None


def _wait_for(file: IO[str], device: str, waiting: Callable[[str], None], seconds: float | None) -> None:
    begun, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        except OSError:  # the file system has no locks
            return
        file.seek(0)
        holder = f"another run (process {file.read(20) or 'unknown'}) is using {device}"
        if seconds is not None and time.monotonic() - begun >= seconds:
            raise ResultsError(f"{holder}, and did not end within {seconds:.0f} s: start again when it has ended")
        if not told:
            waiting(f"{holder}: waiting until it ends, so that neither disturbs the other")
            told = True
        time.sleep(POLL_SECONDS)
