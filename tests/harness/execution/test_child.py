"""A command that is killed at any point leaves no process, no file and no traceback."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
from multiprocessing import forkserver
from pathlib import Path
from boltzbench.harness.execution.child import Child, answer_all, start_server

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def main(connection, argument):
    connection.send(("phase", "begun"))
    answer_all(connection, lambda question: time.sleep(1000))

if __name__ == "__main__":
    point = sys.argv[1]
    start_server("slow" if point == "the server imports" else "json")
    while point == "the server imports" and not Path(__file__).with_name("begun").exists():
        time.sleep(0.01)
    if point in ("the server starts", "the server imports"):
        die()
    if point == "a child starts":
        connect = forkserver.connect_to_new_process
        forkserver.connect_to_new_process = lambda files: (connect(files), time.sleep(0.2), die())
    dies = {"a child begins": "begun"}.get(point)
    child = Child(main, None, os.environ, lambda phase: die() if phase == dies else None)
    if point == "a child is stopped":
        die()
    signal.signal(signal.SIGALRM, die)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    child.ask("for ever", seconds=1000)
"""
SLOW = """
import time
from pathlib import Path
Path(__file__).with_name("begun").touch()
time.sleep(1000)
"""
POINTS = (
    *("the server starts", "the server imports"),
    *("a child starts", "a child begins", "a child is stopped", "a child is asked"),
)


def alive(folder):
    """The processes that the program has started, by id."""
    found = {}
    for entry in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended, or belongs to another user
            if entry.name.isdigit() and os.fsencode(f"TMPDIR={folder}\0") in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_command_leaves_nothing(tmp_path, point):
    program, temporary, output = (tmp_path / name for name in ("program.py", "temporary", "output"))
    program.write_text(PROGRAM)
    (tmp_path / "slow.py").write_text(SLOW)
    temporary.mkdir()
    with output.open("w") as file:
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(tmp_path)}
        killed = subprocess.run([sys.executable, program, point], env=environment, stdout=file, stderr=file)
    deadline = time.monotonic() + 10
    while (left := alive(temporary)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert left == {}
    assert (killed.returncode, output.read_text()) == (-signal.SIGKILL, "")
    assert list(temporary.iterdir()) == []
