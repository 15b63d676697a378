"""The package that `boltzbench new` writes, used as a user would."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from boltzbench.harness.cli.new import NewPackageError, write_package
from boltzbench.kernels.common.dispatch import unavailable
from support.fakes import install


@pytest.mark.parametrize("backend", ["torch", "triton", "cupy"])
def test_the_names_in_the_package(tmp_path, backend):
    files = write_package("my-own", tmp_path, backend)
    source = ["my_own/__init__.py", "my_own/propose.cu"] if backend == "cupy" else ["my_own.py"]
    found = [str(file.relative_to(tmp_path / "my-own")) for file in files]
    assert found == ["pyproject.toml", *source, "test_my_own.py", "README.md"]
    for file in files:
        assert "$" not in file.read_text(), file
    assert 'my_own = "my_own"' in files[0].read_text()
    assert 'name="my_own"' in files[1].read_text()


@pytest.mark.parametrize("name", ["", "My", "1st", "a b", "a--b", "../a", "class$", "ä"])
def test_an_invalid_name(tmp_path, name):
    with pytest.raises(NewPackageError, match="NAME must consist of lower-case"):
        write_package(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_backend(tmp_path):
    with pytest.raises(NewPackageError, match="--backend must be one of torch, triton, cupy: got 'jax'"):
        write_package("fresh", tmp_path, "jax")
    assert list(tmp_path.iterdir()) == []


def test_the_kernels_propose_what_torch_proposes(tmp_path, monkeypatch):
    """All three backends draw the same numbers, however the chains are split."""
    monkeypatch.syspath_prepend(tmp_path)
    device = torch.device("cpu")
    proposals = {}
    for backend in ("torch", "triton", "cupy"):
        if unavailable(backend, device) is None:
            package = write_package(f"proposes_{backend}", tmp_path, backend)[0].parent
            monkeypatch.syspath_prepend(package)
            proposals[backend] = importlib.import_module(f"proposes_{backend}").propose
    x = torch.randn(70, 2, 3)
    wanted = proposals["torch"](x, 0.5, 2**63 + 5, 7, 11)
    for propose in proposals.values():
        torch.testing.assert_close(propose(x, 0.5, 2**63 + 5, 7, 11), wanted)
        torch.testing.assert_close(propose(x[30:], 0.5, 2**63 + 5, 7, 41), wanted[30:])


def test_nothing_is_overwritten(tmp_path):
    write_package("twice", tmp_path)
    before = (tmp_path / "twice" / "twice.py").read_text()
    (tmp_path / "twice" / "twice.py").write_text("mine")
    with pytest.raises(NewPackageError, match=r"cannot write the package .*twice: File exists"):
        write_package("twice", tmp_path)
    assert (tmp_path / "twice" / "twice.py").read_text() == "mine" != before


FEW_TARGETS = """
from boltzbench.harness import hookimpl
from boltzbench.plugins.targets import continuous
BOLTZBENCH_API = 1
@hookimpl
def register_targets(register):
    register(continuous.double_well())
    register(continuous.quadratic_wells())
"""


@pytest.mark.parametrize("backend", ["torch", "triton", "cupy"])
def test_the_package_works_as_written(tmp_path, backend):
    """Install it, run its own test, and once the command; on two targets only, because kernels are slow here."""
    if reason := unavailable(backend, torch.device("cpu")):
        pytest.skip(reason)
    package = write_package("fresh", tmp_path, backend)[0].parent
    site = tmp_path / "site"
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", site, package]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    install(site, {"few": FEW_TARGETS})
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = inherited | {"PYTHONPATH": str(site), "BOLTZBENCH_PLUGINS": "few,fresh"}
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_fresh.py"]
    done = subprocess.run(test, cwd=package, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    if backend != "torch":
        return
    command = [Path(sys.executable).with_name("boltzbench"), "validate", "-s", "fresh", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "double_well" in done.stdout
    assert "quadratic_wells" in done.stdout
