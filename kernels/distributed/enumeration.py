"""The partition function by enumeration over ranks: the states of a few leading units are shared by the ranks.

With the first ``k`` units fixed, the rest is a smaller machine of the same kind, whose log Z a rank computes by
`boltzbench.kernels.enumeration`. There are ``2^k`` of them. A rank sends 8 bytes for each of its own, and every rank
adds them up in the order of their numbers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import enumeration as single
from ..common.derivatives import not_differentiable
from ..common.dispatch import require_tensor
from ..machines.rbm_checks import require_bias
from ..machines.spins_and_units import require_bonds
from ..machines.states import all_states
from ..numbers import integer, real
from .ranks import Ranks

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
FIXED_UNITS = 6
"""Leading units that are fixed, by default: 64 parts."""


@not_differentiable("beta")
def rbm_log_partition(
    weights: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    beta: float = 1.0,
    *,
    fixed_units: int = FIXED_UNITS,
    ranks: Ranks | None = None,
    **options: Any,
) -> Tensor:
    """`boltzbench.kernels.enumeration.rbm_log_partition` over ``ranks``.

    Args:
        fixed_units: the leading units of the smaller layer whose states are shared by the ranks, at most 20; all of
            them if they are fewer. More than ``2^fixed_units`` ranks leave some without work.
        ranks: by default all, or where torch.distributed is not initialized this process alone.
        weights, visible_bias, hidden_bias, beta, options: as in the function for one process, and the same on every
            rank. Without ``force``, a smaller layer has at most ``40 + fixed_units`` units.

    Returns a float64 tensor of no dimensions, with the same bits on every rank and for every number of ranks. It
    depends on ``fixed_units`` by rounding: in float64 by a few ``2**-53`` of it. It has no derivative.

    Raises what the function for one process raises, and RankError.
    """
    ranks = ranks or Ranks()
    with ranks.together():
        require_tensor("weights", weights, DTYPES, None)
        if weights.ndim != 2:
            raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
        require_bias("visible_bias", visible_bias, len(weights), weights)
        require_bias("hidden_bias", hidden_bias, weights.shape[1], weights)
        beta, fixed = real("beta", beta, least=0), min(_require_fixed(fixed_units), *weights.shape)
        ranks.require_same(
            weights=weights,
            visible_bias=visible_bias,
            hidden_bias=hidden_bias,
            beta=beta,
            fixed_units=fixed,
            **options,
        )
        w, b, c = weights.double(), visible_bias.double(), hidden_bias.double()
        if len(w) > w.shape[1]:
            w, b, c = w.t(), c, b

        def part(x: Tensor) -> Tensor:
            rest = single.rbm_log_partition(w[fixed:], b[fixed:], c + x @ w[:fixed], beta, **options)
            return beta * (x @ b[:fixed]) + rest

        return _log_sum(ranks, part, fixed, weights.device)


@not_differentiable("beta")
def log_partition(
    weights: Tensor,
    biases: Tensor,
    beta: float = 1.0,
    *,
    fixed_units: int = FIXED_UNITS,
    ranks: Ranks | None = None,
    **options: Any,
) -> Tensor:
    """`boltzbench.kernels.enumeration.log_partition`, for any couplings, over ranks, as `rbm_log_partition`."""
    ranks = ranks or Ranks()
    with ranks.together():
        require_tensor("weights", weights, DTYPES, None)
        require_tensor("biases", biases, (weights.dtype,), weights.device)
        require_bonds("weights", weights, "biases", biases)
        beta, fixed = real("beta", beta, least=0), min(_require_fixed(fixed_units), len(weights))
        ranks.require_same(weights=weights, biases=biases, beta=beta, fixed_units=fixed, **options)
        w, b = weights.double(), biases.double()

        def part(x: Tensor) -> Tensor:
            field = b[fixed:] + x @ w[:fixed, fixed:]
            rest = single.log_partition(w[fixed:, fixed:], field, beta, **options)
            return beta * (x @ b[:fixed] + 0.5 * (x @ w[:fixed, :fixed] @ x)) + rest

        return _log_sum(ranks, part, fixed, weights.device)


def _require_fixed(units: int) -> int:
    return integer("fixed_units", units, 0, 20)


def _log_sum(ranks: Ranks, part: Callable[[Tensor], Tensor], fixed: int, device: torch.device) -> Tensor:
    """The log of the sum of ``exp(part(x))`` over all states ``x`` of the fixed units."""
    states = all_states(fixed, device)
    share = ranks.share(len(states))
    mine = states.new_empty(len(share))
    for place, number in enumerate(share):
        mine[place] = part(states[number])
    return torch.logsumexp(ranks.gather(mine), 0)
