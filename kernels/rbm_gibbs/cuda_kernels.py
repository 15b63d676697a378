"""Block Gibbs in CUDA C: launching `rbm_gibbs.cu`, and the kernels of `tensor_cores` for prepared weights."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from .prepared import Operand
from .request import LaunchRequest
from .tensor_cores import clusters, half_sweeps, resident
from .tensor_cores.clusters import cluster_sweeps, clusters_fit, clusters_pay
from .tensor_cores.half_sweeps import matrix_half_sweep
from .tensor_cores.resident import resident_fits, resident_sweeps, resident_units

__all__ = [
    "cluster_sweeps",
    "clusters_fit",
    "clusters_pay",
    "half_sweep",
    "resident_fits",
    "resident_sweeps",
    "resident_units",
    "variants",
]

TYPES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
THREADS = 256
TILE = 64
"""Chains and units of a block; both as in the .cu."""
TILE_GIVEN = 16
"""Given units in one step, as in the .cu."""
GAUSSIAN = {
    "half_sweep<float, true, false>": "half sweep float from real-valued units",
    "half_sweep<float, false, true>": "half sweep float to real-valued units",
}


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernel for weights of one dtype."""
    return CudaModule(Path(__file__).with_name("rbm_gibbs.cu"), [f"half_sweep<{TYPES[dtype]}>"])


@functools.cache
def gaussian_module() -> CudaModule:
    """The kernels to and from real-valued visible units."""
    return CudaModule(Path(__file__).with_name("rbm_gibbs.cu"), list(GAUSSIAN))


def half_sweep(half: LaunchRequest) -> None:
    """Write ``half.out``."""
    chains, units = len(half.out), half.units
    if chains == 0 or units == 0:
        return
    if isinstance(half.weights, Operand):
        matrix_half_sweep(half)
        return
    draws = half.out.dtype is torch.uint8 or half.draws_reals
    loaded, kernel = module(half.weights.dtype), f"half_sweep<{TYPES[half.weights.dtype]}>"
    if half.sigma is not None:
        loaded, kernel = gaussian_module(), list(GAUSSIAN)[half.draws_reals]
    loaded.launch(
        kernel, (-(-chains // TILE), -(-units // TILE)), (THREADS,),
        [
            half.given, half.weights, half.bias, half.out if draws else None, None if draws else half.out,
            half.clamped, half.previous, half.sigma, half.betas, chains, half.given.shape[1], units,
            *half.weights.stride(), *half.clamped_strides, half.common_beta, np.uint64(half.seed),
            np.uint32(half.step), half.first_step, np.uint32(half.stream), half.first_chain,
        ],
        device=half.out.device,
    )  # fmt: skip


def variants(*kinds: str) -> Sequence[KernelVariant]:
    """Those of ``binary`` visible units, of ``gaussian`` ones, or both."""
    kernels = {"binary": _binary_variants, "gaussian": _gaussian_variants}
    return [variant for kind in kinds or kernels for variant in kernels[kind]()]


def _gaussian_variants() -> Sequence[KernelVariant]:
    return [
        _variant(name, gaussian_module(), kernel, given_bytes)
        for (kernel, name), given_bytes in zip(GAUSSIAN.items(), (8, 5), strict=True)
    ]


def _binary_variants() -> Sequence[KernelVariant]:
    plain = [
        _variant(f"half sweep {name}", module(dtype), f"half_sweep<{name}>", 1 + dtype.itemsize)
        for dtype, name in TYPES.items()
    ]
    return [*plain, *half_sweeps.variants(), *clusters.variants(), *resident.variants()]


def _variant(name: str, loaded: CudaModule, kernel: str, given_bytes: int) -> CudaVariant:
    """``given_bytes``: of a state and a weight."""
    return CudaVariant(
        name=name,
        threads=THREADS,
        items=TILE * TILE * TILE_GIVEN // THREADS,
        unit="multiply-adds",
        bytes_per_item=given_bytes / TILE,
        module=loaded,
        kernel=kernel,
    )
