"""What `make bench` and `make gpu-evidence` run, and the installation without a network."""

import itertools
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from boltzbench.harness.execution.budget import require_known
from support import ROOT, operations

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def recipe(tmp_path: Path, *arguments: str) -> list[str]:
    """The commands that make would run in a fresh copy."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    command = ["make", "-n", "--no-print-directory", *arguments]  # `make test` itself is a make
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    return made.stdout.replace("\\\n", "").splitlines()


@pytest.mark.parametrize(("given", "budget"), [((), "3m"), (("BUDGET=20m",), "20m")])
def test_bench_is_a_run_within_a_budget(tmp_path: Path, given: tuple[str, ...], budget: str) -> None:
    *_, line = recipe(tmp_path, "bench", *given, "ARGS=--first ising")
    first = ["--first", "ising", "--first", "logsumexp", "--first", "sgld"]  # that of the user before the others
    assert shlex.split(line) == [".venv/bin/boltzbench", "run", "--budget", budget, *first]


def test_gpu_evidence_begins_with_cases_that_exist(tmp_path: Path) -> None:
    *_, line = recipe(tmp_path, "gpu-evidence", "BUDGET=90s", "ARGS=--device cpu")
    program, *words = shlex.split(line)
    first = [word for before, word in itertools.pairwise(words) if before == "--first"]
    assert [each.partition(" ")[0] for each in first] == ["logsumexp", "sgld", "rbm_gibbs"]
    require_known(first, operations.registry().operations)
    assert (program, words[:5]) == (".venv/bin/boltzbench", ["run", "--budget", "90s", "--out", "results"])
    assert words[5:8] == ["--new-only", "--device", "cuda"], "without a GPU it says so, and writes nothing"
    assert words[-2:] == ["--device", "cpu"]


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((), []), (("WHEELS=my wheels",), ["--no-index", "--find-links", "my wheels"])],
)
def test_installation_from_a_folder_of_wheels(tmp_path: Path, arguments: tuple[str, ...], options: list[str]) -> None:
    (line,) = (line for line in recipe(tmp_path, "gpu-evidence", *arguments) if "pip install" in line)
    assert shlex.split(line)[4:-4] == options
