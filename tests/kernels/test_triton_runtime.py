"""What Triton needs on a GPU besides Triton."""

import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from boltzbench.kernels.common import triton_runtime
from boltzbench.kernels.common.triton_runtime import missing_compiler, missing_headers, unavailable

CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that compiles Triton kernels, with a compiler and headers as far as a test takes none away."""
    monkeypatch.setattr(triton_runtime, "INTERPRETS", False)
    monkeypatch.setattr(triton_runtime, "_INSTALLED", True)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("CC", raising=False)
    _forget()
    yield
    _forget()


def _forget() -> None:
    missing_compiler.cache_clear()
    missing_headers.cache_clear()


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme: {"include": str(tmp_path)})
    return tmp_path / "Python.h"


def test_triton_runs_on_a_gpu_with_a_compiler_and_headers(headers: Path) -> None:
    assert unavailable(CUDA) is None


def test_without_pythons_headers_triton_is_unavailable(headers: Path) -> None:
    headers.unlink()
    words = f"Triton needs Python's headers, and {headers} does not exist: install python3-dev"
    assert unavailable(CUDA) == words


def test_without_a_compiler_triton_is_unavailable(headers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert unavailable(CUDA) == "Triton needs a C compiler, and none is on the path: install gcc"


def test_the_compiler_of_the_environment_replaces_the_others(headers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "icc" else name)
    monkeypatch.setenv("CC", "icc")
    assert unavailable(CUDA) == "Triton needs a C compiler, and CC names 'icc', which does not exist"
