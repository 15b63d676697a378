"""Half a sweep of block Gibbs in Triton: product, bias, sigmoid and draw in one kernel.

Bound by arithmetic: 2 * given units operations for each drawn unit and product, against one byte of state. Logits,
probabilities and uniforms stay in registers; the kernels write only states. Each drawn unit costs a quarter of a Philox
call (one call serves four neighbouring units) and one exponential.

There are two kernels here; many sweeps in one launch are in `tensor_cores/`. `half_sweep_kernel` takes a plain
matrix. Products with 16-bit weights are exact on tensor cores, and only the float32 sum rounds; float32 weights use the
plain float32 product. `matrix_half_sweep_kernel` takes prepared weights, with one to three products on tensor cores:
parts of bfloat16 share one float32 sum, and each digit of int8 has an int32 sum. Both operands are contiguous along the
given units, which wgmma requires of 8-bit operands. Zeros beyond the last unit make masks for the loads of weights
unnecessary. Packed states are words of 32 units, which shifts unpack in registers. The test of a draw needs no
division. Where float32 is too near a tie to decide the draw of int8 digits (one unit in some 400,000, one tile in
fifty), the kernel computes the test in float64.

Prediction, nothing measured: for sm_90 the products are wgmma (HGMMA 64x128x16, IGMMA 64x64x32), which run at the full
matrix rate, unlike mma.sync. With the documented rates and the other figures of `tensor_cores.cu`, n = 1024 and many
chains on an H200 make between 290 and 520 (bf16), 140 and 170 (bf16x3), 230 and 350 (int8x3) updates/ns.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ..common.philox_triton import interleave4, normals, random_words, uniform
from ..common.triton_math import exact_dot_operand
from ..common.triton_runtime import INTERPRETS
from ..common.variants import KernelVariant, TritonVariant
from .prepared import PRODUCTS, Operand
from .request import LaunchRequest
from .tensor_cores import triton_resident
from .tensor_cores.triton_resident import resident_fits, resident_sweeps, resident_units
from .tensor_cores.triton_tile import (
    are_drawn,
    as_words,
    betas_of,
    exponential,
    inverse_temperature,
    logit_of,
    numbers_of,
    packed,
    tile_interpreted,
    unpacked,
)

__all__ = ["half_sweep", "resident_fits", "resident_sweeps", "resident_units", "variants"]

BLOCK_CHAINS = 64
BLOCK_UNITS = 64
BLOCK_GIVEN = 32


MATRIX_CHAINS = 128
MATRIX_GIVEN = 64
MATRIX_UNITS = {"bf16": 128, "bf16x3": 128, "int8x3": 64}
"""By precision: three sums of int32 leave registers for half as many units."""
MATRIX_WARPS = 8


@triton.jit(do_not_specialize=["beta_bits", "seed", "step", "first_chain"])
def half_sweep_kernel(
    given,  # (chains, given_units) contiguous: uint8, or float32 of real-valued units
    weights,  # (given_units, units), strides weight_stride_given, weight_stride_unit
    bias,  # (units,) contiguous
    out,  # (chains, units) contiguous: states if DRAW (float32 if REALS, otherwise uint8), or float32 probabilities
    clamped,  # bool (chains, units), strides clamped_stride_chain, clamped_stride_unit; read if CLAMPED
    previous,  # states (chains, units) contiguous; read if CLAMPED
    sigma,  # float32 of the visible units: the given ones if those are float32, the drawn ones if REALS
    betas,  # float64 (chains,), read if BETAS; otherwise beta_bits holds the common one
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
    first_step,  # int64 of one element, added to `step`, or None
    first_chain,
    STREAM: tl.constexpr,
    DRAW: tl.constexpr,
    REALS: tl.constexpr,
    CLAMPED: tl.constexpr,
    BETAS: tl.constexpr,
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
        if given.dtype.element_ty == tl.float32:
            state /= tl.load(sigma + k, mask=k_mask, other=1.0)[None, :]
        logit = tl.dot(state.to(weight.dtype), weight, logit, input_precision="ieee")
    offset = tl.load(bias + unit, mask=unit_mask, other=0.0).to(tl.float32)[None, :]
    beta = inverse_temperature(betas, chain, chain_mask, beta_bits, BETAS)
    mask = chain_mask[:, None] & unit_mask[None, :]
    place = chain[:, None] * units + unit[None, :]
    if DRAW:
        group = tl.program_id(1).to(tl.int64) * (BLOCK_UNITS // 4) + tl.arange(0, BLOCK_UNITS // 4)
        group = (first_chain + chain)[:, None] * ((units + 3) // 4) + group[None, :]
        if first_step is not None:
            step += tl.load(first_step)
        w0, w1, w2, w3 = random_words(group, seed, step, STREAM)
        if REALS:
            size = (1.0 / tl.sqrt(beta)).to(tl.float32)
            z0, z1, z2, z3 = normals(w0, w1, w2, w3, size, tl.float32)
            drawn = logit + interleave4(z0, z1, z2, z3)
            drawn = tl.load(sigma + unit, mask=unit_mask, other=0.0)[None, :] * drawn + offset
        else:
            p = 1.0 / (1.0 + tl.exp(-beta.to(tl.float32) * (logit + offset)))
            drawn = (uniform(interleave4(w0, w1, w2, w3)) < p).to(tl.uint8)
        if CLAMPED:
            held_place = chain[:, None] * clamped_stride_chain + unit[None, :] * clamped_stride_unit
            held = tl.load(clamped + held_place, mask=mask, other=0)
            drawn = tl.where(held != 0, tl.load(previous + place, mask=mask, other=0), drawn)
        tl.store(out + place, drawn, mask=mask)
    else:
        p = 1.0 / (1.0 + tl.exp(-beta.to(tl.float32) * (logit + offset)))
        tl.store(out + place, p, mask=mask)


@triton.jit(do_not_specialize=["beta_bits", "seed", "step", "first_chain"])
def matrix_half_sweep_kernel(
    given,  # uint8 (chains, given units) in rows of given_stride, zero beyond the units; int32 words of 32 if PACKED
    parts,  # (PRODUCTS, rows, part_columns) contiguous, part_size to a part: bfloat16, or int8 if DIGITS
    scale,  # float32 (rows,); read if DIGITS
    bias,  # float32 (units,)
    out,  # (chains, units) in rows of out_stride: states like given if DRAW, otherwise float32 probabilities
    clamped,  # bool (chains, units), strides clamped_stride_chain, clamped_stride_unit; read if CLAMPED
    previous,  # states (chains, units) in rows of previous_stride; read if CLAMPED
    betas,  # float64 (chains,), read if BETAS; otherwise beta_bits holds the common one
    chains,
    units,
    part_size,
    part_columns,
    given_stride,
    out_stride,
    previous_stride,
    clamped_stride_chain,
    clamped_stride_unit,
    beta_bits,
    seed,
    step,
    first_step,  # int64 of one element, added to `step`, or None
    first_chain,
    STREAM: tl.constexpr,
    PRODUCTS: tl.constexpr,
    DIGITS: tl.constexpr,
    DRAW: tl.constexpr,
    CLAMPED: tl.constexpr,
    BETAS: tl.constexpr,
    PACKED: tl.constexpr,
    BLOCK_CHAINS: tl.constexpr,
    BLOCK_UNITS: tl.constexpr,
    BLOCK_GIVEN: tl.constexpr,
):
    chain = tl.program_id(0).to(tl.int64) * BLOCK_CHAINS + tl.arange(0, BLOCK_CHAINS)
    unit = tl.program_id(1) * BLOCK_UNITS + tl.arange(0, BLOCK_UNITS)
    chain_mask = chain < chains
    SUM: tl.constexpr = tl.int32 if DIGITS else tl.float32
    first = tl.zeros((BLOCK_CHAINS, BLOCK_UNITS), SUM)
    second, third = first, first
    k = tl.arange(0, BLOCK_GIVEN)
    # Rows of bytes are aligned; this division lets Triton know it for any stride.
    given_step = given_stride if PACKED else given_stride // 16 * 16
    given_row = given + chain[:, None] * given_step
    weights = parts + unit.to(tl.int64)[None, :] * part_columns + k[:, None]
    for start in range(0, part_columns, BLOCK_GIVEN):
        if PACKED:
            words_left = given_stride - start // 32
            state = unpacked(given_row + start // 32, chain_mask, words_left, BLOCK_CHAINS, BLOCK_GIVEN)
            state = state.to(tl.int8) if DIGITS else (state * 0x3F80).to(tl.int16).to(tl.bfloat16, bitcast=True)
        else:
            inside = chain_mask[:, None] & (start + k < given_stride)[None, :]
            state = tl.load(given_row + start + k[None, :], mask=inside, other=0)
            if DIGITS:
                state = state.to(tl.int8, bitcast=True)
        if DIGITS:
            part = weights + start
            first = tl.dot(state, tl.load(part), first, out_dtype=tl.int32)
            second = tl.dot(state, tl.load(part + part_size), second, out_dtype=tl.int32)
            third = tl.dot(state, tl.load(part + part_size + part_size), third, out_dtype=tl.int32)
        else:
            part = weights + start
            for _ in tl.static_range(PRODUCTS):
                weight = exact_dot_operand(tl.load(part))
                first = tl.dot(state.to(weight.dtype), weight, first)
                part += part_size

    unit_mask = unit < units
    offset = tl.load(bias + unit, mask=unit_mask, other=0.0)[None, :]
    beta = inverse_temperature(betas, chain, chain_mask, beta_bits, BETAS)
    step_size = tl.load(scale + unit)[None, :] if DIGITS else 1.0
    mask = chain_mask[:, None] & unit_mask[None, :]
    # Offsets in a tile have 32 bits (`MOST_UNITS`): 64-bit addresses would fill the registers.
    out_step = tl.cast(out_stride, tl.int32) // 16 * 16 if DRAW and not PACKED else tl.cast(out_stride, tl.int32)
    first_unit = tl.program_id(1) * BLOCK_UNITS
    out_tile = out + tl.program_id(0).to(tl.int64) * BLOCK_CHAINS * out_step
    out_row = tl.arange(0, BLOCK_CHAINS)[:, None] * out_step
    out_place = out_row + tl.arange(0, BLOCK_UNITS)[None, :]
    if DRAW:
        group = tl.program_id(1).to(tl.int64) * (BLOCK_UNITS // 4) + tl.arange(0, BLOCK_UNITS // 4)
        group = (first_chain + chain)[:, None] * ((units + 3) // 4) + group[None, :]
        if first_step is not None:
            step += tl.load(first_step)
        w0, w1, w2, w3 = random_words(group, seed, step, STREAM)
        words = interleave4(w0, w1, w2, w3)
        drawn = are_drawn(first, second, third, step_size, offset, beta, words, DIGITS)
        if CLAMPED:
            held_place = chain[:, None] * clamped_stride_chain + unit[None, :] * clamped_stride_unit
            held = tl.load(clamped + held_place, mask=mask, other=0)
            kept_row = previous + chain[:, None] * previous_stride
            if PACKED:
                word = tl.program_id(1) * (BLOCK_UNITS // 32)
                kept = unpacked(kept_row + word, chain_mask, previous_stride - word, BLOCK_CHAINS, BLOCK_UNITS)
            else:
                kept = tl.load(kept_row + unit[None, :], mask=mask, other=0)
            drawn = tl.where(held != 0, kept != 0, drawn)
        drawn = drawn & unit_mask[None, :]
        if PACKED:
            bits = packed(drawn, BLOCK_CHAINS, BLOCK_UNITS)
            word = tl.program_id(1) * (BLOCK_UNITS // 32) + tl.arange(0, BLOCK_UNITS // 32)[None, :]
            tl.store(out_tile + (out_row + word), bits, mask=chain_mask[:, None] & (word < out_step))
        else:
            tl.store(
                out_tile + first_unit + out_place, drawn.to(tl.uint8), mask=chain_mask[:, None] & (unit < out_step)
            )
    else:
        e = exponential(logit_of(first, second, third, step_size, offset, DIGITS), beta)
        tl.store(out_tile + first_unit + out_place, 1.0 / (1.0 + e), mask=mask)


def half_sweep(half: LaunchRequest) -> None:
    """Write ``half.out``."""
    chains, units = len(half.out), half.units
    if chains == 0 or units == 0:
        return
    if isinstance(half.weights, Operand):
        _matrix_half_sweep(half)
        return
    draw = half.out.dtype.itemsize == 1 or half.draws_reals
    sigma = half.bias if half.sigma is None else half.sigma
    clamped, previous = _clamped(half)
    block_chains, block_units = BLOCK_CHAINS, BLOCK_UNITS
    if INTERPRETS:
        block_chains, block_units = tile_interpreted(chains, units, 16, BLOCK_UNITS)
    grid = (triton.cdiv(chains, block_chains), triton.cdiv(units, block_units))
    half_sweep_kernel[grid](
        half.given, half.weights, half.bias, half.out, clamped, previous, sigma, betas_of(half), chains,
        half.given.shape[1], units, *half.weights.stride(), *clamped.stride(), *numbers_of(half),
        STREAM=int(half.stream), DRAW=draw, REALS=half.draws_reals, CLAMPED=half.clamped is not None,
        BETAS=half.betas is not None, BLOCK_CHAINS=block_chains, BLOCK_UNITS=block_units, BLOCK_GIVEN=BLOCK_GIVEN,
        num_warps=4,
    )  # fmt: skip


def _matrix_half_sweep(half: LaunchRequest) -> None:
    operand, chains, units, draw = half.operand, len(half.out), half.units, half.out.dtype is half.given.dtype
    products, rows, columns = operand.parts.shape
    given, out = as_words(half.given), as_words(half.out)
    clamped, previous = _clamped(half)
    previous = as_words(previous)
    block_chains, block_units = MATRIX_CHAINS, MATRIX_UNITS[operand.precision]
    if INTERPRETS:
        block_chains, block_units = tile_interpreted(chains, units, 64 if half.packed else 16, block_units)
    grid = (triton.cdiv(chains, block_chains), triton.cdiv(units, block_units))
    matrix_half_sweep_kernel[grid](
        given, operand.parts, half.bias if operand.scale is None else operand.scale, half.bias, out, clamped, previous,
        betas_of(half), chains, units, rows * columns, columns, given.stride(0), out.stride(0), previous.stride(0),
        *clamped.stride(), *numbers_of(half), STREAM=int(half.stream), PRODUCTS=products,
        DIGITS=operand.scale is not None, DRAW=draw, PACKED=half.packed, CLAMPED=half.clamped is not None,
        BETAS=half.betas is not None, BLOCK_CHAINS=block_chains, BLOCK_UNITS=block_units, BLOCK_GIVEN=MATRIX_GIVEN,
        num_warps=MATRIX_WARPS,
    )  # fmt: skip


def _clamped(half: LaunchRequest) -> tuple[Tensor, Tensor]:
    """The clamped units and their states, or ``half.out`` in place of both, which the kernel then does not read."""
    if half.clamped is None or half.previous is None:
        return half.out, half.out
    return half.clamped, half.previous


def variants(*kinds: str) -> Sequence[KernelVariant]:
    """Those of ``binary`` visible units, of ``gaussian`` ones, or both."""
    kernels = {"binary": _binary_variants, "gaussian": _gaussian_variants}
    return [variant for kind in kinds or kernels for variant in kernels[kind]()]


def _gaussian_variants() -> Sequence[KernelVariant]:
    reals = {"given": "*fp32:16", "sigma": "*fp32:16"}
    drawn = {"out": "*fp32:16", "previous": "*fp32:16", "sigma": "*fp32:16", "REALS": True}
    return [
        _variant("fp32, from real-valued units", "fp32", True, False, 4, reals),
        _variant(
            "fp32, probabilities from real-valued units", "fp32", False, False, 4, {**reals, "previous": "*fp32:16"}
        ),
        _variant("fp32, to real-valued units", "fp32", True, False, 1, drawn),
    ]


KINDS = ((True, False), (True, True), (False, False))
"""Whether states are drawn or probabilities computed, and whether units are clamped."""


def _binary_variants() -> Sequence[KernelVariant]:
    """Each dtype of a plain matrix, and each precision of prepared weights."""
    plain = [
        _variant(f"{dtype}, {_what(draw, clamped)}", dtype, draw, clamped, 1, {})
        for dtype in ("fp32", "fp16", "bf16")
        for draw, clamped in KINDS
    ]
    prepared = [
        _matrix_variant(precision, draw, clamped, in_words)
        for precision in PRODUCTS
        for draw, clamped, in_words in (*((*kind, False) for kind in KINDS), (True, False, True), (True, True, True))
    ]
    return [*plain, *prepared, *triton_resident.variants()]


def _variant(
    name: str, dtype: str, draw: bool, clamped: bool, given_bytes: int, special: Mapping[str, Any]
) -> TritonVariant:
    """``special``: what differs from uint8 states in the signature."""
    return TritonVariant(
        name=f"half sweep {name}",
        threads=128,
        items=64 * BLOCK_UNITS * BLOCK_GIVEN // 128,
        unit="multiply-adds",
        bytes_per_item=given_bytes / BLOCK_UNITS + (4 if dtype == "fp32" else 2) / 64,
        kernel=half_sweep_kernel,
        signature={
            **_common_signature(half_sweep_kernel, draw, clamped),
            **dict.fromkeys(("chains", "given_units", "units", "weight_stride_given"), "i32:16"),
            **dict.fromkeys(("weights", "bias", "sigma"), f"*{dtype}:16"),
            "weight_stride_unit": 1,
            "REALS": False,
            "BLOCK_CHAINS": BLOCK_CHAINS,
            "BLOCK_UNITS": BLOCK_UNITS,
            "BLOCK_GIVEN": BLOCK_GIVEN,
            **special,
        },
    )


def _matrix_variant(precision: str, draw: bool, clamped: bool, in_words: bool) -> TritonVariant:
    digits, products, block_units = precision == "int8x3", PRODUCTS[precision], MATRIX_UNITS[precision]
    return TritonVariant(
        name=f"tensor-core half sweep {precision}, {_what(draw, clamped)}{', packed' if in_words else ''}",
        threads=32 * MATRIX_WARPS,
        items=MATRIX_CHAINS * block_units * MATRIX_GIVEN * products // (32 * MATRIX_WARPS),
        unit="multiply-adds",
        bytes_per_item=(0.125 if in_words else 1) / (block_units * products) + (1 if digits else 2) / MATRIX_CHAINS,
        kernel=matrix_half_sweep_kernel,
        signature={
            **_common_signature(matrix_half_sweep_kernel, draw, clamped),
            **dict.fromkeys(("chains", "units", "part_size", "part_columns"), "i32:16"),
            **dict.fromkeys(("given_stride", "out_stride", "previous_stride"), "i32:16"),
            **(dict.fromkeys(("given", "out", "previous"), "*i32:16") if in_words else {}),
            **dict.fromkeys(("scale", "bias"), "*fp32:16"),
            "PACKED": in_words,
            "parts": "*i8:16" if digits else "*bf16:16",
            "PRODUCTS": products,
            "DIGITS": digits,
            "BLOCK_CHAINS": MATRIX_CHAINS,
            "BLOCK_UNITS": block_units,
            "BLOCK_GIVEN": MATRIX_GIVEN,
        },
    )


def _common_signature(kernel: Any, draw: bool, clamped: bool) -> dict[str, Any]:
    return {
        **dict.fromkeys(kernel.arg_names, "i64"),
        "given": "*u8:16",
        "previous": "*u8:16",
        "out": "*u8:16" if draw else "*fp32:16",
        "clamped": "*i1:16",
        "betas": "*fp64:16",
        "clamped_stride_chain": "i32:16",
        "clamped_stride_unit": 1,
        "step": "i32",
        "first_step": None,
        "first_chain": "i32",
        "STREAM": 1,
        "DRAW": draw,
        "CLAMPED": clamped,
        "BETAS": False,
    }


def _what(draw: bool, clamped: bool) -> str:
    return ("states, clamped" if clamped else "states") if draw else "probabilities"
