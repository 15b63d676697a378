"""A new operation costs the files that CONTRIBUTING.md names and nothing else.

`support/one_room/` holds the files of a small operation. They are written into a copy of the tree, where everything
that the suite does with an operation must work without another edit.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support import ROOT, rooms

EXAMPLE = Path(__file__).parent / "support" / "one_room"
OPERATION, FAMILY = "fermi_dirac", "rows"
PATHS = [rooms.path_of(template, OPERATION, FAMILY) for template in rooms.files_of_a_new_operation()]
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "CONTRIBUTING.md", "Makefile", "constraints.txt")
FOLDERS = ("harness", "kernels", "plugins", "tests")


def test_the_example_has_the_files_that_contributing_names():
    example = {path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.rglob("*") if path.is_file()}
    assert {name for name in example if "__pycache__" not in name} == set(PATHS)


def add(paths: list[str], tree: Path) -> None:
    for path in paths:
        assert not (tree / path).exists(), f"{path} exists already: choose another example"
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLE / path, tree / path)


def test_a_new_operation_needs_nothing_else(tmp_path, subtests):
    tree, site = tmp_path / "tree", tmp_path / "site"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    add(PATHS, tree)
    site.mkdir()
    (site / "boltzbench").symlink_to(tree)
    pristine = tmp_path / "pristine"  # what a wheel is built from: neither tests nor anything that they leave behind
    shutil.copytree(tree, pristine, ignore=shutil.ignore_patterns("tests"))

    def run(*command: str, cwd: Path = tree) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "200"}
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=False, cwd=cwd, env=environment
        )

    def build_and_compare() -> subprocess.CompletedProcess[str]:
        built = run("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(pristine))
        if built.returncode:
            return built
        (wheel,) = tmp_path.glob("*.whl")
        return run("tests/support/wheel_contents.py", str(wheel), str(pristine))

    def renew_and_test() -> subprocess.CompletedProcess[str]:
        renewed = run("-m", "support.golden", OPERATION, cwd=tree / "tests")
        if renewed.returncode:
            return renewed
        return run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/operations", "tests/test_architecture.py",
            "-k", f"{OPERATION} or test_rooms",
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        tests = pool.submit(renew_and_test)
        checked = pool.submit(run, "-m", "boltzbench.harness", "check", "-o", OPERATION)
        inspected = pool.submit(run, "-m", "boltzbench.harness", "inspect", "-o", OPERATION)
        listed = pool.submit(run, "-m", "boltzbench.harness", "list")
        wheel = pool.submit(build_and_compare)
    words = {
        "list": (listed, OPERATION),
        "check": (checked, "passed"),
        "inspect": (inspected, "occupation"),
        "goldens and tests": (tests, "passed"),
        "wheel": (wheel, "as in the tree"),
    }
    for name, (future, word) in words.items():
        with subtests.test(name):
            done = future.result()
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
            assert word in done.stdout
    with subtests.test("goldens"):
        folder = tree / "tests" / "operations" / OPERATION / "golden"
        assert len(list(folder.iterdir())) == 6
    with subtests.test("nothing else is touched"):
        for name in FOLDERS:
            for path in (ROOT / name).rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    assert (tree / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path


@pytest.mark.parametrize("path", PATHS)
def test_a_missing_file_is_named(tmp_path, path):
    add([each for each in PATHS if each != path], tmp_path)
    is_plugin = path.startswith("plugins/")
    found = rooms.missing(tmp_path, {} if is_plugin else {OPERATION: OPERATION})
    named = f"plugins/operations/<family>/{OPERATION}.py" if is_plugin else path
    assert found, path
    assert all(f"{named} is missing" in sentence for sentence in found), found


def test_nothing_is_missing_from_the_example(tmp_path):
    add(PATHS, tmp_path)
    assert rooms.missing(tmp_path, {OPERATION: OPERATION}) == []
