"""The Langevin update in Triton: one launch for a list of tensors of any shapes and dtypes.

Bound by memory: per float32 parameter 12 B (parameter and gradient read, parameter written), per 16-bit one 6 B. The
noise costs a quarter of a Philox call and half a logarithm, square root, sine and cosine each, and hides behind that.

Design: a program finds in the table which tensor and which 4096 elements are its own; one Philox call gives the noise
of four neighbouring elements, in the registers in which they are loaded.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from ..philox import signed_seed
from ..philox_triton import NOISE, interleave4, normals, random_words
from ..triton_math import bits_of, from_bits, round_to
from ..variants import TritonVariant, Variant
from .update_list import UpdateList

BLOCK = 4096


@triton.jit
def _update_block(
    x, g, first, elements, number, half_bits, noise_bits, seed, step, DTYPE: tl.constexpr, WIDE: tl.constexpr,
    NOISY: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    element = first + tl.arange(0, BLOCK).to(tl.int64)
    mask = element < elements
    x = x.to(tl.pointer_type(DTYPE))
    g = g.to(tl.pointer_type(DTYPE))
    moved = tl.load(x + element, mask=mask, other=0.0).to(WIDE)
    moved -= from_bits(half_bits, WIDE) * tl.load(g + element, mask=mask, other=0.0).to(WIDE)
    if NOISY:
        group = first // 4 + tl.arange(0, BLOCK // 4).to(tl.int64)
        w0, w1, w2, w3 = random_words(group, seed, step, NOISE + number * 256)
        z0, z1, z2, z3 = normals(w0, w1, w2, w3, WIDE)
        moved += from_bits(noise_bits, WIDE) * interleave4(z0, z1, z2, z3)
    tl.store(x + element, round_to(moved, DTYPE), mask=mask)


@triton.jit(do_not_specialize=["half_bits", "noise_bits", "seed", "step"])
def update_kernel(
    tensors,  # int64 (tensors, 5): parameter, gradient, elements, dtype code, number (see update_list.py)
    blocks,  # int64 (programs, 2): tensor, first element
    half_bits,  # step size / 2
    noise_bits,  # sqrt(step size * temperature)
    seed,
    step,
    NOISY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row = tensors + tl.load(blocks + program * 2) * 5
    first = tl.load(blocks + program * 2 + 1)
    x = tl.load(row)
    g = tl.load(row + 1)
    elements = tl.load(row + 2)
    code = tl.load(row + 3)
    number = tl.load(row + 4)
    if code == 0:
        _update_block(
            x, g, first, elements, number, half_bits, noise_bits, seed, step, tl.float32, tl.float32, NOISY, BLOCK
        )
    elif code == 1:
        _update_block(
            x, g, first, elements, number, half_bits, noise_bits, seed, step, tl.float16, tl.float32, NOISY, BLOCK
        )
    elif code == 2:
        _update_block(
            x, g, first, elements, number, half_bits, noise_bits, seed, step, tl.bfloat16, tl.float32, NOISY, BLOCK
        )
    else:
        _update_block(
            x, g, first, elements, number, half_bits, noise_bits, seed, step, tl.float64, tl.float64, NOISY, BLOCK
        )


def update(updates: UpdateList, step_size: float, noise_scale: float, seed: int, step: int) -> None:
    """Update every parameter in place, in one launch."""
    tensors, blocks = updates.table(BLOCK)
    update_kernel[(len(blocks),)](
        tensors, blocks, bits_of(0.5 * step_size), bits_of(noise_scale), signed_seed(seed), step,
        NOISY=noise_scale != 0, BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip


def variants() -> Sequence[Variant]:
    """With noise and without; the code holds a branch for each dtype."""
    signature = {"tensors": "*i64:16", "blocks": "*i64:16", "half_bits": "i64", "noise_bits": "i64", "seed": "i64"}
    return [
        TritonVariant(
            name=f"update, {'with' if noisy else 'without'} noise",
            threads=256,
            items=BLOCK // 256,
            unit="parameters",
            bytes_per_item=12,
            kernel=update_kernel,
            signature={**signature, "step": "i32", "NOISY": noisy, "BLOCK": BLOCK},
        )
        for noisy in (False, True)
    ]
