"""A strided tensor as rows of ``n`` elements, for kernels that reduce or map one of its dimensions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

ROW_DIMS = 3
"""How many dimensions of rows a kernel can index. A tensor that needs more is first copied to contiguous memory."""


@dataclass(frozen=True)
class Layout:
    """Element ``k`` of row ``(i0, i1, i2)`` lies at offset ``sum_j i_j * strides[j] + k * stride``, in elements."""

    strides: tuple[int, int, int]
    stride: int


@dataclass(frozen=True)
class Rows:
    """Rows of ``n`` elements in one or more tensors. Row ``r`` belongs to element ``r`` of a contiguous result."""

    n: int
    sizes: tuple[int, int, int]
    layouts: tuple[Layout, ...]

    @property
    def count(self) -> int:
        return math.prod(self.sizes)

    @property
    def are_closer(self) -> bool:
        """Whether neighbours in the first tensor's memory belong to neighbouring rows, not to the same row."""
        return self.layouts[0].stride != 1 and self.layouts[0].strides[-1] == 1


def as_rows(dim: int, x: Tensor, *contiguous: Tensor) -> tuple[Tensor, Rows]:
    """``x``, and its rows along ``dim`` together with those of ``contiguous`` tensors of the same shape.

    If ``x`` has more than `ROW_DIMS` dimensions of rows that do not merge, a contiguous copy of it is returned.
    """
    rows = rows_of(dim, x.shape, tuple(tensor.stride() for tensor in (x, *contiguous)))
    return (x, rows) if rows is not None else as_rows(dim, x.contiguous(), *contiguous)


def rows_of(dim: int, shape: Sequence[int], strides: Sequence[Sequence[int]]) -> Rows | None:
    """The rows along ``dim`` of tensors of one shape; None if they have more than `ROW_DIMS` dimensions of rows.

    Neighbouring dimensions are merged where the strides of all tensors allow it.
    """
    merged: list[tuple[int, tuple[int, ...]]] = []
    for index, (size, *own) in enumerate(zip(shape, *strides, strict=True)):
        if index == dim or size == 1:
            continue
        if merged and merged[-1][1] == tuple(size * stride for stride in own):
            merged[-1] = (merged[-1][0] * size, tuple(own))
        else:
            merged.append((size, tuple(own)))
    if len(merged) > ROW_DIMS:
        return None
    padded = [(1, (0,) * len(strides))] * (ROW_DIMS - len(merged)) + merged
    sizes = tuple(size for size, _ in padded)
    layouts = tuple(
        Layout(tuple(each[number] for _, each in padded), own[dim])  # type: ignore[arg-type]
        for number, own in enumerate(strides)
    )
    return Rows(shape[dim], sizes, layouts)  # type: ignore[arg-type]


def is_wide(view: Rows, *tensors: Tensor) -> bool:
    """Whether 128-bit accesses are possible: rows are contiguous and begin at multiples of 16 bytes."""
    unit = 16 // tensors[0].element_size()
    return all(
        tensor.data_ptr() % 16 == 0 and layout.stride == 1 and all(stride % unit == 0 for stride in layout.strides)
        for tensor, layout in zip(tensors, view.layouts, strict=True)
    )
