"""Small functions that several Triton kernels share: arguments in double precision, and rounding to storage types."""

import struct

import triton
import triton.language as tl

from .triton_runtime import INTERPRETS

_INTERPRETS = tl.constexpr(INTERPRETS)


def bits_of(value: float) -> int:
    """A number as the 64 bits of a double, for `from_bits`: a plain float argument would arrive in float32."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


@triton.jit
def from_bits(bits, DTYPE: tl.constexpr):
    """The number whose bits an integer argument holds, rounded to ``DTYPE``."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(DTYPE)


@triton.jit
def round_to(value, DTYPE: tl.constexpr):
    """``value`` rounded to the nearest ``DTYPE``, ties to even.

    Triton's interpreter cuts float32 to bfloat16 instead of rounding it, so there the bits are rounded here.
    """
    if _INTERPRETS and tl.bfloat16 == DTYPE:
        bits = value.to(tl.float32).to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(value == value, rounded, 0x7FC0)
        return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return value.to(DTYPE)


@triton.jit
def exact_dot_operand(value):
    """``value`` in a dtype whose products `tl.dot` computes: as it is, but float32 for bfloat16 in the interpreter.

    Triton's interpreter multiplies the bits of bfloat16 operands as if they were integers.
    """
    if _INTERPRETS:
        return value.to(tl.float32)
    else:
        return value
