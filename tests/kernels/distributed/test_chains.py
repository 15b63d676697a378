"""Chains shared by ranks end where those of one process end: each sampler gets the number of its first chain."""

import pytest
import torch
from boltzbench.kernels.annealed_langevin import annealed_langevin
from boltzbench.kernels.boltzmann_gibbs import boltzmann_gibbs, prepare_units
from boltzbench.kernels.distributed import Ranks
from boltzbench.kernels.ising import ising_sweeps
from boltzbench.kernels.rbm_gibbs import gaussian_gibbs, gibbs
from boltzbench.kernels.sgld import psgld_update, sghmc_update, sgld_update
from boltzbench.kernels.spin_glass import anneal_spins, lattice_glass
from support.ranks import SIZES

CHAINS = 22  # of which 8 ranks have 3 or 2
WALKERS = 96
"""Of a spin glass, 32 to a word."""


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def coins(*shape):
    return (drawn(*shape) > 0).to(torch.uint8)


def rbm(own):
    states = coins(CHAINS, 13)[own.start : own.stop]
    found = gibbs(states, drawn(13, 9), drawn(13), drawn(9), 4, 0.7, seed=3, first_chain=own.start)
    return torch.cat([found.visible, found.hidden], 1)


def gaussian(own):
    states = drawn(CHAINS, 13)[own.start : own.stop]
    found = gaussian_gibbs(
        states, drawn(13, 9) / 4, drawn(13), drawn(9), torch.ones(13), 4, seed=3, first_chain=own.start
    )
    return found.visible


def boltzmann(own):
    weights = drawn(13, 13)
    machine = prepare_units((weights + weights.t()) * (1 - torch.eye(13)), drawn(13))
    return boltzmann_gibbs(coins(CHAINS, 13)[own.start : own.stop], machine, 4, seed=3, first_chain=own.start)


def ising(own):
    spins = (drawn(CHAINS, 2, 6, 1) * 1e9).to(torch.int32) & 0x7
    return ising_sweeps(spins[own.start : own.stop], 6, 4, 0.4, seed=3, first_lattice=own.start)


def glass(own):
    spins = (drawn(16, WALKERS // 32) * 1e9).to(torch.int32)[:, own.start // 32 : own.stop // 32]
    couplings = lattice_glass(4, 4, torch.Generator().manual_seed(1))
    schedule = torch.linspace(2, 0.5, 5, dtype=torch.float64)
    return anneal_spins(spins, couplings, schedule, seed=3, first_walker=own.start).spins.t()


def langevin(own):
    schedule = torch.linspace(2, 0.5, 5, dtype=torch.float64)
    return annealed_langevin(drawn(CHAINS)[own.start : own.stop], schedule, 0.01, seed=3, first_walker=own.start).x


def updates(own):
    """A chain is a tensor, and its number that of the tensor in the stream."""
    chains, gradients, states = ([*drawn(CHAINS, 7, seed=seed).abs()[own.start : own.stop]] for seed in (1, 2, 3))
    momenta = [each.clone() for each in states]
    for step in range(2):
        sgld_update(chains, gradients, 1e-2, seed=3, step=3 * step, tensor_numbers=own)
        psgld_update(chains, gradients, states, 1e-2, seed=3, step=3 * step + 1, tensor_numbers=own)
        sghmc_update(chains, gradients, momenta, 1e-2, seed=3, step=3 * step + 2, tensor_numbers=own)
    return torch.stack(chains) if chains else torch.empty(0, 7)


def shared(group, name, count, multiple):
    ranks = Ranks(group)
    with ranks.together():
        return ranks.gather(globals()[name](ranks.share(count, multiple=multiple)))


@pytest.mark.parametrize("sampler", [rbm, gaussian, boltzmann, ising, glass, langevin, updates])
def test_chains_end_alike_for_every_number_of_ranks(pool, sampler):
    count, multiple = (WALKERS, 32) if sampler is glass else (CHAINS, 1)
    wanted = sampler(range(count))
    assert len(wanted.unique(dim=0)) > 2
    for size in SIZES:
        for found in pool.run(size, shared, sampler.__name__, count, multiple):
            assert torch.equal(found, wanted)
