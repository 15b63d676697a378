"""`make bench` runs both commands, whatever the first one finds."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.mark.parametrize(
    ("checked", "timed", "status", "ran"),
    [
        (0, 0, 0, ["check", "bench"]),
        (1, 0, 1, ["check", "bench"]),
        (0, 1, 1, ["check", "bench"]),
        (1, 1, 1, ["check", "bench"]),
        (130, 0, 130, ["check"]),
    ],
)
def test_bench_times_after_a_failed_check(
    tmp_path: Path, checked: int, timed: int, status: int, ran: list[str]
) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (0, 0))
    program = tmp_path / ".venv" / "bin" / "boltzbench"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "$1" >> ran\ncase "$1" in check) exit {checked};; *) exit {timed};; esac\n')
    program.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    made = subprocess.run(["make", "bench"], cwd=tmp_path, capture_output=True, text=True)
    assert (tmp_path / "ran").read_text().split() == ran
    assert (made.returncode == 0) == (status == 0)
    assert status == 0 or f"Error {status}" in made.stderr
