"""What keeps a device quiet: the load of others on a CPU, and runs that take turns."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from boltzbench.harness.results.file import ResultsError
from boltzbench.harness.timing import quiet
from boltzbench.harness.timing.quiet import HostLoad, busy_seconds, taking_turns

CORES = len(os.sched_getaffinity(0))

STAT = """cpu  600 0 60 1000 10 0 5 7 0 0
cpu0 300 1 30 400 5 2 3 4 0 0
cpu1 300 0 30 600 5 0 2 3 9 9
cpu11 50 0 0 0 0 0 0 0 0 0
intr 123
cpu2 1000 0 0 0 0 0 0 0 0 0
"""


def test_the_busy_time_of_the_cpus_that_the_process_may_use() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert busy_seconds(io.StringIO(STAT), {0}) == pytest.approx(340 * tick), "neither idle nor waiting for a disk"
    assert busy_seconds(io.StringIO(STAT), {1, 11}) == pytest.approx(385 * tick), "guests are in the user's time"


def load_of(*readings: tuple[float, float, float] | None) -> HostLoad:
    times: Iterator[tuple[float, float, float] | None] = iter(readings)
    return HostLoad(lambda: next(times))


def test_the_load_of_others_is_what_the_system_counts_and_this_process_does_not() -> None:
    load = load_of((10.0, 1.0, 50.0), (11.0, 1.5, 50.5 + 0.3 * CORES), (12.0, 2.0, 60.0), (13.0, 3.0, 60.9))
    load.begin()
    load.end()
    assert load.others() == pytest.approx(0.3)
    load.begin()
    load.end()
    assert load.others() == 0.0, "the counts of the system are coarse"


def test_short_blocks_count_together() -> None:
    readings = [(0.1 * i, 0.02 * i, 0.02 * i + 0.05 * CORES * (i % 2 + i // 2)) for i in range(6)]
    load = load_of(*readings)
    answers = []
    for _ in range(3):
        load.begin()
        load.end()
        answers.append(load.others())
    assert answers == [None, None, pytest.approx(0.5)], "and what lies between them does not"


def test_a_system_that_says_nothing_has_no_load() -> None:
    load = load_of(None, None)
    load.begin()
    load.end()
    assert load.others() is None


def test_a_busy_process_beside_this_one_is_seen() -> None:
    """On a machine with other work the load is higher: the test asks for the least that it must be."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(CORES)]
    try:
        load = HostLoad()
        for _ in range(20):
            load.begin()
            sum(range(2_000_000))
            load.end()
            if (others := load.others()) is not None and others > 0.2:
                break
    finally:
        for each in busy:
            each.kill()
            each.wait()
    assert others is not None
    assert others > 0.2


HOLD = """
import sys, time
from boltzbench.harness.timing.quiet import taking_turns
with taking_turns(sys.argv[1], print):
    print("has it", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def _own_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(quiet, "POLL_SECONDS", 0.01)


@pytest.mark.usefixtures("_own_locks")
def test_two_runs_take_turns_on_a_device_and_a_dead_one_holds_nothing() -> None:
    said: list[str] = []
    holder = subprocess.Popen([sys.executable, "-c", HOLD, "GPU-1"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "has it\n"
        with taking_turns("GPU-2", said.append):
            assert said == [], "another device"
        words = f"another run \\(process {holder.pid}\\) is using GPU-1, and did not end within 0 s"
        with pytest.raises(ResultsError, match=words), taking_turns("GPU-1", said.append, 0.05):
            pass
        assert said == [f"another run (process {holder.pid}) is using GPU-1: waiting until it ends, so that neither"
                        " disturbs the other"]  # fmt: skip
        holder.kill()
        holder.wait()
        with taking_turns("GPU-1", said.append, 5.0), taking_turns("cpu", said.append, 5.0):
            assert len(said) == 1
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.usefixtures("_own_locks")
def test_the_lock_of_a_run_that_waited_is_free_afterwards() -> None:
    for _ in range(2):
        with taking_turns("cpu", pytest.fail, 0.0):
            pass


@pytest.mark.parametrize("folder", ["/proc/nowhere", "/dev/null"])
def test_without_a_folder_for_caches_a_run_is_not_held_up(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    with taking_turns("cpu", pytest.fail), taking_turns("cpu", pytest.fail):
        pass
