"""The package that `boltzbench new` writes: as a user would use it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from boltzbench.harness.new import NewPackageError, write_package


def test_the_names_in_the_package(tmp_path):
    files = write_package("my-own", tmp_path)
    assert [file.name for file in files] == ["pyproject.toml", "my_own.py", "test_my_own.py", "README.md"]
    for file in files:
        assert "$" not in file.read_text(), file
    assert 'my_own = "my_own"' in files[0].read_text()
    assert 'name="my_own"' in files[1].read_text()


@pytest.mark.parametrize("name", ["", "My", "1st", "a b", "a--b", "../a", "class$", "ä"])
def test_a_name_that_cannot_be_one(tmp_path, name):
    with pytest.raises(NewPackageError, match="NAME must be lower-case"):
        write_package(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    write_package("twice", tmp_path)
    before = (tmp_path / "twice" / "twice.py").read_text()
    (tmp_path / "twice" / "twice.py").write_text("mine")
    with pytest.raises(NewPackageError, match=r"cannot write the package .*twice: File exists"):
        write_package("twice", tmp_path)
    assert (tmp_path / "twice" / "twice.py").read_text() == "mine" != before


def test_it_works_as_written(tmp_path):
    """Installed and tested with its own test, which judges it against every exact law that there is for it."""
    package = write_package("fresh", tmp_path)[0].parent
    site = tmp_path / "site"
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", site, package]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    paths = {"PYTHONPATH": str(site), "BOLTZBENCH_PLUGINS": "targets,fresh"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_fresh.py"]
    done = subprocess.run(test, cwd=package, env=inherited | paths, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    script = Path(sys.executable).with_name("boltzbench")
    done = subprocess.run(
        [script, "validate", "-s", "fresh", "-t", "double_well", "--device", "cpu"],
        cwd=tmp_path,
        env=inherited | paths,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "double_well" in done.stdout
