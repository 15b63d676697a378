"""Annealed importance sampling: estimates log Z, with its standard error, of machines too large to enumerate.

Chains start from a base distribution with known partition function and pass through intermediate distributions to the
machine's. The weight of a chain is the product of ratios of unnormalized probabilities along its path. The expected
weight is the ratio of the partition functions: ``exp(log_z)`` is unbiased for any schedule, and only its error depends
on the schedule.

Source: Neal, Statistics and Computing 11 (2001); Salakhutdinov and Murray, ICML 2008.
"""

import math
import sys
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..common.dispatch import require_tensor
from ..ising import energy, ising_sweeps, unpack_spins
from ..machines.chain_checks import require_chains
from ..machines.rbm_checks import WEIGHT_DTYPES, require_bias
from ..machines.states import random_spins
from ..numbers import INT64_MAX, integer, real, reals
from ..philox import STEP_LIMIT, Stream, check_counter, random_words, uniforms
from ..rbm_free_energy import free_energy
from ..rbm_gibbs import gibbs

__all__ = [
    "CollapsedWeights",
    "LogPartitionEstimate",
    "annealed_importance_sampling",
    "ising_annealed_importance_sampling",
]

ENOUGH_DRAWS = 100
"""An effective sample size from which the standard error holds, where the schedule allows no more.

The logarithm of the mean weight is biased by ``-stderr^2 / 2``, and ``stderr`` is at most ``1 / sqrt(ess)``. At 100 the
bias is a twentieth of the standard error. Fewer chains than 200 need half their number instead.
"""


class CollapsedWeights(UserWarning):
    """A few chains carry most of the weight, so the estimate of log Z is too low and its standard error too small."""


class LogPartitionEstimate(NamedTuple):
    """``log_z``, its standard error, the effective sample size ``ess`` and the importance weights of all chains.

    ``log_weights`` is float64 (chains,) and includes the log of the known partition function, so that ``log_z`` is the
    log of the mean weight. ``stderr`` is ``sqrt(Var(w) / chains) / mean(w)``, to first order, and ``ess`` is
    ``(sum w)^2 / sum w^2``.

    ``collapsed`` says that ``ess`` is less than 100 and less than half the chains: ``log_z`` is then likely to be too
    low by many times ``stderr``. Use more distributions in the schedule. The reverse does not hold: chains that missed
    the important states altogether have equal weights.
    """

    log_z: float
    stderr: float
    ess: float
    log_weights: Tensor

    @property
    def collapsed(self) -> bool:
        return not self.ess >= min(ENOUGH_DRAWS, len(self.log_weights) / 2)  # true for NaN

    @classmethod
    def of(cls, log_weights: Tensor) -> "LogPartitionEstimate":
        """The estimate from the log weights of at least 2 chains, which may come from several calls.

        Warns with `CollapsedWeights` if the estimate is ``collapsed``.
        """
        require_tensor("log_weights", log_weights, (torch.float64,), None)
        if log_weights.dim() != 1 or len(log_weights) < 2:
            raise ValueError(
                f"log_weights must have shape (chains,), at least 2 for a standard error; "
                f"got {tuple(log_weights.shape)}"
            )
        peak = log_weights.max()
        weights = torch.exp(log_weights - peak)
        mean = weights.mean()
        found = cls(
            float(torch.log(mean) + peak),
            float(weights.std() / mean / math.sqrt(len(weights))),
            float(weights.sum() ** 2 / weights.square().sum()),
            log_weights,
        )
        if found.collapsed:
            words = (
                f"the weights have collapsed: {len(weights)} chains have an effective sample size of {found.ess:.3g}, "
                "so log_z is probably too low and stderr too small; use a schedule of more distributions"
            )
            warnings.warn(words, CollapsedWeights, stacklevel=_frames_in_this_package())
        return found


