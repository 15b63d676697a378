"""Population annealing, over ranks: a population of replicas is cooled, and resampled at each temperature.

From inverse temperature ``beta`` to ``beta'`` each replica gets the weight ``exp(-(beta' - beta) E)``. The population
is resampled in proportion, at constant size, and then makes sweeps at ``beta'``. ``log Z`` grows by the log of the mean
weight: ``exp(log_z)`` is unbiased for every schedule.

Each rank holds a share. At each temperature it sends the others 8 bytes for each of its replicas, the energy, and every
rank decides alike which replicas have how many copies. Then states move to where they are needed: they stay in the
order of their parents, so that only those near the borders of shares cross, and each crosses once.

Sources: Hukushima and Iba, AIP Conf. Proc. 690 (2003); Machta, Phys. Rev. E 82 (2010); Wang, Machta and Katzgraber,
Phys. Rev. E 92 (2015), families; Douc, Cappe and Moulines, ISPA 2005, systematic resampling.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ..numbers import integer, reals
from ..parallel_tempering import Replicas
from ..philox import Stream, check_counter, fractions, random_words
from .ranks import Ranks


class Population(Replicas, Protocol):
    """Replicas, as for replica exchange, whose ``states`` can be replaced: a tensor with a row for each replica."""

    states: Tensor


class AnnealedPopulation(NamedTuple):
    """The results of population annealing; all but ``states`` are the same on every rank.

    - ``states``: those of this rank's share of the population at the last beta.
    - ``energies``: float64 (replicas,), at the last beta; on the CPU, as are the others.
    - ``log_z``: float64 (betas,), at each beta.
    - ``mean_energy``: float64 (betas,), of the population at each beta, after its sweeps.
    - ``families``: int64 (replicas,), the number of the replica at the first beta from which each replica descends.
    """

    states: Tensor
    energies: Tensor
    log_z: Tensor
    mean_energy: Tensor
    families: Tensor

    @property
    def mean_square_family(self) -> float:
        """``rho = sum_f n_f^2 / replicas`` for families of ``n_f`` replicas: 1 at first, and far below ``replicas``
        where ``log_z`` can be trusted. Only about ``replicas / rho`` replicas are independent."""
        sizes = torch.bincount(self.families).double()
        return float((sizes**2).sum() / len(self.families))


def population_annealing(
    make_replicas: Callable[[int, int], Population],
    replicas: int,
    betas: Sequence[float] | Tensor,
    *,
    seed: int,
    ranks: Ranks | None = None,
) -> AnnealedPopulation:
    """Anneal a population of ``replicas`` replicas through ``betas``, shared by ``ranks``.

    Args:
        make_replicas: called once on each rank with the number of its first replica and how many it has, none where
            ranks outnumber replicas: ``lambda first, count: IsingReplicas(8, 8, count, first=first, seed=7)``. It makes
            a `Population`, such as those of `boltzbench.kernels.parallel_tempering`.
        replicas: on all ranks together, at least 1.
        betas: inverse temperatures, increasing from 0, where log Z is known; the sweeps at beta number k are the
            replicas' round k.
        seed: the key of the random stream; the replicas' sweeps may use the same.
        ranks: by default all, or where torch.distributed is not initialized this process alone.

    Raises ValueError, naming the argument, and RankError. The bits do not depend on the number of ranks if the replicas
    do not depend on how they are divided.

    With weights ``w_i`` and their sums ``c_i = w_0 + ... + w_i``, replica ``j`` of the new population is a copy of the
    first ``i`` with ``c_i > (j + u) c_last / replicas``. The number ``u`` in (0, 1) is word 0 of group 0 at step k of
    tensor 1 of the stream ``SWAP``.
    """
    ranks = ranks or Ranks()
    with ranks.together():
        values = reals("betas", betas)
        if not values or values[0] != 0 or not all(a < b for a, b in pairwise(values)):
            raise ValueError(f"betas must increase from 0, where log Z is known, got {values}")
        replicas = integer("replicas", replicas, 1)
        seed, _, _ = check_counter(seed, 0, steps=len(values))
        share = ranks.share(replicas)
        own = make_replicas(share.start, len(share))
        ranks.require_same(replicas=replicas, betas=values, seed=seed, log_states=own.log_states)
        families = torch.arange(replicas, device="cpu")
        energies = torch.zeros(replicas, dtype=torch.float64, device="cpu")
        log_z, means = [own.log_states], []
        for number, beta in enumerate(values):
            if number:
                log_weights = -(beta - values[number - 1]) * energies
                parents, log_mean = _resample(log_weights, seed, number)
                log_z.append(log_z[-1] + log_mean)
                families = families[parents]
                own.states = ranks.take(own.states, parents)
            each = torch.full((len(share),), beta, dtype=torch.float64, device=own.device)
            energies = ranks.gather(own.advance(each, number)).cpu()
            means.append(float(energies.mean()))
    of_betas, mean_energy = (torch.tensor(numbers, dtype=torch.float64, device="cpu") for numbers in (log_z, means))
    return AnnealedPopulation(own.states, energies, of_betas, mean_energy, families)


def _resample(log_weights: Tensor, seed: int, step: int) -> tuple[Tensor, float]:
    """The parent of each new replica, int64 (replicas,) in ascending order, and the log of the mean weight."""
    peak = log_weights.max()
    sums = torch.exp(log_weights - peak).cumsum(0)
    u = fractions(random_words(sums.new_zeros((), dtype=torch.int64), seed, step, Stream.SWAP, 1)[0], torch.float64)
    places = (torch.arange(len(sums), device=sums.device) + u) * (sums[-1] / len(sums))
    parents = torch.searchsorted(sums, places, right=True).clamp_(max=len(sums) - 1)
    return parents, float(peak + torch.log(sums[-1] / len(sums)))
