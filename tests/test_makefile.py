"""What `make bench` and `make gpu-evidence` run, and the installation without a network."""

import itertools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from boltzbench.harness.execution.budget import require_known
from support import ROOT, operations

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


def recipe(tmp_path: Path, *arguments: str) -> list[str]:
    """The commands that make would run in a fresh copy."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    command = ["make", "-n", "--no-print-directory", *arguments]  # `make test` itself is a make
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    return made.stdout.replace("\\\n", "").splitlines()


def test_gpu_evidence_begins_with_cases_that_exist(tmp_path: Path) -> None:
    *_, line = recipe(tmp_path, "gpu-evidence", "BUDGET=90s", "ARGS=--device cpu")
    program, *words = shlex.split(line)
    first = [word for before, word in itertools.pairwise(words) if before == "--first"]
    assert [each.partition(" ")[0] for each in first] == ["logsumexp", "sgld", "rbm_gibbs"]
    require_known(first, operations.registry().operations)
    assert (program, words[:5]) == (".venv/bin/boltzbench", ["run", "--budget", "90s", "--out", "results"])
    assert words[-2:] == ["--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((), []), (("WHEELS=my wheels",), ["--no-index", "--find-links", "my wheels"])],
)
def test_installation_from_a_folder_of_wheels(tmp_path: Path, arguments: tuple[str, ...], options: list[str]) -> None:
    (line,) = (line for line in recipe(tmp_path, "gpu-evidence", *arguments) if "pip install" in line)
    assert shlex.split(line)[4:-4] == options
