"""Langevin walkers in a double well in Triton, all steps in one launch; `annealed_langevin.cu` explains what bounds it.

A program has a block of groups of four walkers, and keeps their positions in registers, in four blocks.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from ..common.philox_triton import normals, words_of
from ..common.triton_blocks import block_for
from ..common.triton_math import bits_of, from_bits
from ..common.triton_runtime import helper
from ..common.variants import KernelVariant, TritonVariant
from ..philox import Stream, signed_seed
from .request import VARIANTS, LaunchRequest

_WALKERS = tl.constexpr(int(Stream.WALKERS))

BLOCK = 128
"""Groups of four walkers of a program."""


@helper
def _moved(x, z, factor):
    return x + (factor * x) * (x * x - 1.0) + z


@helper
def _passed(passed, x, threshold, number):
    return tl.where((passed < 0) & (x >= threshold), number, passed)


@triton.jit(do_not_specialize=["seed", "first_step", "first_group", "offset", "factor_bits", "threshold_bits"])
def walk_kernel(
    start,  # float32 (walkers,)
    earlier,  # int32 (walkers,), passages before the first step; not used unless EARLIER
    x,  # float32 (walkers,)
    passages,  # int32 (walkers,); not used if PASSAGES is False
    scales,  # float32 (steps,)
    walkers,
    steps,
    factor_bits,  # -2 eps and the threshold, as the bits of doubles
    threshold_bits,
    seed,
    first_step,
    first_group,
    offset,  # walkers of the first group that belong to another call
    PASSAGES: tl.constexpr,
    EARLIER: tl.constexpr,
    BLOCK: tl.constexpr,
):
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    group = begin + tl.arange(0, BLOCK)
    first = group * 4 - offset
    inside0, inside1 = (first >= 0) & (first < walkers), (first >= -1) & (first + 1 < walkers)
    inside2, inside3 = (first >= -2) & (first + 2 < walkers), (first >= -3) & (first + 3 < walkers)
    x0, x1 = tl.load(start + first, inside0, other=0.0), tl.load(start + first + 1, inside1, other=0.0)
    x2, x3 = tl.load(start + first + 2, inside2, other=0.0), tl.load(start + first + 3, inside3, other=0.0)
    none = tl.full((BLOCK,), -1, tl.int32)
    p0, p1, p2, p3 = none, none, none, none
    if EARLIER:
        p0, p1 = tl.load(earlier + first, inside0, other=0), tl.load(earlier + first + 1, inside1, other=0)
        p2, p3 = tl.load(earlier + first + 2, inside2, other=0), tl.load(earlier + first + 3, inside3, other=0)
    factor, threshold = from_bits(factor_bits, tl.float32), from_bits(threshold_bits, tl.float32)
    in_stream = group + first_group
    low, high = (in_stream & 0xFFFFFFFF).to(tl.uint32), (in_stream >> 32).to(tl.uint32)
    for step in range(steps):
        w0, w1, w2, w3 = words_of(low, high, seed, first_step + step, _WALKERS)
        z0, z1, z2, z3 = normals(w0, w1, w2, w3, tl.load(scales + step), tl.float32)
        x0, x1, x2, x3 = _moved(x0, z0, factor), _moved(x1, z1, factor), _moved(x2, z2, factor), _moved(x3, z3, factor)
        if PASSAGES:
            number = tl.cast(first_step + step, tl.int32) + 1
            p0, p1 = _passed(p0, x0, threshold, number), _passed(p1, x1, threshold, number)
            p2, p3 = _passed(p2, x2, threshold, number), _passed(p3, x3, threshold, number)
    tl.store(x + first, x0, inside0)
    tl.store(x + first + 1, x1, inside1)
    tl.store(x + first + 2, x2, inside2)
    tl.store(x + first + 3, x3, inside3)
    if PASSAGES:
        tl.store(passages + first, p0, inside0)
        tl.store(passages + first + 1, p1, inside1)
        tl.store(passages + first + 2, p2, inside2)
        tl.store(passages + first + 3, p3, inside3)


def walk(walk: LaunchRequest) -> None:
    """Write ``walk.x`` and ``walk.passages``, in one launch."""
    block = block_for(walk.groups, BLOCK)
    walk_kernel[(triton.cdiv(walk.groups, block),)](
        walk.start, walk.earlier, walk.x, walk.passages, walk.scales, len(walk.x), len(walk.scales),
        bits_of(-2.0 * walk.step_size), bits_of(walk.threshold), signed_seed(walk.seed), walk.first_step,
        walk.first_group, walk.offset,
        PASSAGES=walk.passages is not None, EARLIER=walk.earlier is not None, BLOCK=block, num_warps=BLOCK // 32,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """Without first passages and with them; an item is a step of a walker."""
    return [
        TritonVariant(
            name=name,
            threads=BLOCK,
            items=4,
            unit="walker-steps",
            bytes_per_item=0.0,
            kernel=walk_kernel,
            signature={
                **dict.fromkeys(("start", "x"), "*fp32:16"),
                "earlier": None,
                "passages": "*i32:16" if passages else None,
                "scales": "*fp32:16",
                "walkers": "i32:16",
                "steps": "i32",
                **dict.fromkeys(("factor_bits", "threshold_bits", "seed"), "i64"),
                **dict.fromkeys(("first_step", "first_group", "offset"), "i32"),
                "PASSAGES": passages,
                "EARLIER": False,
                "BLOCK": BLOCK,
            },
        )
        for name, passages in VARIANTS.items()
    ]
