"""Half a sweep of block Gibbs in CUDA C: launching `rbm_gibbs.cu`, and `tensor_cores.cu` for prepared weights."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import Argument, CudaModule
from .prepared import Operand, PreparedWeights
from .request import LaunchRequest

TYPES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
THREADS = 256
TILE = 64
"""Chains and units of a block; both as in the .cu."""
TILE_GIVEN = 16
"""Given units in one step, as in the .cu."""
STEP_GIVEN = 64
"""The same for tensor cores."""
MOST_SHARED_BYTES = 227 * 1024
"""Of a block on the emulator, as on sm_90 and sm_100."""


GAUSSIAN = {
    "half_sweep<float, true, false>": "half sweep float from real-valued units",
    "half_sweep<float, false, true>": "half sweep float to real-valued units",
}


@dataclass(frozen=True)
class TensorCoreTile:
    """What `Shape` of `tensor_cores.cu` says of one kernel."""

    weight: str
    products: int
    chain_warps: int

    def kernel(self, packed: bool, function: str = "matrix_half_sweep") -> str:
        return f"{function}<{self.weight}, {self.products}, {self.chain_warps}, {str(packed).lower()}>"

    @property
    def chains(self) -> int:
        return 32 * self.chain_warps

    @property
    def units(self) -> int:
        return 128 if self.products == 1 else 64

    @property
    def threads(self) -> int:
        return 64 * self.chain_warps

    @property
    def weight_bytes(self) -> int:
        return 2 if self.weight == "bfloat16" else 1

    def shared_bytes(self, packed: bool) -> int:
        states = self.chains * STEP_GIVEN // (8 if packed else 1)
        stage = states + STEP_GIVEN * self.products * self.units * self.weight_bytes
        return stage * (2 if self.chain_warps < 4 or stage > 24 * 1024 else 3)


TILES = {
    "bf16": (TensorCoreTile("bfloat16", 1, 2), TensorCoreTile("bfloat16", 1, 4)),
    "bf16x3": (TensorCoreTile("bfloat16", 3, 4),),
    "int8x3": (TensorCoreTile("signed char", 3, 2), TensorCoreTile("signed char", 3, 4)),
}
"""By precision, the tile for few chains before the one for many. Of bf16x3 a smaller one would live alone on its
multiprocessor: three parts of 2 bytes fill the shared memory."""


@dataclass(frozen=True)
class ResidentKernel:
    """What `Kind` of `resident.cu` says of one kernel."""

    weight: str
    products: int

    @property
    def kernel(self) -> str:
        return f"resident_sweeps<{self.weight}, {self.products}>"

    @property
    def warp_units(self) -> int:
        return 64 if self.products == 1 else 32

    def shared_bytes(self, visible: int, hidden: int, clamped: bool = True) -> int:
        """Both matrices of digits, with scales, one of bfloat16; biases; and states, and which of them are clamped."""
        digits = self.weight == "signed char"
        given_visible, given_hidden = _rounded(visible, STEP_GIVEN), _rounded(hidden, STEP_GIVEN)
        if digits:
            drawn_visible, drawn_hidden = _rounded(visible, self.warp_units), _rounded(hidden, self.warp_units)
            weights = drawn_hidden * given_visible + drawn_visible * given_hidden
        else:
            weights = given_hidden * given_visible
        numbers = (2 if digits else 1) * (given_visible + given_hidden)
        state = 1 if digits else 2
        states = RESIDENT_CHAINS * (state * (given_visible + given_hidden) + 2 * 16)
        held = RESIDENT_CHAINS * given_visible // 8 if clamped else 0
        return self.products * state * weights + 4 * numbers + states + held


CLUSTER = 8
"""Blocks, as in the .cu."""
CLUSTER_CHAINS = 1024
"""16 clusters of 64 chains, a block on each of 128 multiprocessors; an H200 has 132."""
RESIDENT_CHAINS, RESIDENT_THREADS, RESIDENT_UNIT_WARPS = 64, 256, 4
"""Of a block, as in the .cu."""
RESIDENT = {
    "bf16": ResidentKernel("bfloat16", 1),
    "bf16x3": ResidentKernel("bfloat16", 3),
    "int8x3": ResidentKernel("signed char", 3),
}


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernel for weights of one dtype."""
    return CudaModule(Path(__file__).with_name("rbm_gibbs.cu"), [f"half_sweep<{TYPES[dtype]}>"])


