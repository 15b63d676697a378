"""The one random stream in Triton: see `philox.py` for what the counter holds.

Per group of four elements: 10 rounds of two wide multiplications and four exclusive-ors.
"""

import triton
import triton.language as tl

from .philox import Stream

HIDDEN = tl.constexpr(int(Stream.HIDDEN))
VISIBLE = tl.constexpr(int(Stream.VISIBLE))
NOISE = tl.constexpr(int(Stream.NOISE))


@triton.jit
def random_words(group, seed, step, stream_and_tensor):
    """Four uint32 words for each int64 ``group``; ``step`` and ``stream_and_tensor`` are scalars."""
    low = (group & 0xFFFFFFFF).to(tl.uint32)
    high = ((group >> 32) & 0xFFFFFFFF).to(tl.uint32)
    third = (tl.zeros_like(group) + step).to(tl.uint32)
    fourth = (tl.zeros_like(group) + stream_and_tensor).to(tl.uint32)
    return tl.philox(seed, low, high, third, fourth)


@triton.jit
def uniform(word):
    """Uniform in [0, 1) for the test ``u < p``: the top 24 bits, float32."""
    return (word >> 8).to(tl.float32) * 5.9604644775390625e-08


@triton.jit
def _normal_pair(word0, word1, DTYPE: tl.constexpr):
    scale = tl.full((), 2.3283064365386963e-10, DTYPE)
    half = tl.full((), 1.1641532182693481e-10, DTYPE)
    radius = tl.sqrt(-2.0 * tl.log(word0.to(DTYPE) * scale + half))
    angle = tl.full((), 6.283185307179586, DTYPE) * (word1.to(DTYPE) * scale + half)
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def normals(word0, word1, word2, word3, DTYPE: tl.constexpr):
    """Four normal numbers from four words by Box and Muller, computed in ``DTYPE``; |z| <= 6.76."""
    z0, z1 = _normal_pair(word0, word1, DTYPE)
    z2, z3 = _normal_pair(word2, word3, DTYPE)
    return z0, z1, z2, z3


@triton.jit
def interleave4(a, b, c, d):
    """``[a0, b0, c0, d0, a1, ...]`` along the last dimension: the words of groups in the order of elements."""
    return tl.interleave(tl.interleave(a, c), tl.interleave(b, d))
