"""Draws of the random stream for samplers written in torch: by C++ on a CPU that has a compiler, in torch elsewhere."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from ..common.dispatch import unavailable
from ..native import Keys, NativeModule
from ..numbers import integer
from ..philox import Stream, check_counter, check_stream, normals, random_words, uniforms

__all__ = ["normal_draws", "uniform_draws"]

ELEMENT_LIMIT = 1 << 62

MODULE = NativeModule(Path(__file__).with_name("draws.cpp"))


class Settings(ctypes.Structure):
    """`Settings` in draws.cpp."""

    _fields_ = (("keys", Keys), ("step", ctypes.c_uint32), ("stream", ctypes.c_uint32), ("tensor", ctypes.c_uint32))


def normal_draws(
    first: int, count: int, seed: int, step: int, stream: Stream, tensor: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Standard normal numbers of the elements ``first`` to ``first + count`` of a tensor: (count,), of ``dtype``.

    Element i takes number ``i % 4`` of group ``i // 4``: see `boltzbench.kernels.philox`. ``dtype`` is float32 or
    float64. Raises TypeError or ValueError for another dtype, and for numbers that do not fit the stream's counter.
    """
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"dtype must be float32 or float64, got {str(dtype).removeprefix('torch.')}")
    if unavailable("native", device) is None:
        return _native(f"normal_{str(dtype).removeprefix('torch.')}", first, count, seed, step, stream, tensor, dtype)
    words, skipped = _words(first, count, seed, step, stream, tensor, device)
    return normals(words, dtype).flatten()[skipped : skipped + count].to(dtype)


def uniform_draws(
    first: int, count: int, seed: int, step: int, stream: Stream, tensor: int, device: torch.device
) -> Tensor:
    """Uniform numbers in [0, 1) for the test ``u < p``, as `normal_draws` numbers them: float32 (count,)."""
    if unavailable("native", device) is None:
        return _native("uniform", first, count, seed, step, stream, tensor, torch.float32)
    words, skipped = _words(first, count, seed, step, stream, tensor, device)
    return uniforms(words).flatten()[skipped : skipped + count]


def _checked(first: int, count: int) -> tuple[int, int]:
    count = integer("count", count, 0, ELEMENT_LIMIT)
    return integer("first", first, 0, ELEMENT_LIMIT - count), count


def _native(
    function: str, first: int, count: int, seed: int, step: int, stream: Stream, tensor: int, dtype: torch.dtype
) -> Tensor:
    first, count = _checked(first, count)
    seed, step, tensor = check_counter(seed, step, tensor)
    number = check_stream(stream)
    drawn = torch.empty(count, dtype=dtype, device="cpu")
    MODULE.call(function, drawn, first, count, Settings(Keys.of(seed), step, number, tensor))
    return drawn


def _words(
    first: int, count: int, seed: int, step: int, stream: Stream, tensor: int, device: torch.device
) -> tuple[Tensor, int]:
    """The words of all groups with one of the elements, and the number of words before the first element's."""
    first, count = _checked(first, count)
    groups = torch.arange(first // 4, (first + count + 3) // 4, dtype=torch.int64, device=device)
    return random_words(groups, seed, step, stream, tensor), first % 4
