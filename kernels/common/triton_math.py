"""Functions that several Triton kernels call: arguments in double precision, rounding, polynomials."""

import struct
from contextlib import suppress
from dataclasses import replace

import triton
import triton.language as tl

from .triton_runtime import INTERPRETS, helper

_INTERPRETS = tl.constexpr(INTERPRETS)

if INTERPRETS:  # by default it computes each sum of integers again in 64 bits, for a check that it then leaves out
    with suppress(ImportError, AttributeError, TypeError):  # in a later Triton it may have another name
        from triton.runtime.interpreter import interpreter_builder

        interpreter_builder.options = replace(interpreter_builder.options, sanitize_overflow=False)


def bits_of(value: float) -> int:
    """The 64 bits of ``value`` as a double, for `from_bits`: Triton passes a plain float argument as float32."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


@helper
def from_bits(bits, DTYPE: tl.constexpr):
    """The double with these bits, rounded to ``DTYPE``."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(DTYPE)


@helper
def round_to(value, DTYPE: tl.constexpr):
    """``value`` rounded to the nearest ``DTYPE``, ties to even.

    Triton's interpreter truncates float32 to bfloat16, so this rounds the bits there.
    """
    if _INTERPRETS and tl.bfloat16 == DTYPE:
        bits = value.to(tl.float32).to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = tl.where(value == value, rounded, 0x7FC0)
        return rounded.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return value.to(DTYPE)


@triton.constexpr_function
def _count(coefficients):
    return len(coefficients)


@triton.constexpr_function
def _from_last(coefficients, i):
    return coefficients[len(coefficients) - 1 - i]


@helper
def round_stochastically(value, random):
    """float32 to bfloat16, unbiased: adds 16 random bits to the 16 bits that are dropped, and truncates.

    ``random`` holds a uint32 word for each pair of neighbours, given twice: the first takes the low half, the second
    the high half. Infinity has no lower bits and stays. A NaN must not carry into a zero: the GPU's arithmetic produces
    only the NaN 0x7fffffff, so clamping the bits to 0x7fff0000 keeps it a NaN.
    """
    if _INTERPRETS:
        high = tl.arange(0, value.shape[0]) & 1
        bits = value.to(tl.uint32, bitcast=True)
        half = (random >> (high * 16).to(tl.uint32)) & 0xFFFF
        bits = tl.where(value == value, bits + half, 0x7FFF0000)
        return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:  # two neighbours at a time; a dot product with 1 and 0 picks a half
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 low, high;
            min.s32 low, $1, 0x7fff0000;
            min.s32 high, $2, 0x7fff0000;
            dp2a.lo.u32.u32 low, $3, 1, low;
            dp2a.lo.u32.u32 high, $3, 256, high;
            prmt.b32 $0, low, high, 0x7632;
            }""",
            "=r,r,r,r,r",
            [value, random],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=2,
        )


@helper
def polynomial(x, C: tl.constexpr):
    """``C[0] + C[1] x + C[2] x^2 + ...``, by Horner's rule, in the dtype of ``x``."""
    total = tl.full((), _from_last(C, 0), x.dtype)
    for i in tl.static_range(1, _count(C)):
        total = total * x + tl.full((), _from_last(C, i), x.dtype)
    return total


@helper
def mul_wide(x, FACTOR: tl.constexpr):
    """The uint64 product of uint32 numbers in one instruction; the compiler would use one for each half."""
    if _INTERPRETS:
        return x.to(tl.uint64) * FACTOR
    else:
        factor = tl.full((), FACTOR, tl.uint32)
        return tl.inline_asm_elementwise(
            "mul.wide.u32 $0, $1, $2;", "=l,r,r", [x, factor], dtype=tl.uint64, is_pure=True, pack=1
        )


@helper
def log2_approximate(x):
    """Base-2 logarithm of a normal float32 in one instruction: absolute error 2**-22 in (1/2, 2), else relative."""
    if _INTERPRETS:
        return tl.log2(x)
    else:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@helper
def exact_dot_operand(value):
    """``value`` as an operand of `tl.dot`; float32 in the interpreter, which would multiply the bits of bfloat16."""
    if _INTERPRETS:
        return value.to(tl.float32)
    else:
        return value


@triton.jit
def rounded_product(a, b):
    """``a * b`` in float32, rounded: keeps the compiler from fusing it with an addition that follows."""
    if _INTERPRETS:
        return a * b
    else:
        a, b = tl.broadcast(a, b)
        return tl.inline_asm_elementwise("mul.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, is_pure=True, pack=1)


@triton.jit
def _times(a, b):
    return a * b


@triton.jit
def log2_of_product(x):
    """``log2`` of the product over the last dimension of (rows, n), with one logarithm per row.

    Triton's interpreter would call the reduction's function for each pair of elements, so there logarithms are summed.
    """
    if _INTERPRETS:
        return tl.sum(tl.log2(x), axis=1)
    else:
        return tl.log2(tl.reduce(x, 1, _times))
