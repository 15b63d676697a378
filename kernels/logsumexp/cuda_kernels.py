"""Log-sum-exp in CUDA C: choosing a kernel of `logsumexp.cu` by the shape of the rows, and launching it."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..cuda_module import CudaModule
from ..variants import CudaVariant, Variant
from .rows import Layout, Rows, as_rows

TYPES = {torch.float64: "double", torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
THREADS = 256
CHUNK = 4
"""Loads in flight per thread; both as in the .cu."""
LANES_WHERE_CLOSER = 8
BLOCKS_WANTED = 528
"""Blocks that fill a large device several times over (132 multiprocessors, 4 each); fewer rows are split."""
SPLIT_AT_LEAST = 16384
"""A part of a split row is at least this long, so that combining stays negligible; parts are multiples of a quarter
of it, which keeps them aligned for 128-bit loads."""
MAX_SPLITS = 65535


class _Layout(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_longlong) for name in ("size1", "size2", "stride0", "stride1", "stride2", "stride")
    )


def _variants(dtype: torch.dtype) -> list[str]:
    wide = 16 // dtype.itemsize
    shapes = [(32, 1), (32, wide), (THREADS, 1), (THREADS, wide)]
    return [f"{TYPES[dtype]}, {lanes}, {width}, false" for lanes, width in shapes] + [
        f"{TYPES[dtype]}, {LANES_WHERE_CLOSER}, 1, true"
    ]


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernels for one dtype."""
    kernels = [f"{name}<{variant}>" for name in ("forward", "backward") for variant in _variants(dtype)]
    return CudaModule(Path(__file__).with_name("logsumexp.cu"), [*kernels, f"combine<{TYPES[dtype]}>"])


def _choose(view: Rows, *tensors: Tensor) -> tuple[int, str]:
    """``(lanes, template arguments)`` for rows of this shape. 128-bit access needs every row to begin aligned."""
    dtype = tensors[0].dtype
    if view.are_closer:
        return LANES_WHERE_CLOSER, f"{TYPES[dtype]}, {LANES_WHERE_CLOSER}, 1, true"
    wide = 16 // dtype.itemsize
    aligned = view.n % wide == 0 and all(
        tensor.data_ptr() % 16 == 0 and layout.stride == 1 and all(stride % wide == 0 for stride in layout.strides)
        for tensor, layout in zip(tensors, view.layouts, strict=True)
    )
    width = wide if aligned else 1
    lanes = 32 if view.n <= 2 * 32 * width * CHUNK else THREADS
    return lanes, f"{TYPES[dtype]}, {lanes}, {width}, false"


def _as_argument(view: Rows, layout: Layout) -> _Layout:
    return _Layout(*view.sizes[1:], *layout.strides, layout.stride)


def forward(x: Tensor, dim: int, beta: float, y: Tensor, exact: Tensor | None) -> None:
    """Write ``y`` and, if given, ``exact`` (the result in the precision of accumulation). ``x`` is not empty."""
    x, view = as_rows(dim, x)
    lanes, variant = _choose(view, x)
    row_blocks = -(-view.count // (THREADS // lanes))
    splits = max(1, min(-(-BLOCKS_WANTED // row_blocks), view.n // SPLIT_AT_LEAST, MAX_SPLITS))
    unit = SPLIT_AT_LEAST // 4
    part = -(-view.n // (splits * unit)) * unit
    splits = -(-view.n // part)
    kernels = module(x.dtype)
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    peaks = totals = None
    if splits > 1:
        peaks, totals = torch.empty((2, splits, view.count), dtype=wide, device=x.device)
    kernels.launch(
        f"forward<{variant}>", (row_blocks, splits), (THREADS,),
        [x, y, exact, peaks, totals, _as_argument(view, view.layouts[0]), view.count, view.n, part, beta],
        device=x.device,
    )  # fmt: skip
    if splits > 1:
        kernels.launch(
            f"combine<{TYPES[x.dtype]}>", (-(-view.count // THREADS),), (THREADS,),
            [peaks, totals, y, exact, view.count, splits, beta], device=x.device,
        )  # fmt: skip


def backward(grad: Tensor, x: Tensor, lse: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """Write the gradient with respect to ``x``, which is not empty, into ``out`` (contiguous)."""
    x, view = as_rows(dim, x, out)
    lanes, variant = _choose(view, x, out)
    width = int(variant.split(", ")[2])
    column_blocks = -(-view.n // (lanes * width * CHUNK))
    blocks = -(-view.count // (THREADS // lanes)) * column_blocks
    layouts = [_as_argument(view, layout) for layout in view.layouts]
    module(x.dtype).launch(
        f"backward<{variant}>", (blocks,), (THREADS,),
        [grad, x, lse, out, *layouts, view.count, view.n, column_blocks, beta], device=x.device,
    )  # fmt: skip


def variants() -> Sequence[Variant]:
    """Every kernel that `forward` and `backward` choose from."""
    found: list[Variant] = []
    for dtype, name in TYPES.items():
        for pass_, traffic in (("forward", 1), ("backward", 2)):
            for template in _variants(dtype):
                lanes, width = (int(word) for word in template.split(", ")[1:3])
                found.append(
                    CudaVariant(
                        name=f"{pass_} {name}, {lanes} lanes, {width * dtype.itemsize} B",
                        threads=THREADS,
                        items=width * CHUNK,
                        unit="elements",
                        bytes_per_item=traffic * dtype.itemsize,
                        access_bytes=16 if width > 1 else 0,
                        module=module(dtype),
                        kernel=f"{pass_}<{template}>",
                    )
                )
        found.append(
            CudaVariant(
                name=f"combine {name}", threads=THREADS, items=1, unit="parts",
                bytes_per_item=16 if dtype is torch.float64 else 8, module=module(dtype), kernel=f"combine<{name}>",
            )
        )  # fmt: skip
    return found
