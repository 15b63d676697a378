"""Systems for parallel tempering: replicas that advance at given temperatures and return their energies."""

import math
from typing import Protocol

import torch
from torch import Tensor

from ..common.derivatives import not_differentiable
from ..common.dispatch import require_tensor
from ..ising import energy, ising_sweeps, unpack_spins, words_of
from ..machines.packed_spins import PARTS
from ..machines.rbm_checks import WEIGHT_DTYPES, require_bias
from ..machines.states import random_spins
from ..numbers import INT64_MAX, integer, real
from ..philox import STEP_LIMIT, Stream, check_counter, random_words
from ..rbm_gibbs import gibbs


class Replicas(Protocol):
    """``count`` replicas of a system, numbered from ``first`` on in the stream; ``log_states`` is log Z at beta 0."""

    count: int
    log_states: float
    device: torch.device

    def advance(self, betas: Tensor, round_number: int) -> Tensor:
        """Do a round of sweeps, replica i at ``betas[i]``, float64; return the energies, float64 (count,)."""
        ...


def _require_place(count: int, sweeps: int, first: int, groups: int) -> tuple[int, int, int]:
    """The numbers; each replica takes ``groups`` groups of the stream at a step."""
    count, sweeps = integer("count", count), integer("sweeps", sweeps, 1, STEP_LIMIT)
    return count, sweeps, integer("first", first, 0, INT64_MAX // groups - count)


class RbmReplicas:
    """Replicas of a restricted Boltzmann machine, advanced by `boltzbench.kernels.rbm_gibbs`.

    ``states``, uint8 (count, visible units), start as fair coins. A round is ``sweeps`` sweeps. Energies are joint, of
    visible and hidden units, and have no derivative. Their sums are float64, where sums of float32 weights are exact
    unless the weights span many orders of magnitude: so they do not depend on ``count`` either.
    """

    def __init__(
        self,
        weights: Tensor,
        visible_bias: Tensor,
        hidden_bias: Tensor,
        count: int,
        *,
        seed: int,
        sweeps: int = 1,
        first: int = 0,
        backend: str = "auto",
    ) -> None:
        require_tensor("weights", weights, WEIGHT_DTYPES, None)
        if weights.dim() != 2:
            raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
        require_bias("visible_bias", visible_bias, weights.shape[0], weights)
        require_bias("hidden_bias", hidden_bias, weights.shape[1], weights)
        count, sweeps, first = _require_place(count, sweeps, first, max(weights.shape) // 4 + 1)
        seed, _, _ = check_counter(seed, 0)
        self.machine = weights, visible_bias, hidden_bias
        self.count, self.seed, self.sweeps, self.first, self.backend = count, seed, sweeps, first, backend
        self.device = weights.device
        self.log_states = sum(weights.shape) * math.log(2)
        units = len(weights)
        groups = torch.arange(first, first + count, device=self.device)[:, None] * (-(-units // 4))
        groups = groups + torch.arange(-(-units // 4), device=self.device)
        words = random_words(groups, seed, 0, Stream.INITIAL_UNITS).flatten(1)[:, :units]
        self.states = (words >> 31).to(torch.uint8)

    @not_differentiable("betas")
    def advance(self, betas: Tensor, round_number: int) -> Tensor:
        weights, visible_bias, hidden_bias = self.machine
        self.states, hidden, _ = gibbs(
            self.states, weights, visible_bias, hidden_bias, self.sweeps, betas, seed=self.seed,
            first_sweep=1 + round_number * self.sweeps, first_chain=self.first, check_values=round_number == 0,
            backend=self.backend,
        )  # fmt: skip
        v, h = self.states.double(), hidden.double()
        fields = v @ weights.double() + hidden_bias.double()
        return -((fields * h).sum(1) + (v * visible_bias.double()).sum(1))


class IsingReplicas:
    """Replicas of an Ising model on a torus, advanced by `boltzbench.kernels.ising`.

    ``states``, packed, int32 (count, 2, height, ceil(width / 64)), start as fair coins. A round is ``sweeps`` sweeps.
    """

    def __init__(
        self,
        height: int,
        width: int,
        count: int,
        *,
        seed: int,
        coupling: float = 1.0,
        field: float = 0.0,
        rule: str = "heat_bath",
        sweeps: int = 1,
        first: int = 0,
        device: torch.device | str = "cpu",
        backend: str = "auto",
    ) -> None:
        height, width = integer("height", height, 2), integer("width", width, 2)
        count, sweeps, first = _require_place(count, sweeps, first, PARTS * height * words_of(width))
        seed, _, _ = check_counter(seed, 0)
        coupling, field = real("coupling", coupling), real("field", field)
        self.width, self.coupling, self.field, self.rule = width, coupling, field, rule
        self.count, self.seed, self.sweeps, self.first, self.backend = count, seed, sweeps, first, backend
        self.log_states = height * width * math.log(2)
        self.states = random_spins(height, width, count, seed=seed, first_lattice=first, device=device)
        self.device = self.states.device

    def advance(self, betas: Tensor, round_number: int) -> Tensor:
        self.states = ising_sweeps(
            self.states, self.width, self.sweeps, betas, coupling=self.coupling, field=self.field, rule=self.rule,
            seed=self.seed, first_sweep=1 + round_number * self.sweeps, first_lattice=self.first, backend=self.backend,
        )  # fmt: skip
        spins = unpack_spins(self.states, self.width)
        return energy(spins, self.coupling, self.field, check_values=False)
