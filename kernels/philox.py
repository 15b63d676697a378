"""The one random stream of all kernels: Philox4x32-10, here in torch.

A draw is named by what it is for, never by how it is computed. The key is the 64-bit seed; the counter holds

====== =============================================================================
word   holds
====== =============================================================================
c0, c1 index of the group of four elements, 64 bits (element i: group i // 4, word i % 4)
c2     step (sweep, iteration)
c3     `Stream` in the low 8 bits, the tensor's number in the high 24
====== =============================================================================

(in the stream ``ROUNDING`` of groups of eight: an element needs 16 bits, which `halves` takes from the words; in those
of the sites of an Ising lattice 32 sites share eight groups, which `ising` numbers; in that of a spin glass 32 walkers)

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
    """What a draw is for. Two purposes never share a number; `philox.cuh` and `philox_triton.py` repeat them.

    ``ROUNDING`` decides on which side a number is rounded; see `halves`.
    """

    HIDDEN = 1
    VISIBLE = 2
    NOISE = 3
    ROUNDING = 4
    EVEN_SITES = 5
    ODD_SITES = 6
    SWAP = 7
    WALKERS = 9
    GLASS_SITES = 10
    BOLTZMANN_UNITS = 13


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


def round_keys(seed: int) -> list[tuple[int, int]]:
    """The keys of the rounds, low and high word: the same for every counter."""
    low, high = seed & _WORD, seed >> 32
    return [((low + i * _KEY_STEPS[0]) & _WORD, (high + i * _KEY_STEPS[1]) & _WORD) for i in range(_ROUNDS)]


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words for each counter.

    ``counter`` is four int64 tensors of values in [0, 2**32), broadcast against each other; so are the results.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in round_keys(seed):
        # A product may pass 2**63 and wrap, but its 64 bits stay right, so shifting and masking recovers both halves.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _WORD) ^ c1 ^ k0,
            product1 & _WORD,
            ((product0 >> 32) & _WORD) ^ c3 ^ k1,
            product0 & _WORD,
        )
    return c0, c1, c2, c3


def random_words(groups: Tensor, seed: int, step: int | Tensor, stream: Stream, tensor: int = 0) -> Tensor:
    """The words of the given groups of four elements: int64 in [0, 2**32), shape ``(*groups.shape, 4)``.

    ``step`` may be an int64 tensor of one element, which is not looked at: its low 32 bits count.
    """
    check_counter(seed, 0 if isinstance(step, Tensor) else step, tensor)
    third = (step & _WORD).expand_as(groups) if isinstance(step, Tensor) else torch.full_like(groups, step)
    fourth = torch.full_like(groups, int(stream) | tensor << 8)
    return torch.stack(philox4x32((groups & _WORD, (groups >> 32) & _WORD, third, fourth), seed), dim=-1)


def uniforms(words: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) for the test ``u < p``: the top 24 bits, exact in float32 (float32 tensor)."""
    return (words >> 8).to(torch.float32) * 2.0**-24


def halves(words: Tensor) -> Tensor:
    """Eight 16-bit numbers from four words (last dimension), the low half of a word first: int64 in [0, 2**16).

    Element ``i`` takes number ``i % 8`` of group ``i // 8``.
    """
    return torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(-2)


def fractions(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Uniform numbers for logarithms, ``word * 2**-32 + 2**-33`` in (0, 1], rounded to ``dtype``."""
    return words.to(dtype) * 2.0**-32 + 2.0**-33


def polar(fraction: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Radius and angle of Box and Muller, in the dtype of ``fraction``: two normals are ``r cos(a)`` and ``r sin(a)``.

    The radius is ``sqrt(-2 log fraction)``. The angle is ``2 pi (word * 2**-32 + 2**-33)`` brought to [-pi/2, pi/2]
    by dropping half turns, which are bits of the word; an odd number of them gives the radius a minus sign.
    """
    radius = torch.sqrt(-2.0 * torch.log(fraction))
    quarters = word >> 30
    part = (word << 1) - (((quarters + 1) >> 1) << 32)  # of half a turn, signed, in units of 2**-32
    angle = math.pi * (part.to(fraction.dtype) * 2.0**-32 + 2.0**-32)
    return torch.where((quarters == 1) | (quarters == 2), -radius, radius), angle


def normals(words: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Four normal numbers from four words (last dimension) by Box and Muller; float64 values, |z| <= 6.76.

    The uniform of the radius is rounded to ``dtype``, the precision in which a kernel computes; all else is float64,
    so that this is the reference for kernels of either precision.
    """
    radius, angle = polar(fractions(words[..., 0::2], dtype).to(torch.float64), words[..., 1::2])
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(-2)