@functools.cache
def gaussian_module() -> CudaModule:
    """The kernels to and from real-valued visible units."""
    return CudaModule(Path(__file__).with_name("rbm_gibbs.cu"), list(GAUSSIAN))


@functools.cache
def tensor_core_module(precision: str, packed: bool) -> CudaModule:
    """The kernels for weights prepared in ``precision``."""
    names = [tile.kernel(packed) for tile in TILES[precision]]
    return CudaModule(Path(__file__).with_name("tensor_cores.cu"), names)


@functools.cache
def cluster_module(precision: str, packed: bool) -> CudaModule:
    """The kernel of many sweeps by clusters of blocks, for weights prepared in ``precision``."""
    return CudaModule(Path(__file__).with_name("clusters.cu"), [cluster_kernel(precision, packed)])


def cluster_kernel(precision: str, packed: bool) -> str:
    return TILES[precision][0].kernel(packed, "cluster_sweeps")


@functools.cache
def resident_module(precision: str) -> CudaModule:
    """The kernel of many sweeps for weights prepared in ``precision``."""
    return CudaModule(Path(__file__).with_name("resident.cu"), [RESIDENT[precision].kernel])


def half_sweep(half: LaunchRequest) -> None:
    """Write ``half.out``."""
    chains, units = len(half.out), half.units
    if chains == 0 or units == 0:
        return
    if isinstance(half.weights, Operand):
        tensor_core_half_sweep(half, half.weights, tile_for(half.weights, chains))
        return
    draws = half.out.dtype is torch.uint8 or half.draws_reals
    clamped_strides = (0, 0) if half.clamped is None else half.clamped.stride()
    loaded, kernel = module(half.weights.dtype), f"half_sweep<{TYPES[half.weights.dtype]}>"
    if half.sigma is not None:
        loaded, kernel = gaussian_module(), list(GAUSSIAN)[half.draws_reals]
    loaded.launch(
        kernel, (-(-chains // TILE), -(-units // TILE)), (THREADS,),
        [
            half.given, half.weights, half.bias, half.out if draws else None, None if draws else half.out,
            half.clamped, half.previous, half.sigma, *_betas(half), chains, half.given.shape[1], units,
            *half.weights.stride(),
            *clamped_strides, _beta(half), np.uint64(half.seed), np.uint32(half.step), half.first_step,
            np.uint32(half.stream), half.first_chain,
        ],
        device=half.out.device,
    )  # fmt: skip


def tile_for(operand: Operand, chains: int) -> TensorCoreTile:
    """The smallest tile that holds all chains, or the largest."""
    tiles = TILES[operand.precision]
    return next((tile for tile in tiles if tile.chains >= chains), tiles[-1])


def tensor_core_half_sweep(half: LaunchRequest, operand: Operand, tile: TensorCoreTile) -> None:
    """Write ``half.out``, which is not empty."""
    chains, units = len(half.out), half.units
    draws = half.out.dtype is half.given.dtype
    clamped_strides = (0, 0) if half.clamped is None else half.clamped.stride()
    previous_stride = 0 if half.previous is None else _row_bytes(half.previous)
    tensor_core_module(operand.precision, half.packed).launch(
        tile.kernel(half.packed), (-(-chains // tile.chains), -(-units // tile.units)), (tile.threads,),
        [
            half.given, operand.parts, operand.scale, half.bias, half.out if draws else None,
            None if draws else half.out, half.clamped, half.previous, *_betas(half), chains, units,
            *operand.parts.shape[1:], _row_bytes(half.given), _row_bytes(half.out), previous_stride, *clamped_strides,
            _beta(half), np.uint64(half.seed), np.uint32(half.step), half.first_step, np.uint32(half.stream),
            half.first_chain,
        ],
        shared_bytes=tile.shared_bytes(half.packed),
        device=half.out.device,
    )  # fmt: skip


def clusters_fit(weights: PreparedWeights, device: torch.device) -> bool:
    """Whether there are clusters of blocks on the device, and tensor cores for the weights."""
    has_clusters = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)
    return weights.precision in TILES and has_clusters


def clusters_pay(weights: PreparedWeights, chains: int, sweeps: int) -> bool:
    """Whether launches count: the chains are a wave of clusters at most, of which a block has two tiles of a layer."""
    if weights.precision not in TILES or sweeps == 1 or chains > CLUSTER_CHAINS:
        return False
    return max(weights.source.shape) <= 2 * CLUSTER * TILES[weights.precision][0].units


def resident_fits(weights: PreparedWeights, clamped: bool, packed: bool, device: torch.device) -> bool:
    """Whether the weights and the states of a block's chains find room in a multiprocessor's shared memory."""
    kernel = RESIDENT.get(weights.precision)
    if kernel is None:
        return False
    room = MOST_SHARED_BYTES
    if device.type == "cuda":
        room = int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin"))  # noqa: B009
    visible, hidden = weights.source.shape
    return kernel.shared_bytes(visible, hidden, clamped) <= room


def resident_units(weights: PreparedWeights) -> int:
    """How many units a sweep of a chain draws, with those that fill tiles of all warps: one that has none waits."""
    block_units = RESIDENT_UNIT_WARPS * RESIDENT[weights.precision].warp_units
    return sum(_rounded(units, block_units) for units in weights.source.shape)


def resident_sweeps(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> None:
    """All sweeps in one launch: what as many pairs of `half_sweep` would write to their ``out``.

    ``to_hidden`` and ``to_visible`` are the half sweeps of the first of them, for prepared weights that fit. Rows of
    uint8 states may begin anywhere.
    """
    chains = len(to_hidden.out)
    if chains == 0:
        return
    precision = to_hidden.operand.precision
    kernel = RESIDENT[precision]
    resident_module(precision).launch(
        kernel.kernel, (-(-chains // RESIDENT_CHAINS),), (RESIDENT_THREADS,),
        [*_all_sweeps(to_hidden, to_visible, sweeps), int(to_hidden.packed)],
        shared_bytes=kernel.shared_bytes(to_visible.units, to_hidden.units, to_visible.clamped is not None),
        device=to_hidden.out.device,
    )  # fmt: skip


def cluster_sweeps(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> None:
    """The same for prepared weights of any size, in L2; rows of uint8 states are those of `half_sweep`."""
    chains = len(to_hidden.out)
    if chains == 0:
        return
    precision, packed = to_hidden.operand.precision, to_hidden.packed
    tile = TILES[precision][0]
    cluster_module(precision, packed).launch(
        cluster_kernel(precision, packed), (-(-chains // tile.chains) * CLUSTER,), (tile.threads,),
        _all_sweeps(to_hidden, to_visible, sweeps), shared_bytes=tile.shared_bytes(packed), device=to_hidden.out.device,
    )  # fmt: skip


def _all_sweeps(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> list[Argument]:
    """The arguments that both kernels of many sweeps take."""
    forward, back, clamped = to_hidden.operand, to_visible.operand, to_visible.clamped
    return [
        to_hidden.given, forward.parts, back.parts, forward.scale, back.scale, to_hidden.bias, to_visible.bias,
        to_visible.out, to_hidden.out, clamped, *_betas(to_hidden), len(to_hidden.out), to_visible.units,
        to_hidden.units, *forward.parts.shape[1:], *back.parts.shape[1:], _row_bytes(to_hidden.given),
        _row_bytes(to_visible.out), _row_bytes(to_hidden.out), *((0, 0) if clamped is None else clamped.stride()),
        _beta(to_hidden), np.uint64(to_hidden.seed), np.uint32(to_hidden.step), to_hidden.first_step, sweeps,
        to_hidden.first_chain,
    ]  # fmt: skip


def _rounded(units: int, by: int) -> int:
    return -(-units // by) * by


def _row_bytes(states: Tensor) -> int:
    return states.stride(0) * states.element_size()


def _betas(half: LaunchRequest) -> tuple[Tensor | None]:
    return (half.beta if isinstance(half.beta, Tensor) else None,)


def _beta(half: LaunchRequest) -> float:
    return 0.0 if isinstance(half.beta, Tensor) else float(half.beta)


def variants(*kinds: str) -> Sequence[KernelVariant]:
    """Of ``binary`` visible units, ``gaussian`` ones, or both."""
    kernels = {"binary": _binary_variants, "gaussian": _gaussian_variants}
    return [variant for kind in kinds or kernels for variant in kernels[kind]()]


def _gaussian_variants() -> Sequence[KernelVariant]:
    """From real-valued units and to them."""
    return [
        CudaVariant(
            name=name,
            threads=THREADS,
            items=TILE * TILE * TILE_GIVEN // THREADS,
            unit="multiply-adds",
            bytes_per_item=given_bytes / TILE,
            module=gaussian_module(),
            kernel=kernel,
        )
        for (kernel, name), given_bytes in zip(GAUSSIAN.items(), (8, 5), strict=True)
    ]


def _binary_variants() -> Sequence[KernelVariant]:
    """The kernel for each dtype of the weights, and for prepared ones each tile of each precision."""
    plain = [
        CudaVariant(
            name=f"half sweep {name}",
            threads=THREADS,
            items=TILE * TILE * TILE_GIVEN // THREADS,
            unit="multiply-adds",
            bytes_per_item=(1 + dtype.itemsize) / TILE,
            module=module(dtype),
            kernel=f"half_sweep<{name}>",
        )
        for dtype, name in TYPES.items()
    ]
    return (
        plain
        + [
            CudaVariant(
                name=f"tensor-core half sweep {precision}, {tile.chains} chains{', states packed' if packed else ''}",
                threads=tile.threads,
                items=tile.chains * tile.units * STEP_GIVEN * tile.products // tile.threads,
                unit="multiply-adds",
                bytes_per_item=(0.125 if packed else 1) / (tile.units * tile.products)
                + tile.weight_bytes / tile.chains,
                access_bytes=0 if packed else 16,
                module=tensor_core_module(precision, packed),
                kernel=tile.kernel(packed),
                shared_bytes=tile.shared_bytes(packed),
            )
            for precision, tiles in TILES.items()
            for packed in (False, True)
            for tile in tiles
        ]
        + [
            CudaVariant(
                name=f"tensor-core sweeps {precision}, {tile.chains} chains to a cluster{', packed' if packed else ''}",
                threads=tile.threads,
                items=tile.chains * tile.units * STEP_GIVEN * tile.products // tile.threads,
                unit="multiply-adds",
                bytes_per_item=(0.125 if packed else 1) / (tile.units * tile.products)
                + tile.weight_bytes / tile.chains,
                access_bytes=0 if packed else 16,
                module=cluster_module(precision, packed),
                kernel=cluster_kernel(precision, packed),
                shared_bytes=tile.shared_bytes(packed),
            )
            for precision, (tile, *_) in TILES.items()
            for packed in (False, True)
        ]
        + [
            CudaVariant(
                name=f"tensor-core sweeps {precision}, weights resident, {visible} x {hidden}",
                threads=RESIDENT_THREADS,
                items=2 * 32 * kernel.warp_units * kernel.products,  # of the products of a slab for a warp
                unit="multiply-adds",
                bytes_per_item=0.0,
                module=resident_module(precision),
                kernel=kernel.kernel,
                shared_bytes=kernel.shared_bytes(visible, hidden),
            )
            for (precision, kernel), (visible, hidden) in zip(
                RESIDENT.items(), ((192, 192), (128, 128), (128, 128)), strict=True
            )  # which all architectures have room for
        ]
    )
