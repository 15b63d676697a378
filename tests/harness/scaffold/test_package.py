"""The packages that `boltzbench new` writes: installed and tested as a user would, and their kernels here."""

import ast
import errno
import importlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from boltzbench.harness import Expected, Status
from boltzbench.harness.agreement.agreement import check_case
from boltzbench.harness.api.messages import UnknownName
from boltzbench.harness.discovery.registry import load_registry
from boltzbench.harness.discovery.signature import signature
from boltzbench.harness.reference import torch_implementation
from boltzbench.harness.scaffold.backends import BACKENDS
from boltzbench.harness.scaffold.package import NewPackageError, write_implementation, write_operation, write_sampler
from boltzbench.kernels.common.dispatch import unavailable
from support import fakes
from support.fakes import CPU, install

NOTHING = signature(fakes.operation(), CPU)


@pytest.fixture(autouse=True)
def _forget_imports(tmp_path):
    """The next test may write a package of the same name, which is refused as long as that is importable."""
    yield
    for name, module in [*sys.modules.items()]:
        if str(tmp_path) in str(getattr(module, "__file__", "")):
            del sys.modules[name]


def written(folder, backend, name="", operation="double"):
    return write_implementation(name or f"made_for_{backend}", folder, backend, operation, NOTHING)


def names(files, folder):
    return [str(file.relative_to(folder)) for file in files]


def test_the_names_in_the_packages(tmp_path):
    files = write_sampler("my-own", tmp_path, "cupy")
    source = ["src/my_own/__init__.py", "src/my_own/propose.cu"]
    assert names(files, tmp_path / "my-own") == ["pyproject.toml", *source, "tests/test_my_own.py", "README.md"]
    assert 'my_own = "my_own"' in files[0].read_text()
    assert 'name="my_own"' in files[1].read_text()
    source = ["src/made_for_cupy/__init__.py", "src/made_for_cupy/kernel.py", "src/made_for_cupy/kernel.cu"]
    files = written(tmp_path, "cupy")
    assert names(files, tmp_path / "made_for_cupy") == [
        "pyproject.toml", *source, "tests/test_made_for_cupy.py", "README.md"
    ]  # fmt: skip
    assert "    input   x  float32 (n)\n    output  y  float32 (n)\n" in files[1].read_text()


def test_every_source_is_whole_and_formatted(tmp_path):
    """Those for compilers that are not here, too: they are parsed, and ruff finds no unknown name in them."""
    written_ = [*(written(tmp_path, backend) for backend in BACKENDS), write_operation("levels", tmp_path)]
    for backend in ("torch", "triton", "cupy"):
        written_.append(write_sampler(f"walks_{backend}", tmp_path, backend))
    for file in (file for files in written_ for file in files):
        text = file.read_text()
        assert "$" not in text, file
        if file.suffix == ".py":
            ast.parse(text)
    rules = ["--isolated", "--line-length", "120"]
    for command in (["check", "--select", "E,F,W,I,UP,B", *rules], ["format", "--check", *rules]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, tmp_path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["", "My", "1st", "a b", "a--b", "../a", "class$", "ä"])
def test_an_invalid_name(tmp_path, name):
    for write in (write_sampler, write_operation, lambda name, folder: written(folder, "torch", name or " ")):
        with pytest.raises(NewPackageError, match="NAME must consist of lower-case"):
            write(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_exists_and_an_unknown_backend(tmp_path):
    with pytest.raises(NewPackageError, match="neither a Python keyword nor an importable module: got 'torch'"):
        write_operation("torch", tmp_path)
    with pytest.raises(NewPackageError, match="--backend must be one of torch, triton, cupy: got 'jax'"):
        write_sampler("fresh", tmp_path, "jax")
    with pytest.raises(NewPackageError, match=r"--backend must be one of torch, .*cute: got 'jax'"):
        written(tmp_path, "jax", "fresh")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path):
    for write in (write_sampler, write_operation, lambda name, folder: written(folder, "torch", name)):
        file = write("twice", tmp_path / write.__name__)[1]
        file.write_text("mine")
        with pytest.raises(NewPackageError, match="twice exists already: choose another NAME, or another folder"):
            write("twice", tmp_path / write.__name__)
        assert file.read_text() == "mine"


