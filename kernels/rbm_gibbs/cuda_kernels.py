"""Half a sweep of block Gibbs in CUDA C: launching `rbm_gibbs.cu`."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..cuda_module import CudaModule
from ..variants import CudaVariant, Variant
from .half_sweep import HalfSweep

TYPES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
THREADS = 256
TILE = 64
"""Chains and units of a block; both as in the .cu."""
TILE_GIVEN = 16
"""Given units in one step, as in the .cu."""


@functools.cache
def module(dtype: torch.dtype) -> CudaModule:
    """The kernel for weights of one dtype."""
    return CudaModule(Path(__file__).with_name("rbm_gibbs.cu"), [f"half_sweep<{TYPES[dtype]}>"])


def half_sweep(half: HalfSweep) -> None:
    """Write ``half.out``."""
    chains, units = half.out.shape
    if chains == 0 or units == 0:
        return
    draws = half.out.dtype is torch.uint8
    clamped_strides = (0, 0) if half.clamped is None else half.clamped.stride()
    module(half.weights.dtype).launch(
        f"half_sweep<{TYPES[half.weights.dtype]}>", (-(-chains // TILE), -(-units // TILE)), (THREADS,),
        [
            half.given, half.weights, half.bias, half.out if draws else None, None if draws else half.out,
            half.clamped, half.previous, chains, half.given.shape[1], units, *half.weights.stride(), *clamped_strides,
            half.beta, np.uint64(half.seed), np.uint32(half.step), np.uint32(half.stream), half.first_chain,
        ],
        device=half.out.device,
    )  # fmt: skip


def variants() -> Sequence[Variant]:
    """The kernel for each dtype of the weights."""
    return [
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
