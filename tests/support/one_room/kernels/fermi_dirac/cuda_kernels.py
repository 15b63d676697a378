"""The occupation in CUDA C: launching `fermi_dirac.cu`."""

import functools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule

THREADS = 256


@functools.cache
def module() -> CudaModule:
    return CudaModule(Path(__file__).with_name("fermi_dirac.cu"), ["occupation"])


def occupation(x: Tensor, out: Tensor) -> None:
    """Write ``out``. ``x`` is not empty."""
    n = x.numel()
    module().launch("occupation", (-(-n // THREADS),), (THREADS,), [x, out, n], device=x.device)


def variants() -> Sequence[KernelVariant]:
    """The one kernel."""
    return [
        CudaVariant(
            name="occupation", threads=THREADS, items=1, unit="levels", bytes_per_item=8, access_bytes=4,
            module=module(), kernel="occupation",
        )
    ]  # fmt: skip