def test_what_a_full_disk_leaves_is_removed(tmp_path, monkeypatch):
    def full(path, *arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(NewPackageError, match=r"cannot write the package .*: No space left on device"):
        write_sampler("twice", tmp_path)
    assert list(tmp_path.iterdir()) == []


def imported(files, monkeypatch):
    monkeypatch.syspath_prepend(files[0].parent / "src")
    return importlib.import_module(files[1].parent.name)


def test_the_operation_makes_cases_of_other_sizes(tmp_path, monkeypatch):
    found = []
    imported(write_operation("levels_of_any_number", tmp_path), monkeypatch).register_operations(found.append)
    (operation,) = found
    assert operation.case(n=5, dtype="bfloat16", scenario="outliers").label == "outliers n=5 bfloat16"


def test_the_samplers_walk_as_torch_walks(tmp_path, monkeypatch):
    """All three backends draw the same numbers, however the chains are split."""
    walks, well = {}, load_registry().targets["double_well"]
    for backend in ("torch", "triton", "cupy"):
        if unavailable(backend, CPU) is None:
            walks[backend] = imported(write_sampler(f"walks_on_{backend}", tmp_path, backend), monkeypatch)
    x = torch.randn(70, 2, 3)
    wanted = walks["torch"].propose(x, 0.5, 2**63 + 5, 7, 11)
    start = torch.randn(9, 1)
    states = []
    for backend, walk in walks.items():
        torch.testing.assert_close(walk.propose(x, 0.5, 2**63 + 5, 7, 11), wanted)
        torch.testing.assert_close(walk.propose(x[30:], 0.5, 2**63 + 5, 7, 41), wanted[30:])
        found = []
        walk.register_samplers(found.append)
        (sampler,) = found
        assert sampler.backend == backend
        states.append(sampler.advance(sampler.init(well, start, 3, 0), 4, 0.5)["x"])
        torch.testing.assert_close(states[-1], states[0])
    assert not torch.equal(states[0], start)


def advanced(dtype):
    """x <- 2 x in place, and z = x as a transposed output: state, and elements that are not in the order of rows."""

    def prepare(inputs, outputs):
        def launch():
            outputs["x"].mul_(2)
            return {"x": outputs["x"], "z": inputs["x"].clone().t().contiguous().t()}

        return launch

    operation = fakes.operation(
        cases=(fakes.case(7, dtype=dtype),),
        make_inputs=lambda case, device: {"x": torch.randn(case.sizes["n"], 3).to(case.torch_dtype)},
        make_outputs=lambda inputs: {"x": torch.empty_like(inputs["x"]), "z": torch.empty_like(inputs["x"].t()).t()},
        reference=lambda inputs, outputs: {
            "x": Expected(2 * inputs["x"].double()),
            "z": Expected(inputs["x"].double()),
        },
    )
    return operation, replace(fakes.implementation(), prepare=prepare, plugin="p")


@pytest.mark.parametrize("backend", ["torch", "triton", "cupy", "numba"])
def test_an_implementation_agrees_as_written_and_its_kernel_matters(tmp_path, monkeypatch, backend):
    module = imported(written(tmp_path, backend), monkeypatch)
    if reason := module.IMPLEMENTATION.unavailable(CPU):
        pytest.skip(reason)
    kernel = importlib.import_module(f"{module.__name__}.kernel")
    honest = kernel.copy
    for dtype in ("float32", "bfloat16", "float64"):
        operation, of_torch = advanced(dtype)
        monkeypatch.setattr(module, "torch_implementation", {"double": of_torch}.__getitem__)
        monkeypatch.setattr(kernel, "copy", honest)
        (case,) = operation.cases
        assert check_case(operation, module.IMPLEMENTATION, case, CPU, [0, 1]).status is Status.PASSED
        monkeypatch.setattr(kernel, "copy", lambda source, target: honest(source[:-1], target[:-1]))
        assert check_case(operation, module.IMPLEMENTATION, case, CPU, [0]).status is Status.WRONG_VALUES


@pytest.mark.parametrize("backend", [name for name, each in BACKENDS.items() if each.needs_gpu])
def test_where_it_cannot_run_it_says_why(tmp_path, monkeypatch, backend):
    module = imported(written(tmp_path, backend, f"far_{backend}"), monkeypatch)
    chosen = BACKENDS[backend]
    assert module.unavailable(CPU) in (f"{chosen.distribution} is not installed", f"{chosen.title} needs a GPU")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: name)
    assert module.unavailable(CPU) == f"{chosen.title} needs a GPU"
    assert module.unavailable(torch.device("cuda")) is None
    assert chosen.untried("no driver").endswith("needs a GPU, and here is none: no driver")
    assert chosen.untried(None) == ""


def test_the_torch_implementation_of_an_operation():
    assert (torch_implementation("sgld").operation, torch_implementation("sgld").backend) == ("sgld", "torch")
    with pytest.raises(UnknownName, match="unknown operation 'sgdl': did you mean sgld"):
        torch_implementation("sgdl")


FEW_TARGETS = """
from boltzbench.harness import hookimpl
from boltzbench.plugins.targets import continuous
BOLTZBENCH_API = 1
@hookimpl
def register_targets(register):
    register(continuous.double_well())
    register(continuous.quadratic_wells())
"""


def test_the_packages_work_as_written(tmp_path):
    """Install an operation, an implementation of it and a sampler, and run their own tests."""
    packages = [
        write_operation("fresh-levels", tmp_path),
        write_implementation("fresh-kernel", tmp_path, "cupy", "fresh_levels", NOTHING),
        write_sampler("fresh", tmp_path),
    ]
    site = tmp_path / "site"
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    folders = [files[0].parent for files in packages]
    command = [sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", site, *folders]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (site / "fresh_kernel" / "kernel.cu").is_file()
    install(site, {"few": FEW_TARGETS})
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    plugins = "few,fresh,fresh_levels,fresh_kernel"
    environment = inherited | {"PYTHONPATH": str(site), "BOLTZBENCH_PLUGINS": plugins}
    options = ["-q", "-rs", "-p", "no:cacheprovider", "--import-mode=importlib"]
    tests = [sys.executable, "-m", "pytest", *options, *(folder / "tests" for folder in folders)]
    done = subprocess.run(tests, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout or (unavailable("cupy", CPU) and "3 passed, 1 skipped" in done.stdout)
