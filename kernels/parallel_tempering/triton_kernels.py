"""A round of replica exchange in Triton, as in `parallel_tempering.cu`, which explains what bounds its speed."""

from collections.abc import Sequence

import triton
import triton.language as tl

from ..common.philox_triton import random_words, uniform
from ..common.triton_blocks import block_for
from ..common.variants import KernelVariant, TritonVariant
from ..philox import Stream, signed_seed
from .request import LaunchRequest

_SWAP = tl.constexpr(int(Stream.SWAP))

BLOCK = 256


@triton.jit(do_not_specialize=["seed", "step", "first_ladder"])
def swap_kernel(
    replica_at,  # int32 (ladders, rungs)
    energies,  # float64 (ladders, rungs), by replica
    betas,  # float64 (rungs,)
    new_replica_at,  # int32 (ladders, rungs)
    accepted,  # int32 (ladders, rungs)
    total,  # ladders * rungs
    rungs,
    first_ladder,
    seed,
    step,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < total
    ladder = place // rungs
    rung = place - ladder * rungs
    lower = rung - ((rung ^ step) & 1)  # the lower rung of the pair
    paired = inside & (lower >= 0) & (lower + 1 < rungs)
    first = tl.load(replica_at + ladder * rungs + lower, mask=paired, other=0)
    second = tl.load(replica_at + ladder * rungs + lower + 1, mask=paired, other=0)
    difference = tl.load(energies + ladder * rungs + first, mask=paired, other=0.0)
    difference -= tl.load(energies + ladder * rungs + second, mask=paired, other=0.0)
    apart = tl.load(betas + lower, mask=paired, other=0.0) - tl.load(betas + lower + 1, mask=paired, other=0.0)
    number = (tl.cast(first_ladder, tl.int64) + ladder) * rungs + lower
    w0, w1, w2, w3 = random_words(number >> 2, seed, step, _SWAP)
    word = tl.where((number & 2) != 0, tl.where((number & 1) != 0, w3, w2), tl.where((number & 1) != 0, w1, w0))
    log_ratio = apart * difference  # a NaN must not become 0, of which the exchange is certain
    exchanged = paired & (uniform(word).to(tl.float64) < tl.exp(tl.where(log_ratio > 0.0, 0.0, log_ratio)))
    own = tl.load(replica_at + place, mask=inside, other=0)
    is_lower = rung == lower
    tl.store(new_replica_at + place, tl.where(exchanged, tl.where(is_lower, second, first), own), mask=inside)
    tl.store(accepted + place, (exchanged & is_lower).to(tl.int32), mask=inside)


def swap(given: LaunchRequest) -> None:
    """Write ``given.new_replica_at`` and ``given.accepted``. There is at least one rung."""
    total, rungs = given.replica_at.numel(), given.replica_at.shape[1]
    block = block_for(total, BLOCK)
    swap_kernel[(triton.cdiv(total, block),)](
        given.replica_at, given.energies, given.betas, given.new_replica_at, given.accepted, total, rungs,
        given.first_ladder, signed_seed(given.seed), given.step, BLOCK=block, num_warps=8,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """The only kernel."""
    return [
        TritonVariant(
            name="swap",
            threads=256,
            items=1,
            unit="replicas",
            bytes_per_item=24,
            kernel=swap_kernel,
            signature={
                **dict.fromkeys(("replica_at", "new_replica_at", "accepted"), "*i32:16"),
                **dict.fromkeys(("energies", "betas"), "*fp64:16"),
                **dict.fromkeys(("total", "rungs"), "i32:16"),
                **dict.fromkeys(("first_ladder", "step"), "i32"),
                "seed": "i64",
                "BLOCK": BLOCK,
            },
        )
    ]
