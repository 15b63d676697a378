"""Products of 0/1 states with real numbers on tensor cores, in Triton, for kernels of Boltzmann machines.

States are exact in every format of a tensor core. A float32 number is the exact sum of three bfloat16 numbers, so three
products replace one in float32, at a third of the bfloat16 rate; sums are float32.
"""

import triton
import triton.language as tl

from .triton_math import exact_dot_operand
from .triton_runtime import INTERPRETS

_INTERPRETS = tl.constexpr(INTERPRETS)

# Four neighbouring states at a time: each byte is widened to 16 bits, then multiplied by the bits of 1.0.
_STATES = """{{
    .reg .b32 low, high;
    prmt.b32 low, $2, 0, 0x4140;
    prmt.b32 high, $2, 0, 0x4342;
    mul.lo.u32 $0, low, {one};
    mul.lo.u32 $1, high, {one};
    }}"""
_FLOAT16_STATES = tl.constexpr(_STATES.format(one="0x3c00"))
_BFLOAT16_STATES = tl.constexpr(_STATES.format(one="0x3f80"))


@triton.jit
def state_operand(states, DTYPE: tl.constexpr):
    """uint8 states 0 and 1 as 16-bit floats: multiplied by the bits of 1.0, two states in one multiplication."""
    if _INTERPRETS:
        ONE: tl.constexpr = 0x3C00 if tl.float16 == DTYPE else 0x3F80
        return (states.to(tl.uint16) * ONE).to(DTYPE, bitcast=True).to(tl.float32)
    elif tl.float16 == DTYPE:
        return tl.inline_asm_elementwise(_FLOAT16_STATES, "=r,=r,r", [states], tl.float16, is_pure=True, pack=4)
    else:
        return tl.inline_asm_elementwise(_BFLOAT16_STATES, "=r,=r,r", [states], tl.bfloat16, is_pure=True, pack=4)


@triton.jit
def leading_bits(x):
    """float32 truncated to the upper half of its bits: a bfloat16 number, which cannot overflow."""
    return (x.to(tl.uint32, bitcast=True) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def value_operand(x):
    """float32 as bfloat16, for numbers that are exact in it."""
    return exact_dot_operand(x.to(tl.bfloat16))


@triton.jit
def add_product(states, values, total):
    """``total + states @ values`` for uint8 ``states``; ``values`` are float32, 16-bit floats, or uint8 states."""
    if values.dtype == tl.float32:
        operand = state_operand(states, tl.bfloat16)
        high = leading_bits(values)
        rest = values - high
        middle = leading_bits(rest)
        total = tl.dot(operand, value_operand(high), total, input_precision="ieee")
        total = tl.dot(operand, value_operand(middle), total, input_precision="ieee")
        return tl.dot(operand, value_operand(rest - middle), total, input_precision="ieee")
    elif values.dtype == tl.uint8:
        both = state_operand(states, tl.bfloat16)
        return tl.dot(both, state_operand(values, tl.bfloat16), total, input_precision="ieee")
    else:
        operand = state_operand(states, values.dtype)
        return tl.dot(operand, exact_dot_operand(values), total, input_precision="ieee")


@triton.jit
def fields(
    visible,  # uint8 (chains, visible_units) contiguous
    weights,  # (visible_units, hidden_units), strides below
    bias,  # (hidden_units,) contiguous
    chain,
    unit,
    chains,
    visible_units,
    hidden_units,
    weight_stride_visible,
    weight_stride_hidden,
    BLOCK_CHAINS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_VISIBLE: tl.constexpr,
):
    """``c_j + sum_i v_i W_ij`` for chains (BLOCK_CHAINS,) and hidden units (BLOCK_HIDDEN,); float32."""
    total = tl.zeros((BLOCK_CHAINS, BLOCK_HIDDEN), tl.float32)
    for start in range(0, visible_units, BLOCK_VISIBLE):
        k = start + tl.arange(0, BLOCK_VISIBLE).to(tl.int64)
        states = tl.load(
            visible + chain[:, None] * visible_units + k[None, :],
            mask=(chain < chains)[:, None] & (k < visible_units)[None, :],
            other=0,
        )
        weight = tl.load(
            weights + k[:, None] * weight_stride_visible + unit[None, :] * weight_stride_hidden,
            mask=(k < visible_units)[:, None] & (unit < hidden_units)[None, :],
            other=0.0,
        )
        total = add_product(states, weight, total)
    return total + tl.load(bias + unit, mask=unit < hidden_units, other=0.0).to(tl.float32)[None, :]
