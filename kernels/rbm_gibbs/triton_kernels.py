"""Half a sweep of block Gibbs in Triton: product, bias, sigmoid and draw in one kernel.

Bound by arithmetic: 2 * given units operations per drawn unit, against a byte for each state. Logits, probabilities
and uniforms stay in registers; only states are written. Per drawn unit a quarter of a Philox call (one call serves
four neighbouring units) and one exponential.

States are 0 or 1, so a product with 16-bit weights is exact in its tensor-core format and only the sum rounds
(float32). float32 weights take the plain float32 product.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from ..philox import signed_seed
from ..philox_triton import interleave4, random_words, uniform
from ..triton_math import bits_of, exact_dot_operand, from_bits
from ..triton_runtime import INTERPRETS
from ..variants import TritonVariant, Variant
from .half_sweep import HalfSweep

BLOCK_CHAINS = 1024 if INTERPRETS else 64
"""Interpreted, a program costs the same few milliseconds whatever its tile."""
BLOCK_UNITS = 64
BLOCK_GIVEN = 32


@triton.jit(do_not_specialize=["beta_bits", "seed", "step", "first_chain"])
def half_sweep_kernel(
    given,  # uint8 (chains, given_units) contiguous
    weights,  # (given_units, units), strides weight_stride_given, weight_stride_unit
    bias,  # (units,) contiguous
    out,  # (chains, units) contiguous: uint8 states, or float32 probabilities unless DRAW
    clamped,  # bool (chains, units), strides clamped_stride_chain, clamped_stride_unit; read if CLAMPED
    previous,  # uint8 (chains, units) contiguous; read if CLAMPED
    chains,
    given_units,
    units,
    weight_stride_given,
    weight_stride_unit,
    clamped_stride_chain,
    clamped_stride_unit,
    beta_bits,
    seed,
    step,
    first_chain,
    STREAM: tl.constexpr,
    DRAW: tl.constexpr,
    CLAMPED: tl.constexpr,
    BLOCK_CHAINS: tl.constexpr,
    BLOCK_UNITS: tl.constexpr,
    BLOCK_GIVEN: tl.constexpr,
):
    chain = tl.program_id(0).to(tl.int64) * BLOCK_CHAINS + tl.arange(0, BLOCK_CHAINS)
    unit = tl.program_id(1).to(tl.int64) * BLOCK_UNITS + tl.arange(0, BLOCK_UNITS)
    chain_mask = chain < chains
    unit_mask = unit < units
    logit = tl.zeros((BLOCK_CHAINS, BLOCK_UNITS), tl.float32)
    for start in range(0, given_units, BLOCK_GIVEN):
        k = start + tl.arange(0, BLOCK_GIVEN).to(tl.int64)
        k_mask = k < given_units
        state = tl.load(
            given + chain[:, None] * given_units + k[None, :], mask=chain_mask[:, None] & k_mask[None, :], other=0
        )
        weight = tl.load(
            weights + k[:, None] * weight_stride_given + unit[None, :] * weight_stride_unit,
            mask=k_mask[:, None] & unit_mask[None, :],
            other=0.0,
        )
        weight = exact_dot_operand(weight)
        logit = tl.dot(state.to(weight.dtype), weight, logit, input_precision="ieee")
    logit += tl.load(bias + unit, mask=unit_mask, other=0.0).to(tl.float32)[None, :]
    p = 1.0 / (1.0 + tl.exp(-from_bits(beta_bits, tl.float32) * logit))
    mask = chain_mask[:, None] & unit_mask[None, :]
    place = chain[:, None] * units + unit[None, :]
    if DRAW:
        group = tl.program_id(1).to(tl.int64) * (BLOCK_UNITS // 4) + tl.arange(0, BLOCK_UNITS // 4)
        group = (first_chain + chain)[:, None] * ((units + 3) // 4) + group[None, :]
        w0, w1, w2, w3 = random_words(group, seed, step, STREAM)
        drawn = (uniform(interleave4(w0, w1, w2, w3)) < p).to(tl.uint8)
        if CLAMPED:
            held_place = chain[:, None] * clamped_stride_chain + unit[None, :] * clamped_stride_unit
            held = tl.load(clamped + held_place, mask=mask, other=0)
            drawn = tl.where(held != 0, tl.load(previous + place, mask=mask, other=0), drawn)
        tl.store(out + place, drawn, mask=mask)
    else:
        tl.store(out + place, p, mask=mask)


def half_sweep(half: HalfSweep) -> None:
    """Write ``half.out``."""
    chains, units = half.out.shape
    if chains == 0 or units == 0:
        return
    draw = half.out.dtype.itemsize == 1
    clamped, previous = (half.clamped, half.previous) if half.clamped is not None else (half.out, half.out)
    grid = (triton.cdiv(chains, BLOCK_CHAINS), triton.cdiv(units, BLOCK_UNITS))
    half_sweep_kernel[grid](
        half.given, half.weights, half.bias, half.out, clamped, previous, chains, half.given.shape[1], units,
        *half.weights.stride(), *clamped.stride(), bits_of(half.beta), signed_seed(half.seed), half.step,
        half.first_chain, STREAM=int(half.stream), DRAW=draw, CLAMPED=half.clamped is not None,
        BLOCK_CHAINS=BLOCK_CHAINS, BLOCK_UNITS=BLOCK_UNITS, BLOCK_GIVEN=BLOCK_GIVEN, num_warps=4,
    )  # fmt: skip


def variants() -> Sequence[Variant]:
    """States drawn, with and without clamped units, and probabilities; for each dtype of the weights."""
    found: list[Variant] = []
    for dtype, size in (("fp32", 4), ("fp16", 2), ("bf16", 2)):
        for draw, clamped in ((True, False), (True, True), (False, False)):
            signature = {
                **dict.fromkeys(half_sweep_kernel.arg_names, "i64"),
                **dict.fromkeys(("chains", "given_units", "units"), "i32:16"),
                "given": "*u8:16",
                "weights": f"*{dtype}:16",
                "bias": f"*{dtype}:16",
                "previous": "*u8:16",
                "out": "*u8:16" if draw else "*fp32:16",
                "clamped": "*i1:16",
                "weight_stride_given": "i32:16",
                "weight_stride_unit": 1,
                "clamped_stride_chain": "i32:16",
                "clamped_stride_unit": 1,
                "step": "i32",
                "first_chain": "i32",
                "STREAM": 1,
                "DRAW": draw,
                "CLAMPED": clamped,
                "BLOCK_CHAINS": 64,
                "BLOCK_UNITS": BLOCK_UNITS,
                "BLOCK_GIVEN": BLOCK_GIVEN,
            }
            what = ("states, clamped" if clamped else "states") if draw else "probabilities"
            found.append(
                TritonVariant(
                    name=f"half sweep {dtype}, {what}",
                    threads=128,
                    items=64 * BLOCK_UNITS * BLOCK_GIVEN // 128,
                    unit="multiply-adds",
                    bytes_per_item=1 / BLOCK_UNITS + size / 64,
                    kernel=half_sweep_kernel,
                    signature=signature,
                )
            )
    return found
