"""Annealed importance sampling: log Z of machines too large to enumerate, with its error.

Chains start from a law whose partition function is known and pass through laws between that and the machine's. The
weight of a chain is the product of the ratios of unnormalised probabilities on its way, and the mean of all weights is
the ratio of the partition functions, exactly: ``exp(log_z)`` is unbiased however short the way, only its error grows.

Source: Neal, Statistics and Computing 11 (2001); Salakhutdinov and Murray, ICML 2008.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.dispatch import require_tensor
from ..ising import energy, ising_sweeps, unpack_spins
from ..machines.rbm_checks import WEIGHT_DTYPES, require_bias
from ..machines.states import random_spins
from ..philox import Stream, random_words, uniforms
from ..rbm_free_energy import free_energy
from ..rbm_gibbs import gibbs

__all__ = ["LogPartitionEstimate", "annealed_importance_sampling", "ising_annealed_importance_sampling"]


class LogPartitionEstimate(NamedTuple):
    """``log_z``, its standard error and the weights' effective sample size, of the chains whose weights these are.

    ``log_weights``: float64 (chains,), the logarithm of the known partition function included, so that ``log_z`` is
    that of their mean. The error is that of the logarithm to first order, ``sqrt(Var(w) / chains) / mean(w)``; the size
    ``(sum w)^2 / sum w^2`` says how many chains count.
    """

    log_z: float
    stderr: float
    ess: float
    log_weights: Tensor

    @classmethod
    def of(cls, log_weights: Tensor) -> "LogPartitionEstimate":
        """From the weights of at least two chains, which may come from several calls."""
        if len(log_weights) < 2:
            raise ValueError(f"an error needs the weights of at least 2 chains, got {len(log_weights)}")
        peak = log_weights.max()
        weights = torch.exp(log_weights - peak)
        mean = weights.mean()
        return cls(
            float(torch.log(mean) + peak),
            float(weights.std() / mean / math.sqrt(len(weights))),
            float(weights.sum() ** 2 / weights.square().sum()),
            log_weights,
        )


def annealed_importance_sampling(
    weights: Tensor,
    visible_bias: Tensor,
    hidden_bias: Tensor,
    schedule: Sequence[float] | Tensor,
    chains: int,
    *,
    base_bias: Tensor | None = None,
    sweeps: int = 1,
    seed: int,
    first_chain: int = 0,
    check_values: bool = True,
    backend: str = "auto",
) -> LogPartitionEstimate:
    """log Z of a restricted Boltzmann machine at inverse temperature ``schedule[-1]``.

    The laws between are ``p_k(v)`` proportional to ``exp((1 - beta_k / beta_K) a.v - beta_k F(v))`` with the free
    energy ``F`` at ``beta_k``; the first is that of independent visible units of biases ``a``. From one to the next
    chains make ``sweeps`` sweeps of block Gibbs.

    Args:
        weights: (visible units, hidden units), float32, float16 or bfloat16.
        visible_bias, hidden_bias: one value for each unit, ``weights``'s dtype.
        schedule: ``0 = beta_0 < beta_1 < ... < beta_K``, two and more.
        chains: how many, at least 2.
        base_bias: ``a``, (visible units,), ``weights``'s dtype; zeros by default. The logits of the data's means are a
            good choice.
        seed: the key of the random stream, in [0, 2**64).
        first_chain: the number of the first chain in the stream; a batch split over calls has the same weights, which
            `LogPartitionEstimate.of` joins.
        check_values: look for parameters that are not finite. On a GPU this waits for the device.
        backend: of the sweeps and free energies, ``auto``, ``torch``, ``triton`` or ``cupy``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a number is out of range, ``schedule`` is empty, does not begin at 0 or does
            not increase, or ``backend`` is unknown or cannot run here.

    Free energies are float32, their differences are added in float64. Sweep ``t`` draws step ``1 + t``, the start
    step 0 of the stream for visible units, as `boltzbench.kernels.rbm_gibbs` numbers them.
    """
    betas = _require_schedule(schedule)
    if chains < 2:
        raise ValueError(f"chains must be at least 2, or there is no error to tell, got {chains}")
    if sweeps < 1:
        raise ValueError(f"sweeps must be at least 1, got {sweeps}")
    require_tensor("weights", weights, WEIGHT_DTYPES, None)
    for name, bias in (("visible_bias", visible_bias), ("base_bias", base_bias)):
        if bias is not None:
            require_bias(name, bias, len(weights), weights)
    units, hidden_units = weights.shape
    base = torch.zeros_like(visible_bias) if base_bias is None else base_bias
    chain = torch.arange(first_chain, first_chain + chains, device=weights.device)
    groups = chain[:, None] * (-(-units // 4)) + torch.arange(-(-units // 4), device=weights.device)
    drawn = uniforms(random_words(groups, seed, 0, Stream.VISIBLE)).flatten(1)[:, :units]
    visible = (drawn < torch.sigmoid(base.float())).to(torch.uint8)
    base_logits = base.double()
    log_weights = visible.new_full((chains,), hidden_units * math.log(2), dtype=torch.float64)
    log_weights += torch.nn.functional.softplus(base_logits).sum()

    def log_probability(number: int) -> Tensor:
        """Unnormalised, of ``visible`` under the law of this number."""
        beta = betas[number]
        if beta == 0:
            return visible.double() @ base_logits + hidden_units * math.log(2)
        bias = _bias_between(visible_bias, base, beta, betas[-1])
        return (
            -beta
            * free_energy(
                visible, weights, bias, hidden_bias, beta, check_values=check_values and number == 1, backend=backend
            ).double()
        )

    for number in range(1, len(betas)):
        log_weights += log_probability(number) - log_probability(number - 1)
        if number < len(betas) - 1:
            bias = _bias_between(visible_bias, base, betas[number], betas[-1])
            visible = gibbs(
                visible, weights, bias, hidden_bias, sweeps, betas[number], seed=seed,
                first_sweep=1 + (number - 1) * sweeps, first_chain=first_chain, check_values=False, backend=backend,
            ).visible  # fmt: skip
    return LogPartitionEstimate.of(log_weights)


def ising_annealed_importance_sampling(
    height: int,
    width: int,
    schedule: Sequence[float] | Tensor,
    lattices: int,
    *,
    coupling: float = 1.0,
    field: float = 0.0,
    rule: str = "heat_bath",
    sweeps: int = 1,
    seed: int,
    first_lattice: int = 0,
    device: torch.device | str = "cpu",
    backend: str = "auto",
) -> LogPartitionEstimate:
    """log Z of an Ising model on a torus at inverse temperature ``schedule[-1]``, from independent spins.

    The other arguments are those of `boltzbench.kernels.ising.ising_sweeps`. Sweep ``t`` draws step ``1 + t``, the
    start the first words at step 0.
    """
    betas = _require_schedule(schedule)
    if lattices < 2:
        raise ValueError(f"lattices must be at least 2, or there is no error to tell, got {lattices}")
    spins = random_spins(height, width, lattices, seed=seed, first_lattice=first_lattice, device=device)
    log_weights = torch.full((lattices,), height * width * math.log(2), dtype=torch.float64, device=spins.device)
    for number in range(1, len(betas)):
        log_weights -= (betas[number] - betas[number - 1]) * energy(unpack_spins(spins, width), coupling, field)
        if number < len(betas) - 1:
            spins = ising_sweeps(
                spins, width, sweeps, betas[number], coupling=coupling, field=field, rule=rule, seed=seed,
                first_sweep=1 + (number - 1) * sweeps, first_lattice=first_lattice, backend=backend,
            )  # fmt: skip
    return LogPartitionEstimate.of(log_weights)


def _bias_between(visible_bias: Tensor, base: Tensor, beta: float, last: float) -> Tensor:
    """What the visible units' biases are at ``beta > 0``, so that beta times them is the law's."""
    return visible_bias + base * ((1 - beta / last) / beta)


def _require_schedule(schedule: Sequence[float] | Tensor) -> list[float]:
    betas = [float(beta) for beta in schedule]
    if len(betas) < 2:
        raise ValueError(f"schedule must have at least two inverse temperatures, got {len(betas)}")
    if betas[0] != 0:
        raise ValueError(f"schedule must begin at 0, where the partition function is known, got {betas[0]}")
    if not all(a < b for a, b in pairwise(betas)) or not math.isfinite(betas[-1]):
        raise ValueError("schedule must increase, and end at a finite inverse temperature")
    return betas
