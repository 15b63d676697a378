"""Runs of parallel tempering, and log Z by thermodynamic integration."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..numbers import can_check, integer, real, reals
from ..philox import STEP_LIMIT, check_counter
from .exchange import swap_replicas
from .systems import Replicas


class Tempering(NamedTuple):
    """The results of a run.

    ``mean_energy`` and ``variance`` of the energy: float64 (ladders, rungs). ``swap_rates``: acceptance rate of each
    pair of rungs, float64 (rungs - 1,). ``log_z`` at the last beta and its standard error are from `integrate`.
    """

    mean_energy: Tensor
    variance: Tensor
    swap_rates: Tensor
    log_z: float
    stderr: float


def integrate(betas: Tensor, mean_energy: Tensor, variance: Tensor, log_states: float) -> tuple[float, float]:
    """log Z at ``betas[-1]`` and its standard error, by thermodynamic integration over independent ladders.

    ``betas`` (rungs,) increase from 0; ``mean_energy`` and ``variance`` are (ladders, rungs). ``d log Z / d beta =
    -<E>`` and ``d <E> / d beta = -Var(E)``. Between neighbours, ``h`` apart, the Euler-Maclaurin rule
    ``h/2 (f_k + f_(k+1)) + h^2/12 (f'_k - f'_(k+1))`` with ``f = -<E>`` has an error of order ``h^4``. Each ladder
    gives an estimate. The standard error is that of their mean, so it includes correlations between rungs.
    """
    log_states = real("log_states", log_states)
    for name, value in (("betas", betas), ("mean_energy", mean_energy), ("variance", variance)):
        require_tensor(name, value, (torch.float64, torch.float32), None)
    if betas.dim() != 1 or len(betas) < 2:
        raise ValueError(f"betas must have shape (rungs,), at least two, got {tuple(betas.shape)}")
    for name, value in (("mean_energy", mean_energy), ("variance", variance)):
        if value.dim() != 2 or value.shape[1] != len(betas) or not len(value) or value.shape != mean_energy.shape:
            raise ValueError(f"{name} must have shape (ladders, {len(betas)}), got {tuple(value.shape)}")
    if can_check(betas) and not bool((betas[0] == 0) & (betas.diff() > 0).all()):
        raise ValueError("betas must increase from 0, where log Z is known")
    h = betas.diff()
    slopes = h / 2 * -(mean_energy[:, 1:] + mean_energy[:, :-1])
    ends = h**2 / 12 * (variance[:, :-1] - variance[:, 1:])
    each = log_states + (slopes + ends).sum(1)
    return float(each.mean()), float(each.std() / math.sqrt(len(each)))


def parallel_tempering(
    replicas: Replicas,
    betas: Sequence[float] | Tensor,
    rounds: int,
    *,
    burn_in: int,
    seed: int,
    backend: str = "auto",
) -> Tempering:
    """Advance ladders of replicas, one replica at each of ``betas``, with replica exchange after each round.

    Args:
        replicas: ``ladders * len(betas)`` replicas, ladder after ladder; at least two ladders, which are independent,
            so that the error can be estimated.
        betas: at least two, strictly increasing from 0, where log Z is known.
        rounds: rounds of sweeps with energies that count, at least 2.
        burn_in: rounds before those.
        seed: the key of the random stream of the exchanges; the replicas' sweeps may use the same.
        backend: backend of the exchanges.

    Raises ValueError, naming the argument. Variances are about the mean of all ladders: about its own mean, the
    variance of a ladder would be too small, because rounds are correlated. The result has no
    derivative: energies are detached. Replicas of your own may use autograd in ``advance``.
    """
    values = reals("betas", betas)
    if len(values) < 2:
        raise ValueError(f"betas must be at least two numbers, got {len(values)}")
    if values[0] != 0:
        raise ValueError(f"betas must begin at 0, where log Z is known, got {values[0]}")
    if not all(a < b for a, b in pairwise(values)):
        raise ValueError("betas must increase")
    ladders, left = divmod(replicas.count, len(values))
    if left or ladders < 2:
        raise ValueError(
            f"replicas must be {len(values)} for each of at least two ladders, one for each beta; got {replicas.count}"
        )
    burn_in = integer("burn_in", burn_in, 0, STEP_LIMIT - 2)
    rounds = integer("rounds", rounds, 2, STEP_LIMIT - burn_in)
    seed, _, _ = check_counter(seed, 0)
    ladder = torch.tensor(values, dtype=torch.float64, device=replicas.device)
    shape = (ladders, len(values))
    replica_at = torch.arange(len(values), dtype=torch.int32, device=replicas.device).expand(shape).contiguous()
    first, second = (torch.zeros(shape, dtype=torch.float64, device=replicas.device) for _ in "12")
    center = torch.zeros(shape, dtype=torch.float64, device=replicas.device)
    accepted = torch.zeros(shape, dtype=torch.int64, device=replicas.device)
    for number in range(burn_in + rounds):
        each = torch.empty_like(center).scatter_(1, replica_at.long(), ladder.expand(shape))  # in the order of replicas
        energies = replicas.advance(each.flatten(), number).detach().view(shape)
        at_rung = energies.gather(1, replica_at.long())
        if number == burn_in:
            center = at_rung.mean(0).expand(shape)  # near the mean, so that squares of differences stay precise
        if number >= burn_in:
            first += at_rung - center
            second += (at_rung - center) ** 2
        replica_at, exchanged = swap_replicas(
            replica_at, energies, ladder, seed=seed, round_number=number, backend=backend
        )
        if number >= burn_in:
            accepted += exchanged
    mean = first / rounds
    common = mean.mean(0)
    variance = (second / rounds - common * (2 * mean - common)) * replicas.count / (replicas.count - len(values))
    proposed = [
        sum((number % 2) == (k % 2) for number in range(burn_in, burn_in + rounds)) for k in range(len(values) - 1)
    ]
    rates = accepted[:, :-1].sum(0).double() / (ladders * torch.tensor(proposed, device=replicas.device))
    log_z, stderr = integrate(ladder, center + mean, variance, replicas.log_states)
    return Tempering(center + mean, variance, rates, log_z, stderr)
