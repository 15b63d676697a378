"""All sweeps in one launch of `clusters.cu`, by clusters of blocks: for few chains of a machine that fits L2."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch

from ...common.variants import CudaVariant
from ...cuda_module import CudaModule
from ..prepared import PreparedWeights
from ..request import LaunchRequest
from .sweeps import sweeps_arguments
from .tiles import TILES

KERNEL = "cluster_sweeps"
CLUSTER = 8
"""Blocks of a cluster, as in the .cu."""
MOST_CHAINS = 1024
"""16 clusters of 64 chains, a block on each of 128 multiprocessors; an H200 has 132."""


@functools.cache
def module(precision: str, packed: bool) -> CudaModule:
    """The kernel for weights prepared in ``precision``."""
    return CudaModule(Path(__file__).with_name("clusters.cu"), [TILES[precision][0].kernel(KERNEL, packed)])


def clusters_fit(weights: PreparedWeights, device: torch.device) -> bool:
    """Whether the device has clusters of blocks, and the weights are split for tensor cores."""
    has_clusters = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)
    return weights.precision in TILES and has_clusters


def clusters_pay(weights: PreparedWeights, chains: int, sweeps: int) -> bool:
    """Whether launches dominate: one wave of clusters at most, and two tiles of a layer at most for each block."""
    if weights.precision not in TILES or sweeps == 1 or chains > MOST_CHAINS:
        return False
    return max(weights.source.shape) <= 2 * CLUSTER * TILES[weights.precision][0].units


def cluster_sweeps(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> None:
    """All sweeps in one launch, with the results of as many pairs of half sweeps.

    ``to_hidden`` and ``to_visible`` are the first two half sweeps, for prepared weights of any size.
    """
    chains = len(to_hidden.out)
    if chains == 0:
        return
    precision, packed = to_hidden.operand.precision, to_hidden.packed
    tile = TILES[precision][0]
    module(precision, packed).launch(
        tile.kernel(KERNEL, packed), (-(-chains // tile.chains) * CLUSTER,), (tile.threads,),
        sweeps_arguments(to_hidden, to_visible, sweeps), shared_bytes=tile.shared_bytes(packed),
        device=to_hidden.out.device,
    )  # fmt: skip


def variants() -> Sequence[CudaVariant]:
    """The tile for few chains of each precision, for states in bytes and in bits."""
    return [
        tile.variant(
            f"tensor-core sweeps {precision}, {tile.chains} chains to a cluster{', packed' if packed else ''}",
            packed, module(precision, packed), KERNEL,
        )
        for precision, (tile, *_) in TILES.items()
        for packed in (False, True)
    ]  # fmt: skip
