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


@pytest.mark.skipif(_unavailable() is not None, reason=str(_unavailable()))
@pytest.mark.parametrize("operation", WITH_CUDA_KERNELS)
def test_kernels_are_clean_and_independent_of_the_order_of_threads(operation, tmp_path):
    path = tmp_path / "results.pt"
    run = subprocess.run(
        [sys.executable, "-m", "support.sanitized", operation, str(path)],
        env=emulator.sanitizer_environment(),
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    report = run.stdout + run.stderr
    assert run.returncode == 0, report[-6000:]
    assert "Sanitizer" not in report, report[-6000:]
    assert "runtime error" not in report, report[-6000:]
    results = torch.load(path, weights_only=True)
    forward, reverse = results["forward"], results["reverse"]
    fewest = 50 if sanitized.has_file(operation) else 0
    assert len(forward) == len(reverse) > fewest
    for a, b in zip(forward, reverse, strict=True):
        assert a.dtype is b.dtype
        assert a.shape == b.shape
        assert not a.isnan().any()
        assert a.contiguous().view(-1).view(torch.uint8).equal(b.contiguous().view(-1).view(torch.uint8))
    assert len({tuple(a.flatten().tolist()) for a in forward}) > len(forward) // 8  # not all zeros, say
