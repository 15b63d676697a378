"""The random stream that all kernels share, Philox4x32-10, in torch.

The counter of a draw names what the draw is for, never how it is computed. The key is the 64-bit seed; the counter
holds

====== =============================================================================
word   holds
====== =============================================================================
c0, c1 index of the group of four elements, 64 bits (element i: group i // 4, word i % 4)
c2     step (sweep, iteration)
c3     `Stream` in the low 8 bits, the tensor's number in the high 24
====== =============================================================================

so the draws are the same for every block size, launch count, sharding and backend. Three streams count differently: an
element of ``ROUNDING`` needs 16 bits, so eight elements share a group (see `halves`); 32 sites of an Ising lattice, and
32 walkers of a spin glass of bonds (``GLASS_SITES``), share eight groups, numbered by their kernels.

`common/philox.cuh` and `common/philox_triton.py` are the same function in CUDA C and Triton.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

from .numbers import integer

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

SEED_LIMIT = 1 << 64
STEP_LIMIT = 1 << 32
TENSOR_LIMIT = 1 << 24


class Stream(IntEnum):
    """What a draw is for; no two purposes share a number. CUDA C knows the members as ``STREAM_<NAME>``.

    A purpose is shared by the methods for it: all Langevin updates of tensors draw ``NOISE``, and block Gibbs of binary
    and of Gaussian machines draws ``HIDDEN`` and ``VISIBLE``. ``SAMPLER`` serves the samplers of `boltzbench validate`
    that are written in torch. ``ROUNDING`` decides whether a number is rounded up or down; see `halves`.
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
    GLASS_LINKS = 14
    INITIAL_UNITS = 15
    INITIAL_SPINS = 16
    INITIAL_WEIGHTS = 17
    DATA_ORDER = 18
    SAMPLER = 19


def check_counter(
    seed: int, step: int, tensor: int = 0, steps: int = 1, step_name: str = "step"
) -> tuple[int, int, int]:
    """``seed``, ``step`` and ``tensor`` as Python integers.

    Raises TypeError or ValueError, naming the argument, unless all are integers that fit the counter, with ``steps``
    steps from ``step`` on.
    """
    steps = integer("steps", steps, 0, STEP_LIMIT)
    call = f" for a call of {steps} steps" if steps != 1 else ""
    return (
        _require_seed(seed),
        integer(step_name, step, 0, STEP_LIMIT - steps, call),
        integer("tensor", tensor, 0, TENSOR_LIMIT - 1),
    )


def check_stream(stream: Stream) -> int:
    """The number of ``stream``, which fits 8 bits of the counter. Raises TypeError or ValueError otherwise."""
    return integer("stream", stream, 0, 255)


def _require_seed(seed: int) -> int:
    return integer("seed", seed, 0, SEED_LIMIT - 1)


def signed_seed(seed: int) -> int:
    """The 64 bits of ``seed`` as a signed integer, for a kernel's ``long long`` parameter."""
    seed = _require_seed(seed)
    return seed - SEED_LIMIT if seed >= SEED_LIMIT // 2 else seed


def round_keys(seed: int) -> list[tuple[int, int]]:
    """Low and high word of the key of each round. They do not depend on the counter."""
    seed = _require_seed(seed)
    low, high = seed & _WORD, seed >> 32
    return [((low + i * _KEY_STEPS[0]) & _WORD, (high + i * _KEY_STEPS[1]) & _WORD) for i in range(_ROUNDS)]


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random words for each counter.

    ``counter`` holds four int64 tensors with values in [0, 2**32), which broadcast; the results are like them.
    Raises TypeError for another dtype.
    """
    for index, word in enumerate(counter):
        _require_int64(f"counter[{index}]", word)
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)  # type: ignore[no-untyped-call]
    for k0, k1 in round_keys(seed):
        # A product may wrap at 2**63, but its 64 bits are right; the masks come last.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (product1 >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_WORD)
        c2 = (product0 >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_WORD)
        c1, c3 = product1, product0
    return c0, c1 & _WORD, c2, c3 & _WORD


def random_words(groups: Tensor, seed: int, step: int | Tensor, stream: Stream, tensor: int = 0) -> Tensor:
    """The words of the given groups of four elements: int64 in [0, 2**32), shape ``(*groups.shape, 4)``.

    ``groups`` is int64. ``step`` may be an int64 tensor of one element, whose low 32 bits count; its value is not
    checked.
    """
    _require_int64("groups", groups)
    if isinstance(step, Tensor) and (step.dtype is not torch.int64 or step.numel() != 1):
        raise TypeError(f"step must be a number, or an int64 tensor of one element, got {step.dtype}")
    seed, number, tensor = check_counter(seed, 0 if isinstance(step, Tensor) else step, tensor)
    stream_number = check_stream(stream)
    third = (step & _WORD).expand_as(groups) if isinstance(step, Tensor) else torch.full_like(groups, number)
    fourth = torch.full_like(groups, stream_number | tensor << 8)
    return torch.stack(philox4x32((groups & _WORD, (groups >> 32) & _WORD, third, fourth), seed), dim=-1)


def _require_int64(name: str, value: object) -> None:
    if not isinstance(value, Tensor) or value.dtype is not torch.int64 or value.layout is not torch.strided:
        got = f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a dense int64 tensor, got {got}")


def uniforms(words: Tensor) -> Tensor:
    """Uniform numbers in [0, 1) for the test ``u < p``: the top 24 bits, exact in float32 (float32 tensor).

    An event of probability p in ``(0, 2**-24)`` happens with probability ``2**-24`` (6e-8).
    """
    return (words >> 8).to(torch.float32) * 2.0**-24


def halves(words: Tensor) -> Tensor:
    """Eight 16-bit numbers from four words (last dimension), the low half of a word first: int64 in [0, 2**16).

    Element ``i`` takes number ``i % 8`` of group ``i // 8``.
    """
    return torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(-2)


def fractions(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Uniform numbers for logarithms, ``word * 2**-32 + 2**-33`` in (0, 1], rounded to float32 or float64."""
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be float32 or float64, got {str(dtype).removeprefix('torch.')}")
    return words.to(dtype) * 2.0**-32 + 2.0**-33


def polar(fraction: Tensor, word: Tensor) -> tuple[Tensor, Tensor]:
    """Radius and angle of Box and Muller, in the dtype of ``fraction``: two normals are ``r cos(a)`` and ``r sin(a)``.

    The radius is ``sqrt(-2 log fraction)``. The angle is ``2 pi (word * 2**-32 + 2**-33)`` brought to [-pi/2, pi/2]
    by dropping half turns, which are bits of the word; an odd number of half turns negates the radius.
    """
    radius = torch.sqrt(-2.0 * torch.log(fraction))
    quarters = word >> 30
    part = (word << 1) - (((quarters + 1) >> 1) << 32)  # of half a turn, signed, in units of 2**-32
    angle = math.pi * (part.to(fraction.dtype) * 2.0**-32 + 2.0**-32)
    return torch.where((quarters == 1) | (quarters == 2), -radius, radius), angle


def normals(words: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Four normal numbers from four words (last dimension) by Box and Muller; float64 values, |z| <= 6.76.

    The uniform of the radius is rounded to ``dtype``, the precision of the kernel; the rest is float64, so that this is
    the reference for kernels of either precision.
    """
    radius, angle = polar(fractions(words[..., 0::2], dtype).to(torch.float64), words[..., 1::2])
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(-2)
