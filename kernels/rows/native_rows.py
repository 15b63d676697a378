"""Rows of tensors for the C++ kernels that include `rows.hpp`."""

import ctypes

import torch

from .layout import Layout, Rows

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
