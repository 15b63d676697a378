"""Persistent contrastive divergence over ranks: chains and data are shared, and gradients are summed over all ranks."""

from typing import Any

import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..machines.rbm_checks import require_states
from ..numbers import integer, real
from ..philox import STEP_LIMIT
from ..rbm_gradient import Gradient
from ..rbm_training import TrainingState, phase_gradient, updated
from .ranks import Ranks

BLOCKS = 8
"""Blocks of chains whose gradients are added up, by default."""


@not_differentiable("rate", "weight_decay", "beta")
def persistent_contrastive_divergence(
    state: TrainingState,
    batch: Tensor,
    *,
    blocks: int = BLOCKS,
    sweeps: int = 1,
    rate: float,
    weight_decay: float = 0.0,
    beta: float = 1.0,
    seed: int,
    ranks: Ranks | None = None,
    **options: Any,
) -> TrainingState:
    """An update of `boltzbench.kernels.rbm_training.persistent_contrastive_divergence` over ``ranks``.

    Args:
        state: the machine, the same on every rank, and ``chains``, this rank's share of the persistent chains.
        batch: this rank's share of the images, uint8 (images, visible units).
        blocks: chains and images are divided into this number of equal blocks, so both must be multiples of it, and the
            ranks share the blocks: ``ranks.share(chains, multiple=chains // blocks)`` are a rank's chains. At
            least the number of ranks.
        ranks: by default all, or where torch.distributed is not initialized this process alone.
        sweeps, rate, weight_decay, beta, seed, options: as in the function for one process, and the same on every rank.

    Each block has a gradient of its own, in float32, and their mean is taken in an order that depends on ``blocks``
    only (`Ranks.sum`). The update has the same bits on every rank and for every number of ranks, on one kind of device.
    With one block it is that of one process. Otherwise it differs by rounding: each element of the gradient by at most
    ``(chains + images + blocks) 2**-24`` of the sum of its terms' magnitudes, which is at most 2.

    A rank sends about ``2 (size - 1) / size`` times the bytes of the machine, where ``blocks`` is a multiple of a power
    of two of ranks, and three headers of `Ranks`.

    Raises what the function for one process raises, and RankError: a rank has another machine, or other numbers.
    """
    ranks = ranks or Ranks()
    with ranks.together():
        if state.chains is None:
            raise ValueError("state has no persistent chains: pass chains to initial_state")
        rate, weight_decay = real("rate", rate), real("weight_decay", weight_decay)
        beta, sweeps = real("beta", beta, positive=True), integer("sweeps", sweeps, 1, STEP_LIMIT)
        blocks = integer("blocks", blocks, ranks.size, why=", the number of ranks")
        require_states("batch", batch, state.machine.weights.device)
        own = ranks.share(blocks)
        chains_of_block = _divided("state.chains", state.chains, len(own))
        images_of_block = _divided("batch", batch, len(own))
        ranks.require_same(
            blocks=blocks, chains_of_block=chains_of_block, images_of_block=images_of_block, sweeps=sweeps, rate=rate,
            weight_decay=weight_decay, beta=beta, seed=seed, step=state.step, sweep=state.sweep,
            weights=state.machine.weights, visible_bias=state.machine.visible_bias,
            hidden_bias=state.machine.hidden_bias, **options,
        )  # fmt: skip
        changes, moved = [], []
        starts = torch.split(state.chains, chains_of_block)
        for block, start, images in zip(own, starts, torch.split(batch, images_of_block), strict=True):
            change, chains = phase_gradient(
                state, images, start, sweeps, beta, seed, first_chain=block * chains_of_block, **options
            )
            changes.append(torch.cat([part.flatten() for part in change]))
            moved.append(chains)
        mean = ranks.sum(torch.stack(changes)) / blocks
    parts = torch.split(mean, [part.numel() for part in state.machine])
    change = Gradient(*(part.view(own.shape) for part, own in zip(parts, state.machine, strict=True)))
    machine = updated(state.machine, change, rate, weight_decay, beta)
    return TrainingState(machine, torch.cat(moved), state.step + 1, state.sweep + sweeps)


def _divided(name: str, rows: Tensor, blocks: int) -> int:
    """Rows in each of a rank's blocks."""
    if len(rows) % blocks or not len(rows):
        raise ValueError(
            f"{name} must hold this rank's {blocks} blocks, so a multiple of {blocks} rows; got {len(rows)}"
        )
    return len(rows) // blocks
