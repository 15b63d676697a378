"""Replica exchange over ranks: temperatures move between replicas, and states stay where they are.

Each round, a rank advances its share of the replicas and sends the others 8 bytes for each, its energy. Every rank then
decides all exchanges by itself, alike: it knows all energies, and the random numbers are named by ladder and round.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import parallel_tempering as single
from ..numbers import integer
from ..parallel_tempering import Replicas, Tempering
from .ranks import Ranks

MakeReplicas = Callable[[int, int], Replicas]
"""Makes the replicas of a rank, from the number of the first in the stream and how many they are."""


def parallel_tempering(
    make_replicas: MakeReplicas,
    count: int,
    betas: Sequence[float] | Tensor,
    rounds: int,
    *,
    burn_in: int,
    seed: int,
    ranks: Ranks | None = None,
    **options: Any,
) -> Tempering:
    """`boltzbench.kernels.parallel_tempering.parallel_tempering` over ``ranks``: the same, on every rank.

    Args:
        make_replicas: called once on each rank with the number of its first replica and how many it has, none where
            ranks outnumber replicas: ``lambda first, count: IsingReplicas(8, 8, count, first=first, seed=7)``.
        count: replicas on all ranks together, ladder after ladder. A ladder may span ranks.
        ranks: by default all, or where torch.distributed is not initialized this process alone.
        betas, rounds, burn_in, seed, options: as in the function for one process, and the same on every rank.

    The bits are those of one process if replicas do not depend on how they are divided: those of
    `boltzbench.kernels.parallel_tempering` do not. Raises what the function for one process raises, and RankError.
    """
    ranks = ranks or Ranks()
    with ranks.together():
        replicas = _GatheredReplicas(ranks, make_replicas, integer("count", count))
        ranks.require_same(
            count=count,
            log_states=replicas.log_states,
            betas=betas,
            rounds=rounds,
            burn_in=burn_in,
            seed=seed,
            **options,
        )
        return single.parallel_tempering(replicas, betas, rounds, burn_in=burn_in, seed=seed, **options)


class _GatheredReplicas:
    """The replicas of all ranks; each advances its own."""

    def __init__(self, ranks: Ranks, make_replicas: MakeReplicas, count: int) -> None:
        self.ranks, self.count, self.share = ranks, count, ranks.share(count)
        self.own = make_replicas(self.share.start, len(self.share))
        self.log_states, self.device = self.own.log_states, self.own.device

    def advance(self, betas: Tensor, round_number: int) -> Tensor:
        energies = self.own.advance(betas[self.share.start : self.share.stop], round_number)
        if energies.shape != (len(self.share),) or energies.dtype is not torch.float64:
            raise ValueError(
                f"make_replicas must make replicas with energies of float64, shape ({len(self.share)},), "
                f"got {energies.dtype}, {tuple(energies.shape)}"
            )
        return self.ranks.gather(energies)
