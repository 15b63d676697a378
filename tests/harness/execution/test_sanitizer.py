"""Kernels under compute-sanitizer, which a script on PATH stands in for."""

import os
import sys
import textwrap
import time
from pathlib import Path

import pytest
from boltzbench.harness.api.operations import Status
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE
from boltzbench.harness.execution import sanitizer
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.sanitizer import SanitizerFailed, TooSlow, compute_sanitizer, sanitize
from support import TESTS
from support.fakes import CPU, implementation, install, operation

(STEP, *_) = plan([(operation(), [implementation("mine", backend="triton")])], ("check",))

CLEAN = """
    ========= COMPUTE-SANITIZER
    boltzbench: launched
    ========= ERROR SUMMARY: 0 errors"""
INVALID = """
    ========= COMPUTE-SANITIZER
    ========= Invalid __global__ read of size 4 bytes
    =========     at row_kernel+0x70
    Traceback (most recent call last):
    RuntimeError: unspecified launch failure
    ========= ERROR SUMMARY: 1 error"""
RACE = """
    ========= Error: Race reported between Write access and Read access
    boltzbench: launched
    ========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"""
ONLY_WARNED = """
    boltzbench: launched
    ========= RACECHECK SUMMARY: 2 hazards displayed (0 errors, 2 warnings)"""
RAISED = """
    Traceback (most recent call last):
    ValueError: no such block size
    ========= ERROR SUMMARY: 0 errors"""
REFUSED = """
    ========= COMPUTE-SANITIZER
    ========= ERROR SUMMARY: 0 errors
    float32 only"""
NO_DEVICE = """
    ========= COMPUTE-SANITIZER
    ========= Error: Target application terminated before first instrumented API call"""
DIED = """
    ========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Writes the script and puts it on PATH."""
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)

    def write(body):
        script = tmp_path / "compute-sanitizer"
        script.write_text(f"#!/bin/sh\n{textwrap.dedent(body)}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        found = compute_sanitizer()
        assert found == script
        return found

    return write


def says(text, status):
    return f"cat <<'END'\n{textwrap.dedent(text).strip()}\nEND\nexit {status}"


@pytest.mark.parametrize(
    ("tool", "text", "status", "verdict", "message"),
    [
        ("memcheck", CLEAN, 0, Status.PASSED, ""),
        ("memcheck", INVALID, 1, Status.OUT_OF_BOUNDS, "Invalid __global__ read of size 4 bytes"),
        ("racecheck", RACE, 86, Status.ERROR, "Race reported"),
        ("racecheck", ONLY_WARNED, 0, Status.PASSED, ""),
        ("memcheck", RAISED, 1, Status.ERROR, "no such block size"),
        ("memcheck", REFUSED, 3, Status.UNAVAILABLE, "float32 only"),
    ],
)
def test_verdicts(stand_in, tool, text, status, verdict, message):
    record = sanitize(stand_in(says(text, status)), tool, STEP, CPU, 20.0)
    assert (record.status, record.purpose, record.case) == (verdict, tool, f"{tool}: {STEP.label}")
    assert message in record.message
    again = f"--tool {tool} --report-api-errors no --error-exitcode 86 {sys.executable} -m {sanitizer.__name__} double"
    assert (again in record.message) == (verdict not in (Status.PASSED, Status.UNAVAILABLE))


@pytest.mark.parametrize(("tool", "text", "status"), [("memcheck", NO_DEVICE, 1), ("racecheck", DIED, 0)])
def test_a_sanitizer_that_does_not_work_is_no_verdict(stand_in, tool, text, status):
    with pytest.raises(SanitizerFailed, match=f"compute-sanitizer --tool {tool} ended with status {status}"):
        sanitize(stand_in(says(text, status)), tool, STEP, CPU, 20.0)


def test_a_slow_kernel_and_its_children_are_stopped(stand_in, tmp_path):
    script = stand_in(f"sh -c 'echo $$ > {tmp_path}/child; exec sleep 60' &\nwait")
    with pytest.raises(TooSlow, match="longer than 1 s"):
        sanitize(script, "racecheck", STEP, CPU, 1.0)
    child = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/cmdline")
    end = time.monotonic() + 10
    while child.exists() and child.read_bytes():  # an ended process has no command line until it is waited for
        assert time.monotonic() < end, "the child lives on"
        time.sleep(0.01)


def test_no_sanitizer(tmp_path, monkeypatch):
    for name in ("CUDA_HOME", "CUDA_PATH", "PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    if not Path("/usr/local/cuda/bin/compute-sanitizer").exists():
        assert compute_sanitizer() is None


KERNELS = """
    from boltzbench.harness import Unsupported
    import os

    def refuse(inputs, outputs):
        raise Unsupported("only\\nfour")

    @hookimpl
    def register_operations(register):
        register(fakes.operation("double"))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("mine", backend="triton"))
        register(fakes.implementation("picky", prepare=refuse))
    """


def test_the_kernel_runs_in_a_process_of_its_own_without_the_cache_of_torch(stand_in, tmp_path, monkeypatch):
    install(tmp_path, {"kernels": KERNELS})
    monkeypatch.setenv(PLUGINS_VARIABLE, "kernels")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{TESTS}")
    script = stand_in(
        """
        while [ "${1#--}" != "$1" ]; do shift 2; done
        echo "$PYTORCH_NO_CUDA_MEMORY_CACHING $*" > "${0%/*}/command"
        "$@" || exit $?
        echo "========= ERROR SUMMARY: 0 errors"
        """
    )
    assert sanitize(script, "memcheck", STEP, CPU, 100.0).status is Status.PASSED
    command = (tmp_path / "command").read_text()
    assert command == f"1 {sys.executable} -m {sanitizer.__name__} double mine {STEP.label} cpu\n"


def test_a_kernel_may_refuse_the_case(tmp_path, monkeypatch, capsys):
    install(tmp_path, {"kernels": KERNELS})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv(PLUGINS_VARIABLE, "kernels")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert sanitizer.main("double", "picky", STEP.label, "cpu") == 3
    assert capsys.readouterr().out == "only four\n"
    sys.modules.pop("fake_samplers_1_2_kernels", None)
