"""Small functions that several Triton kernels share: arguments in double precision, rounding, polynomials."""

import struct

import triton
import triton.language as tl

from .triton_runtime import INTERPRETS, helper

_INTERPRETS = tl.constexpr(INTERPRETS)


def bits_of(value: float) -> int:
    """A number as the 64 bits of a double, for `from_bits`: a plain float argument would arrive in float32."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


@helper
def from_bits(bits, DTYPE: tl.constexpr):
    """The number whose bits an integer argument holds, rounded to ``DTYPE``."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True).to(DTYPE)


@helper
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


@triton.constexpr_function
def _count(coefficients):
    return len(coefficients)


@triton.constexpr_function
def _from_last(coefficients, i):
    return coefficients[len(coefficients) - 1 - i]


@helper
def round_stochastically(value, random):
    """float32 as bfloat16: away from zero if the lower 16 bits carry when 16 random ones are added to them.

    That happens so often that the mean is right. ``random`` is a uint32 word for each two neighbours, given twice: the
    first takes its low half, the second the high one. Infinity has no lower bits, and stays. A NaN must not carry into
    a zero: where kernels run, arithmetic makes but one, 0x7fffffff, the only number's bits beyond 0x7fff0000.
    """
    if _INTERPRETS:
        high = tl.arange(0, value.shape[0]) & 1
        bits = value.to(tl.uint32, bitcast=True)
        half = (random >> (high * 16).to(tl.uint32)) & 0xFFFF
        bits = tl.where(value == value, bits + half, 0x7FFF0000)
        return (bits >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:  # two neighbours at a time; a half is picked by a product with 1 and 0
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
    """The uint64 product of uint32 numbers, in one instruction: the compiler would take one for each half."""
    if _INTERPRETS:
        return x.to(tl.uint64) * FACTOR
    else:
        factor = tl.full((), FACTOR, tl.uint32)
        return tl.inline_asm_elementwise(
            "mul.wide.u32 $0, $1, $2;", "=l,r,r", [x, factor], dtype=tl.uint64, is_pure=True, pack=1
        )


@helper
def log2_approximate(x):
    """Base-2 logarithm of a normal float32, one instruction: within 2**-22 in (1/2, 2), relatively outside of it."""
    if _INTERPRETS:
        return tl.log2(x)
    else:
        return tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )


@helper
def exact_dot_operand(value):
    """``value`` in a dtype whose products `tl.dot` computes: as it is, but float32 for bfloat16 in the interpreter.

    Triton's interpreter multiplies the bits of bfloat16 operands as if they were integers.
    """
    if _INTERPRETS:
        return value.to(tl.float32)
    else:
        return value


@triton.jit
def rounded_product(a, b):
    """``a * b`` in float32, rounded: the compiler would fuse a product with a sum that follows."""
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
    """``log2`` of the product over the last dimension of (rows, n), one logarithm for each row.

    Triton's interpreter calls the function of a reduction for each pair of elements, so there logarithms are summed.
    """
    if _INTERPRETS:
        return tl.sum(tl.log2(x), axis=1)
    else:
        return tl.log2(tl.reduce(x, 1, _times))
