"""Half a sweep in one launch of `tensor_cores.cu`."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...common.variants import CudaVariant
from ...cuda_module import CudaModule
from ..request import LaunchRequest, row_bytes
from .tiles import TILES, TensorCoreTile

KERNEL = "matrix_half_sweep"


@functools.cache
def module(precision: str, packed: bool) -> CudaModule:
    """The kernels for weights prepared in ``precision``."""
    names = [tile.kernel(KERNEL, packed) for tile in TILES[precision]]
    return CudaModule(Path(__file__).with_name("tensor_cores.cu"), names)


def tile_for(precision: str, chains: int) -> TensorCoreTile:
    """The smallest tile that holds all chains, or the largest."""
    tiles = TILES[precision]
    return next((tile for tile in tiles if tile.chains >= chains), tiles[-1])


def matrix_half_sweep(half: LaunchRequest, tile: TensorCoreTile | None = None) -> None:
    """Write ``half.out``, which is not empty, in tiles of `tile_for` unless another is given."""
    operand, chains, units = half.operand, len(half.out), half.units
    tile = tile or tile_for(operand.precision, chains)
    draws = half.out.dtype is half.given.dtype
    module(operand.precision, half.packed).launch(
        tile.kernel(KERNEL, half.packed), (-(-chains // tile.chains), -(-units // tile.units)), (tile.threads,),
        [
            half.given, operand.parts, operand.scale, half.bias, half.out if draws else None,
            None if draws else half.out, half.clamped, half.previous, half.betas, chains, units,
            *operand.parts.shape[1:], row_bytes(half.given), row_bytes(half.out), row_bytes(half.previous),
            *half.clamped_strides, half.common_beta, np.uint64(half.seed), np.uint32(half.step), half.first_step,
            np.uint32(half.stream), half.first_chain,
        ],
        shared_bytes=tile.shared_bytes(half.packed),
        device=half.out.device,
    )  # fmt: skip


def variants() -> Sequence[CudaVariant]:
    """Each tile of each precision, for states in bytes and in bits."""
    return [
        tile.variant(
            f"tensor-core half sweep {precision}, {tile.chains} chains{', states packed' if packed else ''}",
            packed, module(precision, packed), KERNEL,
        )
        for precision, tiles in TILES.items()
        for packed in (False, True)
        for tile in tiles
    ]  # fmt: skip