@not_differentiable("schedule")
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
    """Estimate log Z of a restricted Boltzmann machine at inverse temperature ``schedule[-1]``.

    The distributions are ``p_k(v)`` proportional to ``exp((1 - beta_k / beta_K) a.v - beta_k F(v))`` with the free
    energy ``F`` at ``beta_k``. The first has independent visible units with biases ``a``. At each further distribution
    but the last, chains make ``sweeps`` sweeps of block Gibbs.

    Args:
        weights: (visible units, hidden units), float32, float16 or bfloat16.
        visible_bias, hidden_bias: one value for each unit, ``weights``'s dtype.
        schedule: inverse temperatures ``0 = beta_0 < beta_1 < ... < beta_K``, at least two.
        chains: how many, at least 2.
        base_bias: ``a``, (visible units,), ``weights``'s dtype; zeros by default. The logits of the data's means are a
            good choice.
        sweeps: sweeps at each distribution, at least 1.
        seed: the key of the random stream, in [0, 2**64).
        first_chain: the number of the first chain in the stream. Calls that split a batch return the same weights as
            one call; `LogPartitionEstimate.of` combines them.
        check_values: check that parameters are finite. On a GPU this waits for the device.
        backend: for sweeps and free energies, ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a number is out of range, ``schedule`` is too short, does not begin at 0 or
            does not increase, or ``backend`` is unknown or cannot run here.

    Warns with `CollapsedWeights` if ``schedule`` is too coarse: see `LogPartitionEstimate`.

    Free energies are float32; float64 sums add their differences. The initial states draw step 0 of the stream for
    visible units, and sweep ``t`` draws step ``1 + t``, as in `boltzbench.kernels.rbm_gibbs`.

    The result has no derivative, on any backend: ``log_weights`` is detached.
    """
    betas = _require_schedule(schedule)
    chains, sweeps = _require_independent("chains", chains), integer("sweeps", sweeps, 1, STEP_LIMIT)
    seed, _, _ = check_counter(seed, 0)
    require_tensor("weights", weights, WEIGHT_DTYPES, None)
    if weights.dim() != 2:
        raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
    for name, bias in (("visible_bias", visible_bias), ("base_bias", base_bias)):
        if bias is not None:
            require_bias(name, bias, len(weights), weights)
    units, hidden_units = weights.shape
    first_chain = require_chains(first_chain, chains, max(weights.shape))
    base = torch.zeros_like(visible_bias) if base_bias is None else base_bias
    chain = torch.arange(first_chain, first_chain + chains, device=weights.device)
    groups = chain[:, None] * (-(-units // 4)) + torch.arange(-(-units // 4), device=weights.device)
    drawn = uniforms(random_words(groups, seed, 0, Stream.INITIAL_UNITS)).flatten(1)[:, :units]
    visible = (drawn < torch.sigmoid(base.float())).to(torch.uint8)
    base_logits = base.double()
    log_weights = visible.new_full((chains,), hidden_units * math.log(2), dtype=torch.float64)
    log_weights += torch.nn.functional.softplus(base_logits).sum()

    def log_probability(number: int) -> Tensor:
        """The unnormalized log probability of ``visible`` under distribution ``number``."""
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
    """Estimate log Z of an Ising model on a torus at inverse temperature ``schedule[-1]``, from independent spins.

    ``schedule``, errors and warnings are those of `annealed_importance_sampling`; ``lattices``, at least 2, are its
    chains. The other arguments are those of `boltzbench.kernels.ising.ising_sweeps`. The initial spins draw step 0 of
    the stream, and sweep ``t`` draws step ``1 + t``.
    """
    betas = _require_schedule(schedule)
    height, width = integer("height", height, 2), integer("width", width, 2)
    lattices, sweeps = _require_independent("lattices", lattices), integer("sweeps", sweeps, 1, STEP_LIMIT)
    coupling, field = real("coupling", coupling), real("field", field)
    spins = random_spins(height, width, lattices, seed=seed, first_lattice=first_lattice, device=device)
    log_weights = torch.full((lattices,), height * width * math.log(2), dtype=torch.float64, device=spins.device)
    for number in range(1, len(betas)):
        log_weights -= (betas[number] - betas[number - 1]) * energy(
            unpack_spins(spins, width), coupling, field, check_values=False
        )
        if number < len(betas) - 1:
            spins = ising_sweeps(
                spins, width, sweeps, betas[number], coupling=coupling, field=field, rule=rule, seed=seed,
                first_sweep=1 + (number - 1) * sweeps, first_lattice=first_lattice, backend=backend,
            )  # fmt: skip
    return LogPartitionEstimate.of(log_weights)


def _frames_in_this_package() -> int:
    """The ``stacklevel`` with which a warning of the caller points to the code that called this package."""
    package, frame, level = __name__.rpartition(".")[0], sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        frame, level = frame.f_back, level + 1
    return level


def _bias_between(visible_bias: Tensor, base: Tensor, beta: float, last: float) -> Tensor:
    """The visible biases at ``beta > 0`` which, times beta, give the biases of the intermediate distribution."""
    return visible_bias + base * ((1 - beta / last) / beta)


def _require_independent(name: str, count: int) -> int:
    return integer(name, count, 2, INT64_MAX, " for a standard error")


def _require_schedule(schedule: Sequence[float] | Tensor) -> list[float]:
    betas = reals("schedule", schedule)
    if len(betas) < 2:
        raise ValueError(f"schedule must have at least two inverse temperatures, got {len(betas)}")
    if betas[0] != 0:
        raise ValueError(f"schedule must begin at 0, where the partition function is known, got {betas[0]}")
    if not all(a < b for a, b in pairwise(betas)):
        raise ValueError("schedule must increase")
    return betas
