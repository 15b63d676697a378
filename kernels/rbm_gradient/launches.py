"""Grids and arguments of the two gradient kernels, for CUDA C and Triton.

The split of the work depends on shapes only, so that the same arguments give the same bits on every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..machines.product_tiles import Launch, Tile
from ..rows.shapes import counters

if TYPE_CHECKING:
    from . import Gradient

BLOCKS_WANTED = 128
LEAST_CHAINS = 256
"""Chains of both phases in a part, at least: below this, writing and adding parts takes longer than it saves."""


@dataclass(frozen=True)
class Phase:
    """The chains of the data or of the model, in contiguous tensors on one device.

    - ``visible``: uint8 (chains, visible units), at least one chain.
    - ``hidden``: uint8 states or float32 probabilities, (chains, hidden units).
    - ``to_infer``: whether the backend has yet to write ``P(h = 1 | v)`` to ``hidden``, which is float32 then.
    """

    visible: Tensor
    hidden: Tensor
    to_infer: bool


@dataclass(frozen=True)
class Split:
    """``parts`` parts with ``data_chains`` chains of the data and ``model_chains`` chains of the model each."""

    parts: int
    data_chains: int
    model_chains: int


def split_chains(data_chains: int, model_chains: int, tiles: int, step: int) -> Split:
    """Split the chains for ``tiles`` tiles of weights; parts are multiples of ``step`` chains long."""
    wanted = max(1, min(BLOCKS_WANTED // max(tiles, 1), (data_chains + model_chains) // LEAST_CHAINS))
    lengths = [-(-chains // (wanted * step)) * step for chains in (data_chains, model_chains)]
    parts = max(-(-data_chains // lengths[0]), -(-model_chains // lengths[1]))
    return Split(parts, *lengths)


def inference(tile: Tile, phases: Sequence[Phase], weights: Tensor, hidden_bias: Tensor, beta: float) -> Launch:
    """The launch that computes hidden probabilities of one or two phases.

    A block computes ``tile.rows`` chains and ``tile.columns`` hidden units. The blocks of the first phase come first.
    """
    data, model = phases[0], phases[-1]
    hidden_units = weights.shape[1]
    grids = [tile.grid(len(phase.visible), hidden_units) for phase in phases]
    return Launch(
        (sum(rows for rows, _ in grids), grids[0][1]),
        [
            data.visible, model.visible, data.hidden, model.hidden, weights, hidden_bias, grids[0][0],
            len(data.visible), len(model.visible), *weights.shape, *weights.stride(), beta,
        ],
    )  # fmt: skip


def products(tile: Tile, data: Phase, model: Phase, out: Gradient) -> Launch:
    """The launch that computes the gradient.

    A block computes ``tile.rows`` visible x ``tile.columns`` hidden units from its part of the chains. If there are
    several parts, the block that finishes last adds them.
    """
    visible_units, hidden_units = out.weights.shape
    tiles = tile.grid(visible_units, hidden_units)
    split = split_chains(len(data.visible), len(model.visible), tiles[0] * tiles[1], tile.terms)
    parts = count = None
    if split.parts > 1:
        width = visible_units * hidden_units + visible_units + hidden_units
        parts = out.weights.new_empty((split.parts, width))
        count = counters(tiles[0] * tiles[1], parts.device)
    return Launch(
        (*tiles, split.parts),
        [
            data.visible, model.visible, data.hidden, model.hidden, *out, parts, count, len(data.visible),
            len(model.visible), visible_units, hidden_units, split.data_chains, split.model_chains,
        ],
    )  # fmt: skip
