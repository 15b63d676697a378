"""Launches of CUDA C kernels that reduce or map rows. The shape of the rows chooses the template."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import Argument, CudaModule
from .checks import accumulation_dtype
from .layout import Layout, Rows, as_rows, is_wide
from .shapes import (
    LANES_WHERE_CLOSER,
    NARROW_LANES,
    THREADS,
    WIDE_LANES,
    Plan,
    Shape,
    chunk_of,
    counters,
    plans,
    shape_class,
    split_rows,
)
from .tuning import run_best

TYPES = {torch.float64: "double", torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class LayoutArgument(ctypes.Structure):
    """``Layout`` of `rows.cuh`."""

    _fields_ = tuple(
        (name, ctypes.c_longlong) for name in ("size1", "size2", "stride0", "stride1", "stride2", "stride")
    )

    @classmethod
    def of(cls, view: Rows, layout: Layout) -> "LayoutArgument":
        # size2 = 0 says that rows have one dimension.
        sizes = view.sizes[1:] if view.count != view.sizes[2] else (1, 0)
        return cls(*sizes, *layout.strides, layout.stride)


class RowsArgument(ctypes.Structure):
    """``Rows`` of `rows.cuh`."""

    _fields_ = (
        ("layout", LayoutArgument),
        *((name, ctypes.c_longlong) for name in ("count", "n", "splits", "length")),
    )


def templates(dtype: torch.dtype) -> list[tuple[str, int, int, str]]:
    """For each kernel of one dtype: the arguments ``T, LANES, WIDTH, ROWS_CLOSER``, the lanes, the width and a note."""
    plain = [(lanes, 1, False) for lanes in NARROW_LANES]
    plain += [(lanes, 16 // dtype.itemsize, False) for lanes in WIDE_LANES]
    return [
        (
            f"{TYPES[dtype]}, {lanes}, {width}, {str(closer).lower()}", lanes, width,
            ", rows closer" if closer else ", any strides" if width == 1 else "",
        )
        for lanes, width, closer in [*plain, (LANES_WHERE_CLOSER, 1, True)]
    ]  # fmt: skip


def row_module(source: Path, names: Sequence[str], dtype: torch.dtype) -> CudaModule:
    """The kernels ``names`` of a file that includes `rows.cuh`, for one dtype and all shapes of rows."""
    return CudaModule(source, [f"{name}<{template}>" for name in names for template, *_ in templates(dtype)])


def template_of(view: Rows, shape: Shape, dtype: torch.dtype) -> str:
    """The template arguments for rows of this shape."""
    return f"{TYPES[dtype]}, {shape.lanes}, {shape.width}, {str(view.are_closer).lower()}"


def reduce_rows(
    kernels: CudaModule,
    name: str,
    x: Tensor,
    dim: int,
    numbers_per_part: int,
    tensors: Sequence[Tensor | None],
    *numbers: Argument,
) -> None:
    """Launch kernel ``name`` of a `row_module`, which reduces each row of ``x`` (not empty) to one sum.

    ``tensors`` are results and further inputs with an element for each row. ``numbers_per_part`` is the size of a
    partial sum, in numbers of the precision of accumulation.
    """
    x, view = as_rows(dim, x)
    wide = is_wide(view, x)
    layout = LayoutArgument.of(view, view.layouts[0])

    def launch(plan: Plan) -> None:
        shape = plan.shape
        groups = -(-view.count // shape.rows)
        splits, steps = split_rows(view, groups, shape.step, x.element_size(), plan.blocks)
        parts = count = None
        if splits > 1:
            dtype = accumulation_dtype(x.dtype)
            parts = torch.empty((view.count, splits, numbers_per_part), dtype=dtype, device=x.device)
            count = counters(groups, x.device)
        argument = RowsArgument(layout, view.count, view.n, splits, steps * shape.step)
        kernels.launch(
            f"{name}<{template_of(view, shape, x.dtype)}>", (groups * splits,), (THREADS,),
            [x, *tensors, parts, count, argument, *numbers], device=x.device,
        )  # fmt: skip

    operation = kernels.source.stem
    key = shape_class(f"cupy {operation} {name}", x, view, wide)
    run_best(operation, key, plans(view, x.element_size(), wide, True), launch, x.device)


def map_rows(
    kernels: CudaModule, name: str, x: Tensor, dim: int, tensors: Sequence[Tensor], out: Tensor, *numbers: Argument
) -> None:
    """Launch kernel ``name`` of a `row_module`, which maps each element of ``x`` (not empty) to one of ``out``.

    ``out`` is contiguous. ``tensors`` have an element for each row.
    """
    x, view = as_rows(dim, x, out)
    wide = is_wide(view, x, out) and view.n % (16 // x.element_size()) == 0
    layouts = [LayoutArgument.of(view, layout) for layout in view.layouts]

    def launch(plan: Plan) -> None:
        shape = plan.shape
        column_blocks = -(-view.n // shape.step)
        kernels.launch(
            f"{name}<{template_of(view, shape, x.dtype)}>", (-(-view.count // shape.rows) * column_blocks,),
            (THREADS,), [*tensors, x, out, *layouts, view.count, view.n, column_blocks, *numbers], device=x.device,
        )  # fmt: skip

    operation = kernels.source.stem
    key = shape_class(f"cupy {operation} {name}", x, view, wide)
    run_best(operation, key, plans(view, x.element_size(), wide, False), launch, x.device)


def row_variants(module: Callable[[torch.dtype], CudaModule], traffic: Mapping[str, int]) -> list[KernelVariant]:
    """Every kernel of the modules. ``traffic``: how often each named kernel reads or writes an element."""
    return [
        CudaVariant(
            name=f"{name} {TYPES[dtype]}, {f'{lanes} lanes' if lanes != THREADS else 'block'} per row{note}",
            threads=THREADS, items=width * chunk_of(width, dtype.itemsize), unit="elements",
            bytes_per_item=times * dtype.itemsize, access_bytes=16 if width > 1 else 0, module=module(dtype),
            kernel=f"{name}<{template}>",
        )
        for dtype in TYPES
        for name, times in traffic.items()
        for template, lanes, width, note in templates(dtype)
    ]  # fmt: skip
