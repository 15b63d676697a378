"""Tiles of a product of 0/1 states and weights: their sizes, launches of kernels that compute them, and their variants.

The kernels that use `common/binary_product.cuh` and `common/binary_product_triton.py` share these.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common.triton_runtime import INTERPRETS
from ..common.variants import CudaVariant, TritonVariant
from ..cuda_module import CudaModule


class Tile(NamedTuple):
    """A block of ``warps`` warps computes ``rows`` x ``columns`` sums, ``terms`` terms of each at a time."""

    rows: int
    columns: int
    terms: int
    warps: int

    @property
    def threads(self) -> int:
        return 32 * self.warps

    def grid(self, rows: int, columns: int) -> tuple[int, int]:
        """How many tiles cover so many rows and columns; at least one in either direction."""
        return max(1, -(-rows // self.rows)), max(1, -(-columns // self.columns))

    def sizes(self, rows: str, columns: str, terms: str) -> dict[str, int]:
        """``BLOCK_<axis>`` for the three axes of a Triton kernel."""
        return {f"BLOCK_{rows}": self.rows, f"BLOCK_{columns}": self.columns, f"BLOCK_{terms}": self.terms}

    def variant(self, name: str, value_bytes: float) -> dict[str, Any]:
        """The fields that `CudaVariant` and `TritonVariant` share; a value (a weight, say) has ``value_bytes``."""
        return {
            "name": name,
            "threads": self.threads,
            "items": self.rows * self.columns * self.terms // self.threads,
            "unit": "multiply-adds",
            "bytes_per_item": 1 / self.columns + value_bytes / self.rows,
        }


class Launch(NamedTuple):
    """A launch of a kernel that has the same parameters in CUDA C and in Triton, but for Triton's constants.

    ``arguments`` are tensors, None for a tensor that this launch does not read, integers and float64 numbers.
    """

    grid: tuple[int, ...]
    arguments: list[Any]

    def triton_arguments(self, unread: Tensor) -> list[Any]:
        """For Triton: float64 numbers by their bits, and ``unread`` for None, which would be another specialization."""
        from ..common.triton_math import bits_of

        return [
            unread if argument is None else bits_of(argument) if isinstance(argument, float) else argument
            for argument in self.arguments
        ]


CUDA_TYPES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
"""Weights in CUDA C."""
CUDA_TILE = Tile(128, 64, 32, 8)
"""As in `binary_product.cuh`."""

LARGE, LARGE_OF_PARTS = Tile(128, 128, 64, 8), Tile(128, 64, 32, 8)
"""In Triton; the second for float32 weights, which take three products of bfloat16 parts."""
SMALLER = (Tile(64, 64, 32, 4), Tile(16, 32, 64, 2))
INTERPRETED = Tile(512, 64, 128, 4)
"""An interpreted program takes the same few milliseconds whatever its tile."""
PROGRAMS_WANTED = 128


def field_tile(chains: int, hidden_units: int, dtype: torch.dtype) -> Tile:
    """The largest Triton tile that makes enough programs of the fields of all chains.

    The shapes alone decide, not the device: so equal arguments have the same bits on every device.
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
    """``kernel`` of ``module``, which computes products in `CUDA_TILE`."""
    return CudaVariant(**CUDA_TILE.variant(name, value_bytes), module=module, kernel=kernel)


def triton_variant(name: str, kernel: Any, tile: Tile, value_bytes: float, given: Mapping[str, Any]) -> TritonVariant:
    """``kernel`` with ``tile``; ``given`` is the signature of all parameters but int32 numbers divisible by 16."""
    signature = {**dict.fromkeys(kernel.arg_names, "i32:16"), **given}
    return TritonVariant(**tile.variant(name, value_bytes), kernel=kernel, signature=signature)
