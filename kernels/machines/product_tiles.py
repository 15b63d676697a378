"""Tile sizes, launch arguments and kernel variants for products of 0/1 states with weights on tensor cores.

The device code is in `common/binary_product.cuh` and `common/binary_product_triton.py`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common.triton_runtime import INTERPRETS
from ..common.variants import CudaVariant, TritonVariant
from ..cuda_module import CudaModule


class Tile(NamedTuple):
    """A block of ``warps`` warps computes ``rows`` x ``columns`` sums and adds ``terms`` terms to each at a time."""

    rows: int
    columns: int
    terms: int
    warps: int

    @property
    def threads(self) -> int:
        return 32 * self.warps

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """The number of tiles that cover ``rows`` and ``columns``; at least one in either direction."""
        return max(1, -(-rows // self.rows)), max(1, -(-columns // self.columns))

    def sizes(self, rows: str, columns: str, terms: str) -> dict[str, int]:
        """The constants ``BLOCK_<axis>`` of a Triton kernel, from the names of its three axes."""
        return {f"BLOCK_{rows}": self.rows, f"BLOCK_{columns}": self.columns, f"BLOCK_{terms}": self.terms}

    def variant(self, name: str, value_bytes: float) -> dict[str, Any]:
        """The fields that `CudaVariant` and `TritonVariant` share; ``value_bytes`` is the size of a weight."""
        return {
            "name": name,
            "threads": self.threads,
            "items": self.rows * self.columns * self.terms // self.threads,
            "unit": "multiply-adds",
            "bytes_per_item": 1 / self.columns + value_bytes / self.rows,
        }


class Launch(NamedTuple):
    """Grid and arguments for a kernel that has the same parameters in CUDA C and, before its constants, in Triton.

    Arguments are tensors, integers and floats, which the kernel reads as float64. None replaces a tensor that this
    launch does not read.
    """

    grid: tuple[int, ...]
    arguments: list[Any]

    def triton_arguments(self, unread: Tensor) -> list[Any]:
        """The arguments for Triton, which passes floats in float32 and compiles another specialization for None.

        So floats become the bits of a float64, and the tensor ``unread`` replaces None.
        """
        from ..common.triton_math import bits_of

        return [
            unread if argument is None else bits_of(argument) if isinstance(argument, float) else argument
            for argument in self.arguments
        ]


CUDA_TYPES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
"""CUDA C types of weights."""
CUDA_TILE = Tile(128, 64, 32, 8)
"""As in `binary_product.cuh`."""

LARGE, LARGE_OF_PARTS = Tile(128, 128, 64, 8), Tile(128, 64, 32, 8)
"""For Triton. The second is for float32 weights, each the sum of three bfloat16 parts."""
SMALLER = (Tile(64, 64, 32, 4), Tile(16, 32, 64, 2))
INTERPRETED = Tile(512, 64, 128, 4)
"""An interpreted program takes a few milliseconds, for large and small tiles alike."""
PROGRAMS_WANTED = 128


def field_tile(chains: int, hidden_units: int, dtype: torch.dtype) -> Tile:
    """The largest Triton tile that splits the fields of all hidden units into enough programs.

    It depends on shapes and dtype only, so that equal arguments give the same bits on every device.
    """
    if INTERPRETS:
        return INTERPRETED
    for tile in (largest_field_tile(dtype.itemsize), *SMALLER):
        rows, columns = tile.grid(chains, hidden_units)
        if rows * columns >= PROGRAMS_WANTED:
            return tile
    return SMALLER[-1]


def largest_field_tile(weight_bytes: int) -> Tile:
    return LARGE_OF_PARTS if weight_bytes == 4 else LARGE


def cuda_variant(name: str, module: CudaModule, kernel: str, value_bytes: float) -> CudaVariant:
    """The variant for ``kernel`` of ``module``, which computes products in tiles of `CUDA_TILE`."""
    return CudaVariant(**CUDA_TILE.variant(name, value_bytes), module=module, kernel=kernel)


def triton_variant(name: str, kernel: Any, tile: Tile, value_bytes: float, given: Mapping[str, Any]) -> TritonVariant:
    """The variant for ``kernel`` with ``tile``. Parameters without a type in ``given`` are int32, divisible by 16."""
    signature = {**dict.fromkeys(kernel.arg_names, "i32:16"), **given}
    return TritonVariant(**tile.variant(name, value_bytes), kernel=kernel, signature=signature)
