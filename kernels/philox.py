"""The one random stream of all kernels: Philox4x32-10, here in torch.

A draw is named by what it is for, never by how it is computed. The key is the 64-bit seed; the counter holds

====== =============================================================================
word   holds
====== =============================================================================
c0, c1 index of the group of four elements, 64 bits (element i: group i // 4, word i % 4)
c2     step (sweep, iteration)
c3     `Stream` in the low 8 bits, the tensor's number in the high 24
====== =============================================================================

so the same draws come out for every block size, launch count, sharding and backend. `philox.cuh` and
`philox_triton.py` are the same function in CUDA C and Triton.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

SEED_LIMIT = 1 << 64
STEP_LIMIT = 1 << 32
TENSOR_LIMIT = 1 << 24


class Stream(IntEnum):
    """What a draw is for. Two purposes never share a number; `philox.cuh` and `philox_triton.py` repeat them."""

    HIDDEN = 1
    VISIBLE = 2
    NOISE = 3


def check_counter(seed: int, step: int, tensor: int = 0, steps: int = 1, step_name: str = "step") -> None:
    """Raise ValueError, naming the argument, unless all fit the counter: ``steps`` steps from ``step`` on."""
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"seed must lie in [0, 2**64), got {seed}")
    if not 0 <= step <= STEP_LIMIT - steps:
        raise ValueError(f"{step_name} must lie in [0, 2**32 - {steps}] for a call of {steps} steps, got {step}")
    if not 0 <= tensor < TENSOR_LIMIT:
        raise ValueError(f"tensor number must lie in [0, 2**24), got {tensor}")


def signed_seed(seed: int) -> int:
    """The 64 bits of ``seed`` as a signed integer, which is what a kernel's ``long long`` parameter takes."""
    return seed - SEED_LIMIT if seed >= SEED_LIMIT // 2 else seed


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words for each counter.

    ``counter`` is four int64 tensors of values in [0, 2**32), broadcast against each other; so are the results.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = seed & _WORD, seed >> 32
    for _ in range(_ROUNDS):
        # A product may pass 2**63 and wrap, but its 64 bits stay right, so shifting and masking recovers both halves.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _WORD) ^ c1 ^ k0,
            product1 & _WORD,
            ((product0 >> 32) & _WORD) ^ c3 ^ k1,
            product0 & _WORD,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def random_words(groups: Tensor, seed: int, step: int, stream: Stream, tensor: int = 0) -> Tensor:
    """The words of the given groups of four elements: int64 in [0, 2**32), shape ``(*groups.shape, 4)``."""
    check_counter(seed, step, tensor)
    third = torch.full_like(groups, step)
    fourth = torch.full_like(groups, int(stream) | tensor << 8)
    return torch.stack(philox4x32((groups & _WORD, (groups >> 32) & _WORD, third, fourth), seed), dim=-1)


def uniforms(words: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) for the test ``u < p``: the top 24 bits, exact in float32 (float32 tensor)."""
    return (words >> 8).to(torch.float32) * 2.0**-24


def normals(words: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Four normal numbers from four words (last dimension) by Box and Muller; float64 values, |z| <= 6.76.

    The uniform ``word * 2**-32 + 2**-33``, in (0, 1], is rounded to ``dtype``, the precision in which a kernel
    computes; all after it is float64, so that this is the reference for kernels of either precision.
    """
    fractions = (words.to(dtype) * 2.0**-32 + 2.0**-33).to(torch.float64)
    radius = torch.sqrt(-2.0 * torch.log(fractions[..., 0::2]))
    angle = 2.0 * math.pi * fractions[..., 1::2]
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(-2)
