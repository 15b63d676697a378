"""What gets installed: every package of the tree, scripts and entry points that resolve, a complete wheel."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE, load_registry
from support import wheel_contents

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_python_files_is_a_package():
    files = [path for folder in wheel_contents.FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert [str(path) for path in files if not (path.parent / "__init__.py").exists()] == []


@pytest.mark.parametrize("name", PROJECT["project"]["scripts"])
def test_console_scripts_resolve(name):
    (script,) = metadata.entry_points(group="console_scripts", name=name)
    assert script.value == PROJECT["project"]["scripts"][name]
    assert callable(script.load())


@pytest.mark.parametrize("name", PROJECT["project"]["entry-points"]["boltzbench"])
def test_entry_points_resolve(name, monkeypatch):
    (plugin,) = (
        each for each in metadata.entry_points(group="boltzbench", name=name) if each.dist.name == "boltzbench"
    )
    assert plugin.value == PROJECT["project"]["entry-points"]["boltzbench"][name]
    monkeypatch.setenv(PLUGINS_VARIABLE, name)
    assert load_registry([plugin]).loaded


def test_every_direct_dependency_is_constrained():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    constrained = {line.split("==")[0] for line in lines if "==" in line and not line.startswith("#")}
    project = PROJECT["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.match(r"[\w.-]+", requirement)[0] for requirements in lists for requirement in requirements}
    assert names <= constrained


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel, and the copy of the tree that it was built from."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for name in wheel_contents.FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, tree]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel, tree


def test_a_wheel_has_all_of_the_tree(built):
    assert wheel_contents.differences(*built) == []
    command = [sys.executable, wheel_contents.__file__, *built]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_wheel_runs_where_the_tree_is_not(built, tmp_path):
    wheel, _ = built
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "from boltzbench.kernels import cuda_module; print(cuda_module.__file__)"
    # On PYTHONPATH the wheel comes before the editable install, whose import hook would otherwise serve the tree.
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr


@pytest.mark.parametrize("name", ["kernels/common/device.cuh", "kernels/emulator/emulator.hpp", "harness/py.typed"])
def test_a_file_missing_from_the_wheel_is_named(built, tmp_path, name):
    short = without(built[0], tmp_path, f"boltzbench/{name}")
    assert wheel_contents.differences(short, built[1]) == [f"not in the wheel: boltzbench/{name}"]
    assert wheel_contents.main([str(short), str(built[1])]) == 1


def test_what_is_only_in_the_wheel_or_differs_is_named(built, tmp_path):
    other = without(built[0], tmp_path, "boltzbench/harness/cli/app.py")
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("boltzbench/harness/cli/app.py", "changed")
        archive.writestr("boltzbench/harness/notes.txt", "")
        archive.writestr("kernels/__init__.py", "")
    assert wheel_contents.differences(other, built[1]) == [
        "only in the wheel: boltzbench/harness/notes.txt",
        "only in the wheel: kernels/__init__.py",
        "differs: boltzbench/harness/cli/app.py",
    ]


def without(wheel, folder, name):
    """A copy of ``wheel`` that lacks the file ``name``."""
    copy = folder / wheel.name
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(copy, "w") as new:
        assert name in old.namelist()
        for each in old.namelist():
            if each != name:
                new.writestr(each, old.read(each))
    return copy
