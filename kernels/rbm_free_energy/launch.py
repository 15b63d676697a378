"""Grid and arguments of the free energy kernel, for CUDA C and Triton."""

import torch
from torch import Tensor

from ..machines.product_tiles import Launch, Tile
from ..rows.shapes import counters


def arranged(
    tile: Tile, visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor,
    out: Tensor,
) -> Launch:  # fmt: skip
    """The launch where a block computes ``tile.rows`` chains and ``tile.columns`` hidden units.

    If the hidden units span several tiles, each block writes its part of the sums, and the last block adds the parts.
    """
    grid = tile.grid(len(visible), weights.shape[1])
    parts = count = None
    if grid[1] > 1:
        parts = torch.empty((grid[1], len(visible)), dtype=torch.float32, device=out.device)
        count = counters(grid[0], out.device)
    betas, number = (beta, 1.0) if isinstance(beta, Tensor) else (None, beta)
    return Launch(
        grid,
        [
            visible, weights, visible_bias, hidden_bias, betas, out, parts, count, len(visible), *weights.shape,
            *weights.stride(), number,
        ],
    )  # fmt: skip
