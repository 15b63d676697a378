"""Log-sum-exp in CUDA C: choosing a kernel of `logsumexp.cu` by the shape of the rows, and launching it."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import Argument, CudaModule
from ..rows.layout import Layout, Rows, as_rows, is_wide
from ..rows.shapes import (
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
from ..rows.tuning import run_best

TYPES = {torch.float64: "double", torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}


class LayoutArgument(ctypes.Structure):
    """``Layout`` of `rows.cuh`."""

    _fields_ = tuple(
        (name, ctypes.c_longlong) for name in ("size1", "size2", "stride0", "stride1", "stride2", "stride")
    )

    @classmethod
    def of(cls, view: Rows, layout: Layout) -> "LayoutArgument":
        # A second size of 0 stands for rows in one dimension.
        sizes = view.sizes[1:] if view.count != view.sizes[2] else (1, 0)
        return cls(*sizes, *layout.strides, layout.stride)


class RowsArgument(ctypes.Structure):
    """``Rows`` of `rows.cuh`."""

    _fields_ = (
        ("layout", LayoutArgument),
        *((name, ctypes.c_longlong) for name in ("count", "n", "splits", "length")),
    )


def templates(dtype: torch.dtype) -> list[tuple[str, int, int, str]]:
    """Of every kernel for one dtype: the arguments ``T, LANES, WIDTH, ROWS_CLOSER``, lanes, width, and a remark."""
    plain = [(lanes, 1, False) for lanes in NARROW_LANES]
    plain += [(lanes, 16 // dtype.itemsize, False) for lanes in WIDE_LANES]
    return [
        (
            f"{TYPES[dtype]}, {lanes}, {width}, {str(closer).lower()}", lanes, width,
            ", rows closer" if closer else ", any strides" if width == 1 else "",
        )
        for lanes, width, closer in [*plain, (LANES_WHERE_CLOSER, 1, True)]
    ]  # fmt: skip


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernels for one dtype."""
    kernels = [f"{name}<{template}>" for name in ("forward", "backward") for template, *_ in templates(dtype)]
    return CudaModule(Path(__file__).with_name("logsumexp.cu"), kernels)


def template_of(view: Rows, shape: Shape, dtype: torch.dtype) -> str:
    """The arguments of the kernel for rows of this shape."""
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
    """Launch kernel ``name`` of a module that includes `rows.cuh`: each row of ``x``, not empty, to one sum.

    ``tensors`` have an element for each row: results, and what else the kernel asks for.
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
            real = torch.float64 if x.dtype is torch.float64 else torch.float32
            parts = torch.empty((view.count, splits, numbers_per_part), dtype=real, device=x.device)
            count = counters(groups, x.device)
        argument = RowsArgument(layout, view.count, view.n, splits, steps * shape.step)
        kernels.launch(
            f"{name}<{template_of(view, shape, x.dtype)}>", (groups * splits,), (THREADS,),
            [x, *tensors, parts, count, argument, *numbers], device=x.device,
        )  # fmt: skip

    key = shape_class(f"cupy {kernels.source.stem} {name}", x, view, wide)
    run_best(key, plans(view, x.element_size(), wide, True), launch, x.device)


def map_rows(
    kernels: CudaModule, name: str, x: Tensor, dim: int, tensors: Sequence[Tensor], out: Tensor, *numbers: Argument
) -> None:
    """Launch kernel ``name`` of such a module: each element of ``x``, not empty, to one of ``out`` (contiguous).

    ``tensors`` have an element for each row.
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

    key = shape_class(f"cupy {kernels.source.stem} {name}", x, view, wide)
    run_best(key, plans(view, x.element_size(), wide, False), launch, x.device)


def forward(x: Tensor, dim: int, beta: float, y: Tensor, exact: Tensor | None) -> None:
    """Write ``y`` and, if given, ``exact`` (the result in the precision of accumulation). ``x`` is not empty."""
    reduce_rows(module(x.dtype), "forward", x, dim, 2, (y, exact), beta)


def backward(grad: Tensor, x: Tensor, lse: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """Write the gradient with respect to ``x``, which is not empty, into ``out`` (contiguous)."""
    map_rows(module(x.dtype), "backward", x, dim, (grad, lse), out, beta)


def row_variants(kernels: CudaModule, name: str, dtype: torch.dtype, traffic: int) -> list[KernelVariant]:
    """The kernels ``name`` of a module for all shapes of rows; ``traffic``: how often each element is moved."""
    return [
        CudaVariant(
            name=f"{name} {TYPES[dtype]}, {f'{lanes} lanes' if lanes != THREADS else 'block'} per row{note}",
            threads=THREADS, items=width * chunk_of(width, dtype.itemsize), unit="elements",
            bytes_per_item=traffic * dtype.itemsize,
            access_bytes=16 if width > 1 else 0, module=kernels, kernel=f"{name}<{template}>",
        )
        for template, lanes, width, note in templates(dtype)
    ]  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """Every kernel that `forward` and `backward` choose from."""
    return [
        variant
        for dtype in TYPES
        for name, traffic in (("forward", 1), ("backward", 2))
        for variant in row_variants(module(dtype), name, dtype, traffic)
    ]
