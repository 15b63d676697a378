"""The random stream in Triton. `philox.py` explains the counter, `philox.cuh` the cost."""

import triton.language as tl

from .triton_math import log2_approximate, mul_wide, polynomial
from .triton_runtime import helper

# Coefficients of -log2(1 - x) / x in x, of sin(pi t) / t and (cos(pi t) - 1) / t^2 in t^2: as in philox.cuh.
LOGARITHM = tl.constexpr((1.442694987, 0.7213626719, 0.4802106442, 0.3719259494, 0.207625575, 0.4902241794))
SINE = tl.constexpr((3.14159258057, -5.16770690021, 2.55003164095, -0.598046450795, 0.0772222496608))
COSINE = tl.constexpr((-4.93480215625, 4.058709605, -1.33521616097, 0.234954171213, -0.0244210786439))
SINE_DOUBLE = tl.constexpr(
    (
        3.14159265358979323, -5.16771278004996856, 2.55016403987724191, -0.599264529317470772, 0.0821458865534378935,
        -0.00737043035711239479, 0.000466299174984444486, -0.0000219020311213810894, 7.6840271058548026e-7,
    )
)  # fmt: skip
COSINE_DOUBLE = tl.constexpr(
    (
        -4.93480220054467931, 4.05871212641676767, -1.33526276885455909, 0.235330630358067704, -0.0258068913773418004,
        0.00192957419193048453, -0.000104637433938787578, 4.30075860721754515e-6, -1.34381261063257999e-7,
    )
)  # fmt: skip


@helper
def random_words(group, seed, step, stream_and_tensor):
    """Four uint32 words for each int64 ``group``; ``step`` and ``stream_and_tensor`` are scalars."""
    low = (group & 0xFFFFFFFF).to(tl.uint32)
    high = ((group >> 32) & 0xFFFFFFFF).to(tl.uint32)
    return words_of(low, high, seed, step, stream_and_tensor)


@helper
def words_of(low, high, seed, step, stream_and_tensor):
    """Four uint32 words for each group, its number given as two words: ``low`` a block, ``high`` a scalar or a block.

    The compiler computes the part of the first rounds that depends on scalars alone only once.
    """
    zero = tl.zeros_like(low)
    c0, c1 = low, zero + high
    c2, c3 = (zero + step).to(tl.uint32), (zero + stream_and_tensor).to(tl.uint32)
    key = seed.to(tl.uint64)
    k0, k1 = key.to(tl.uint32), (key >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        product0, product1 = mul_wide(c0, 0xD2511F53), mul_wide(c2, 0xCD9E8D57)
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c1 = product1.to(tl.uint32)
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c3 = product0.to(tl.uint32)
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@helper
def uniform(word):
    """Uniform in [0, 1) for the test ``u < p``: the top 24 bits, float32."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08


@helper
def _radius(word, DTYPE: tl.constexpr):
    """``sqrt(-2 log f)`` of the uniform f of a word; see `radius_of` in philox.cuh."""
    scale = tl.full((), 2.3283064365386963e-10, DTYPE)
    half = tl.full((), 1.1641532182693481e-10, DTYPE)
    f = word.to(DTYPE) * scale + half
    if tl.float64 == DTYPE:
        return tl.sqrt(-2.0 * tl.log(f))
    else:
        rest = 1.0 - f
        near = rest * polynomial(rest, LOGARITHM)
        return tl.sqrt(1.3862943611 * tl.where(f > 0.75, near, -log2_approximate(f)))


@helper
def _normal_pair(word0, word1, scale, DTYPE: tl.constexpr):
    doubled = word1 << 1
    odd = (word1 ^ doubled) & 0x80000000  # an odd number of dropped half turns negates both, hence the radius
    radius = scale * _radius(word0, DTYPE)
    unit = tl.full((), 2.3283064365386963e-10, DTYPE)
    t = doubled.to(tl.int32, bitcast=True).to(DTYPE) * unit + unit
    t2 = t * t
    if tl.float64 == DTYPE:
        radius = tl.where(odd != 0, -radius, radius)
        cosine = t2 * polynomial(t2, COSINE_DOUBLE) + 1.0
        sine = t * polynomial(t2, SINE_DOUBLE)
    else:
        radius = (radius.to(tl.uint32, bitcast=True) ^ odd).to(tl.float32, bitcast=True)
        cosine = t2 * polynomial(t2, COSINE) + 1.0
        sine = t * polynomial(t2, SINE)
    return radius * cosine, radius * sine


@helper
def normals(word0, word1, word2, word3, scale, DTYPE: tl.constexpr):
    """Four normal numbers, times ``scale``, from four words by Box and Muller, computed in ``DTYPE``; |z| <= 6.76."""
    z0, z1 = _normal_pair(word0, word1, scale, DTYPE)
    z2, z3 = _normal_pair(word2, word3, scale, DTYPE)
    return z0, z1, z2, z3


@helper
def interleave4(a, b, c, d):
    """``[a0, b0, c0, d0, a1, ...]`` along the last dimension: the words of groups in the order of elements."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))


@helper
def interleave8(a, b, c, d, e, f, g, h):
    """As `interleave4`, for groups of eight."""
    return tl.interleave(interleave4(a, c, e, g), interleave4(b, d, f, h))
