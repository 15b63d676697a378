"""The CUDA C kernels under ASan and UBSan, and in two orders of threads: no fault, and the same bits in both orders."""

import subprocess
import sys

import pytest
import torch
from boltzbench.kernels import emulator
from boltzbench.kernels.common import dispatch
from support import TESTS, operations, sanitized


def _unavailable() -> str | None:
    try:
        emulator.sanitizer_environment()
    except emulator.CompilerNotFoundError as error:
        return str(error)
    return dispatch.unavailable("cupy", torch.device("cpu"))


WITH_CUDA_KERNELS = [each.operation for each in operations.inspectable() if each.backend == "cupy"]


pytestmark = pytest.mark.skipif(_unavailable() is not None, reason=str(_unavailable()))


@pytest.fixture(scope="module")
def run_sanitized():
    """``run_sanitized(operation, folder)``: the exit status of a fork of one process under the sanitizers."""
    command, environment = [sys.executable, "-m", "support.sanitized"], emulator.sanitizer_environment()
    with subprocess.Popen(
        command, env=environment, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def run(operation, folder):
            print(operation, folder, file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield run


@pytest.mark.parametrize("operation", WITH_CUDA_KERNELS)
def test_kernels_are_clean_and_independent_of_the_order_of_threads(run_sanitized, operation, tmp_path):
    status = run_sanitized(operation, tmp_path)
    report = (tmp_path / "report").read_text(errors="replace")
    assert status == 0, report[-6000:]
    assert "Sanitizer" not in report, report[-6000:]
    assert "runtime error" not in report, report[-6000:]
    results = torch.load(tmp_path / "results.pt", weights_only=True)
    forward, reverse = results["forward"], results["reverse"]
    fewest = 50 if sanitized.has_file(operation) else 0
    assert len(forward) == len(reverse) > fewest
    for a, b in zip(forward, reverse, strict=True):
        assert a.dtype is b.dtype
        assert a.shape == b.shape
        assert not a.isnan().any()
        assert a.contiguous().view(-1).view(torch.uint8).equal(b.contiguous().view(-1).view(torch.uint8))
    assert len({tuple(a.flatten().tolist()) for a in forward}) > len(forward) // 8  # not all zeros, say
