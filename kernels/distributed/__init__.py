"""Samplers over many processes, with `torch.distributed`: the same bits for every number of ranks.

A chain's random numbers are named by its number, so a rank samples its share of the chains by the functions of one
process, and says where in the stream they are:

    with join() as (ranks, device):  # under torchrun, or alone
        share = ranks.share(4096)  # this rank's chains, as a range
        visible = torch.zeros(len(share), 784, dtype=torch.uint8, device=device)
        visible, hidden, _ = gibbs(visible, weights, b, c, sweeps=100, seed=7, first_chain=share.start)
        means = ranks.gather(hidden.double().mean(1))  # of all chains, on every rank

The README says which argument that is for each sampler. The algorithms here do this by themselves, and exchange what
they must; each has the name of the function for one process, and its arguments.
"""

from .cost import Exchange, Link, measured_link
from .enumeration import log_partition, rbm_log_partition
from .importance import annealed_importance_sampling, ising_annealed_importance_sampling
from .lattice import IsingLattice
from .population import AnnealedPopulation, Population, population_annealing
from .ranks import TIMEOUT, RankError, Ranks, join
from .tempering import parallel_tempering
from .training import persistent_contrastive_divergence

__all__ = [
    "TIMEOUT",
    "AnnealedPopulation",
    "Exchange",
    "IsingLattice",
    "Link",
    "Population",
    "RankError",
    "Ranks",
    "annealed_importance_sampling",
    "ising_annealed_importance_sampling",
    "join",
    "log_partition",
    "measured_link",
    "parallel_tempering",
    "persistent_contrastive_divergence",
    "population_annealing",
    "rbm_log_partition",
]
