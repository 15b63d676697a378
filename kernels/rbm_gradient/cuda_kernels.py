"""Launches `rbm_gradient.cu`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..common.variants import KernelVariant
from ..cuda_module import CudaModule
from ..machines.product_tiles import CUDA_TILE, Launch, cuda_variant
from ..machines.product_tiles import CUDA_TYPES as TYPES
from .launches import Phase, inference, products

if TYPE_CHECKING:
    from . import Gradient

HIDDEN_TYPES = {torch.float32: "float", torch.uint8: "unsigned char"}
SOURCE = Path(__file__).with_name("rbm_gradient.cu")


@functools.cache
def infer_module(dtype: torch.dtype) -> CudaModule:
    """The kernel of hidden probabilities for weights of one dtype."""
    return CudaModule(SOURCE, [f"infer<{TYPES[dtype]}>"])


@functools.cache
def gradient_module(data: torch.dtype, model: torch.dtype) -> CudaModule:
    """The gradient kernel for hidden states or probabilities, by the dtypes of ``hidden`` in either phase."""
    return CudaModule(SOURCE, [f"gradient<{HIDDEN_TYPES[data]}, {HIDDEN_TYPES[model]}>"])


def _start(module: CudaModule, launch: Launch, device: torch.device) -> None:
    module.launch(module.kernels[0], launch.grid, (CUDA_TILE.threads,), launch.arguments, device=device)


def infer(phases: Sequence[Phase], weights: Tensor, hidden_bias: Tensor, beta: float) -> None:
    """Write ``hidden`` of one or two phases."""
    _start(infer_module(weights.dtype), inference(CUDA_TILE, phases, weights, hidden_bias, beta), weights.device)


def gradient(data: Phase, model: Phase, out: Gradient) -> None:
    """Write ``out`` from visible and hidden units of both phases."""
    module = gradient_module(data.hidden.dtype, model.hidden.dtype)
    _start(module, products(CUDA_TILE, data, model, out), out.weights.device)


def variants() -> Sequence[KernelVariant]:
    """Hidden probabilities for each dtype of the weights; the gradient for states and probabilities in each phase."""
    found: list[KernelVariant] = []
    for dtype, name in TYPES.items():
        module = infer_module(dtype)
        found.append(cuda_variant(f"probabilities {name}", module, module.kernels[0], dtype.itemsize))
    words = {torch.float32: "probabilities", torch.uint8: "states"}
    for data in HIDDEN_TYPES:
        for model in HIDDEN_TYPES:
            module, mean_bytes = gradient_module(data, model), (data.itemsize + model.itemsize) / 2
            name = f"data {words[data]}, model {words[model]}"
            found.append(cuda_variant(name, module, module.kernels[0], mean_bytes))
    return found
