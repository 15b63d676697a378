"""The occupation in Triton.

Bound by memory: a level reads 4 bytes and writes 4, and computes one exponential and one division. Each program has a
block of neighbouring levels, so that its accesses are coalesced and, where the size allows it, 128 bits wide.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..common.variants import KernelVariant, TritonVariant

BLOCK = 1024
THREADS = 128


@triton.jit
def occupation_kernel(
    x,  # (n,)
    y,  # (n,)
    n,
    BLOCK: tl.constexpr,
):
    level = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = level < n
    value = tl.load(x + level, mask=inside, other=0.0)
    tl.store(y + level, 1.0 / (1.0 + tl.exp(-value)), mask=inside)


def occupation(x: Tensor, out: Tensor) -> None:
    """Write ``out``. ``x`` is not empty."""
    n = x.numel()
    occupation_kernel[(triton.cdiv(n, BLOCK),)](x, out, n, BLOCK=BLOCK, num_warps=THREADS // 32)


def variants() -> Sequence[KernelVariant]:
    """The one kernel."""
    return [
        TritonVariant(
            name="occupation", threads=THREADS, items=BLOCK // THREADS, unit="levels", bytes_per_item=8,
            access_bytes=16, kernel=occupation_kernel,
            signature={"x": "*fp32:16", "y": "*fp32:16", "n": "i32:16", "BLOCK": BLOCK},
        )
    ]  # fmt: skip
