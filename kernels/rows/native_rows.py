"""Rows of tensors for the C++ kernels that include `rows.hpp`."""

import ctypes
import functools

import torch
from torch import Tensor

from .layout import Layout, Rows, rows_of

CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}
"""The codes of dtypes, as `of_type` in rows.hpp has them."""


class _Layout(ctypes.Structure):
    _fields_ = (("strides", ctypes.c_int64 * 3), ("stride", ctypes.c_int64))

    @classmethod
    def of(cls, layout: Layout) -> "_Layout":
        return cls(layout.strides, layout.stride)


class NativeRows(ctypes.Structure):
    """`Rows` in rows.hpp: the rows of one tensor, or of two."""

    _fields_ = (("n", ctypes.c_int64), ("sizes", ctypes.c_int64 * 3), ("layouts", _Layout * 2))

    @classmethod
    def of(cls, rows: Rows) -> "NativeRows":
        both = (*rows.layouts, *rows.layouts)[:2]
        return cls(rows.n, rows.sizes, tuple(_Layout.of(layout) for layout in both))


def native_rows(dim: int, x: Tensor, *contiguous: Tensor) -> tuple[Tensor, NativeRows]:
    """As `as_rows`: ``x``, or a copy of it, and its rows together with those of a contiguous tensor of its shape."""
    rows = _native_rows(dim, x.shape, (x.stride(), *(each.stride() for each in contiguous)))
    return (x, rows) if rows is not None else native_rows(dim, x.contiguous(), *contiguous)


@functools.lru_cache(maxsize=256)
def _native_rows(dim: int, shape: torch.Size, strides: tuple[tuple[int, ...], ...]) -> NativeRows | None:
    """Kept, since it takes longer than the sums of a few thousand elements."""
    rows = rows_of(dim, shape, strides)
    return None if rows is None else NativeRows.of(rows)
