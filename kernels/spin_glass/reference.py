"""Annealing of spin glasses in torch, walker by walker: the reference for the bit-sliced kernels."""

import torch
from torch import Tensor

from ..machines.packed_spins import random_numbers
from ..philox import Stream
from .request import LaunchRequest
from .states import pack_walkers, unpack_walkers


def draw_numbers(groups: Tensor, sites: int, seed: int, sweep: int) -> Tensor:
    """The 32-bit random number of each spin in a sweep, for groups of 32 walkers: int64 (walkers, sites)."""
    word = groups[:, None] * sites + torch.arange(sites, device=groups.device)
    return random_numbers(word, seed, sweep, Stream.GLASS_SITES).transpose(1, 2).flatten(0, 1)


def anneal(anneal: LaunchRequest) -> None:
    """Update ``anneal.spins`` in place."""
    sites, count = anneal.spins.shape
    device = anneal.spins.device
    spins = unpack_walkers(anneal.spins).float()
    couplings = anneal.bonds.couplings.to(device, torch.float32)
    odd = [int(total) % 2 for total in anneal.bonds.couplings.abs().sum(1)]
    groups = torch.arange(anneal.first_group, anneal.first_group + count, device=device)
    for sweep, table in enumerate(anneal.table.to(torch.int64) & 0xFFFFFFFF):
        numbers = draw_numbers(groups, sites, anneal.seed, anneal.first_sweep + sweep)
        for i in range(sites):
            change = (2 * spins[:, i] * (spins @ couplings[i])).to(torch.int64)
            if anneal.heat_bath:
                against = numbers[:, i] < table[odd[i]][change.abs() // 4]
                flips = (change <= 0) ^ against
            else:
                kind = ((change + 2 * odd[i]) // 4 - 1).clamp(min=0)
                flips = (change <= 0) | (numbers[:, i] < table[odd[i]][kind])
            spins[:, i] = torch.where(flips, -spins[:, i], spins[:, i])
    anneal.spins.copy_(pack_walkers(spins))
