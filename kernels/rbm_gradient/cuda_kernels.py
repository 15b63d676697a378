"""The gradient in CUDA C: launching `rbm_gradient.cu`."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..rows.shapes import counters
from .shapes import split_chains

if TYPE_CHECKING:
    from . import Gradient, Phase

TYPES = {torch.float32: "float", torch.float16: "float16", torch.bfloat16: "bfloat16"}
HIDDEN_TYPES = {torch.float32: "float", torch.uint8: "unsigned char"}
THREADS = 256
ROWS, COLUMNS, TERMS = 128, 64, 32
"""Of a tile; all as in `binary_product.cuh`."""
SOURCE = Path(__file__).with_name("rbm_gradient.cu")


@functools.cache
def infer_module(dtype: torch.dtype) -> CudaModule:
    """Hidden probabilities from weights of one dtype."""
    return CudaModule(SOURCE, [f"infer<{TYPES[dtype]}>"])


@functools.cache
def gradient_module(data: torch.dtype, model: torch.dtype) -> CudaModule:
    """The gradient from hidden states or probabilities, in the data's and in the model's phase."""
    return CudaModule(SOURCE, [f"gradient<{HIDDEN_TYPES[data]}, {HIDDEN_TYPES[model]}>"])


def infer(phases: list[Phase], weights: Tensor, hidden_bias: Tensor, beta: float) -> None:
    """Write ``hidden`` of one or two phases."""
    data, model = phases[0], phases[-1]
    tiles = [-(-len(phase.visible) // ROWS) for phase in phases]
    visible_units, hidden_units = weights.shape
    infer_module(weights.dtype).launch(
        f"infer<{TYPES[weights.dtype]}>", (sum(tiles), -(-hidden_units // COLUMNS)), (THREADS,),
        [
            data.visible, model.visible, data.hidden, model.hidden, weights, hidden_bias, tiles[0], len(data.visible),
            len(model.visible), visible_units, hidden_units, *weights.stride(), beta,
        ],
        device=weights.device,
    )  # fmt: skip


def gradient(
    data: Phase, model: Phase, weights: Tensor | None, hidden_bias: Tensor | None, beta: float, out: Gradient
) -> None:
    """Write ``out``, and the hidden probabilities that are to be inferred."""
    visible_units, hidden_units = out.weights.shape
    to_infer = [phase for phase in (data, model) if phase.to_infer]
    if to_infer and hidden_units:
        assert weights is not None
        assert hidden_bias is not None
        infer(to_infer, weights, hidden_bias, beta)
    tiles = (max(1, -(-visible_units // ROWS)), max(1, -(-hidden_units // COLUMNS)))
    split = split_chains(len(data.visible), len(model.visible), tiles[0] * tiles[1], TERMS)
    width = visible_units * hidden_units + visible_units + hidden_units
    parts = out.weights.new_empty((split.parts, width)) if split.parts > 1 else None
    count = None if parts is None else counters(tiles[0] * tiles[1], parts.device)
    module = gradient_module(data.hidden.dtype, model.hidden.dtype)
    module.launch(
        module.kernels[0], (*tiles, split.parts), (THREADS,),
        [
            data.visible, model.visible, data.hidden, model.hidden, *out, parts, count, len(data.visible),
            len(model.visible), visible_units, hidden_units, split.data_chains, split.model_chains,
        ],
        device=out.weights.device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """Inference for each dtype of the weights; the gradient from states and probabilities in each phase."""
    found: list[KernelVariant] = []
    for dtype, name in TYPES.items():
        module = infer_module(dtype)
        traffic = 1 / COLUMNS + dtype.itemsize / ROWS
        found.append(
            CudaVariant(
                name=f"probabilities {name}",
                threads=THREADS,
                items=ROWS * COLUMNS * TERMS // THREADS,
                unit="multiply-adds",
                bytes_per_item=traffic,
                module=module,
                kernel=module.kernels[0],
            )
        )
    words = {torch.float32: "probabilities", torch.uint8: "states"}
    for data in HIDDEN_TYPES:
        for model in HIDDEN_TYPES:
            module = gradient_module(data, model)
            found.append(
                CudaVariant(
                    name=f"data {words[data]}, model {words[model]}",
                    threads=THREADS,
                    items=ROWS * COLUMNS * TERMS // THREADS,
                    unit="multiply-adds",
                    bytes_per_item=1 / COLUMNS + (data.itemsize + model.itemsize) / 2 / ROWS,
                    module=module,
                    kernel=module.kernels[0],
                )
            )
    return found
