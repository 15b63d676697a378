"""The C++ kernels of rows against torch: lengths around a vector and a block, other layouts, and NaN at any place."""

import pytest
import torch
from boltzbench.kernels import native
from boltzbench.kernels.generalised_cross_entropy import (
    generalised_cross_entropy_backward,
    generalised_cross_entropy_forward,
)
from boltzbench.kernels.generalised_cross_entropy import native_kernels as cross_entropy_kernels
from boltzbench.kernels.logsumexp import logsumexp, logsumexp_backward
from boltzbench.kernels.logsumexp import native_kernels as logsumexp_kernels
from boltzbench.kernels.thermodynamics import native_kernels as thermodynamics_kernels
from boltzbench.kernels.thermodynamics import thermodynamics

if reason := native.unavailable(torch.device("cpu")):
    pytest.skip(reason, allow_module_level=True)

LENGTHS = (1, 2, 7, 8, 15, 16, 17, 31, 33, 64, 65, 257, 1025, 2049, 66_000)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.fixture(scope="module", params=["native", "x86-64"], autouse=True)
def architecture(request):
    """Kernels for the vectors of this machine, and for the shortest that there are."""
    if request.param != "native" and native.platform.machine() != "x86_64":
        pytest.skip(f"the CPU has no {request.param}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_ARCHITECTURE", f"-march={request.param}")
        patch.setattr(native, "_FLAGS", (*native._FLAGS, "-O1"))
        for kernels in (logsumexp_kernels, thermodynamics_kernels, cross_entropy_kernels):
            patch.setattr(kernels, "MODULE", native.NativeModule(kernels.MODULE.source))
        yield


def results(x, labels, backend):
    """All functions of the rows along dimension 1."""
    grad = torch.arange(labels.numel(), dtype=torch.float64).view(labels.shape) - 1.5
    wide = torch.promote_types(x.dtype, torch.float32)
    _, lse, peak = generalised_cross_entropy_forward(x, labels, backend="torch")
    yield logsumexp(x, 1, -0.7, backend=backend)
    yield logsumexp_backward(grad.to(x.dtype), x, lse, 1, peak=peak, backend=backend)
    yield from thermodynamics(x, 1, 0.7, backend=backend)[:3]
    yield from generalised_cross_entropy_forward(x, labels, backend=backend)
    yield generalised_cross_entropy_backward(grad.to(wide), x, labels, lse, peak=peak, backend=backend)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n", LENGTHS)
def test_every_length_and_layout(n, dtype):
    generator = torch.Generator().manual_seed(n)
    x = torch.randn(2, 2 * n, 9, generator=generator).to(dtype)
    rows = x[0, :n].mT.contiguous()
    for part in (rows, x[0, :n].mT, x[:, ::2], rows[:, None].expand(9, 3, n).mT):
        labels = torch.randint(0, n, part.select(1, 0).shape, generator=generator)
        labels.flatten()[1] = -100
        for found, wanted in zip(results(part, labels, "native"), results(part, labels, "torch"), strict=True):
            torch.testing.assert_close(found, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("n", [2, 17, 65, 257, 2500, 65_537])
def test_nan_anywhere_in_a_row_is_seen(n):
    """Also alone in its lane of the last block of 256 elements, or of the last part of a long row."""
    labels = torch.zeros(3, dtype=torch.int64)
    for place in (0, n // 2, n - 1):
        x = torch.zeros(3, n)
        x[1, place] = torch.nan
        for layout in (x, x.mT.contiguous().mT):
            loss = generalised_cross_entropy_forward(layout, labels, backend="native")[0]
            for found in (logsumexp(layout, 1, backend="native"), *thermodynamics(layout, backend="native")[:3], loss):
                assert found.isnan().tolist() == [False, True, False]


@pytest.mark.parametrize(("rows", "n"), [(1000, 10), (37, 3000), (3, 70_001)])
def test_the_number_of_threads_does_not_change_bits(rows, n):
    x, labels = torch.randn(rows, n, generator=torch.Generator().manual_seed(1)), torch.arange(rows) % n
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(list(results(x, labels, "native")))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))
