"""Annealed importance sampling over ranks: each anneals its share of the chains, and all weights are gathered.

A rank sends the others 8 bytes for each of its chains, once, and the headers of `Ranks`.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from .. import ais
from ..ais import CollapsedWeights, LogPartitionEstimate
from ..common.derivatives import not_differentiable
from ..numbers import INT64_MAX, integer
from .ranks import Ranks


@not_differentiable("schedule")
def annealed_importance_sampling(
    weights: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    schedule: Sequence[float] | Tensor,
    chains: int,
    *,
    seed: int,
    first_chain: int = 0,
    ranks: Ranks | None = None,
    **options: Any,
) -> LogPartitionEstimate:
    """`boltzbench.kernels.ais.annealed_importance_sampling` over ``ranks``: the same bits, on every rank.

    Args:
        chains: how many on all ranks together, at least 2 for each.
        ranks: by default all, or where torch.distributed is not initialized this process alone.
        weights, visible_bias, hidden_bias, schedule, seed, first_chain, options: as in the function for one process,
            and the same on every rank.

    Returns the estimate from all chains. Raises what that function raises, and RankError.
    """
    given = {"weights": weights, "visible_bias": visible_bias, "hidden_bias": hidden_bias, "schedule": schedule}

    def anneal(first: int, count: int) -> LogPartitionEstimate:
        return ais.annealed_importance_sampling(
            weights, visible_bias, hidden_bias, schedule, count, seed=seed, first_chain=first, **options
        )

    return _estimate(anneal, "chains", chains, first_chain, ranks, given | {"seed": seed} | options)


def ising_annealed_importance_sampling(
    height: int,
    width: int,
    schedule: Sequence[float] | Tensor,
    lattices: int,
    *,
    seed: int,
    first_lattice: int = 0,
    ranks: Ranks | None = None,
    **options: Any,
) -> LogPartitionEstimate:
    """`boltzbench.kernels.ais.ising_annealed_importance_sampling` over ranks, as `annealed_importance_sampling`."""
    given = {"height": height, "width": width, "schedule": schedule, "seed": seed}

    def anneal(first: int, count: int) -> LogPartitionEstimate:
        return ais.ising_annealed_importance_sampling(
            height, width, schedule, count, seed=seed, first_lattice=first, **options
        )

    same = {name: value for name, value in options.items() if name != "device"}  # each rank has its own
    return _estimate(anneal, "lattices", lattices, first_lattice, ranks, given | same)


def _estimate(
    anneal: Callable[[int, int], LogPartitionEstimate],
    name: str,
    count: int,
    first: int,
    ranks: Ranks | None,
    same: dict[str, object],
) -> LogPartitionEstimate:
    ranks = ranks or Ranks()
    with ranks.together():
        count = integer(name, count, 2 * ranks.size, INT64_MAX, f" for {ranks.size} ranks, two for each")
        first = integer(f"first_{name.removesuffix('s')}", first)
        ranks.require_same(**{name: count, "first": first}, **same)
        share = ranks.share(count)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CollapsedWeights)  # said of all weights below
            mine = anneal(first + share.start, len(share))
        log_weights = ranks.gather(mine.log_weights)
    return LogPartitionEstimate.of(log_weights)
