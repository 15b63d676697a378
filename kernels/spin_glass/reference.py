"""Annealing of spin glasses in torch, all walkers at a time: the reference for the kernels of bonds and of links.

Local fields are integers below 2**53, so that float64 holds them exactly in any order of summation.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..machines.packed_spins import WORD, pack_bits, random_numbers, unpack_bits
from ..philox import Stream, random_words
from .links import factors
from .request import LaunchRequest

Update = Callable[[int, int, Tensor, Tensor], Tensor]
"""``update(sweep, i, field, up)``: which walkers have spin i up afterwards."""


def draw_numbers(groups: Tensor, sites: int, seed: int, sweep: int) -> Tensor:
    """The 32-bit random number of each spin in a sweep over bonds, for groups of 32 walkers: int64 (walkers, sites)."""
    word = groups[:, None] * sites + torch.arange(sites, device=groups.device)
    return random_numbers(word, seed, sweep, Stream.GLASS_SITES).transpose(1, 2).flatten(0, 1)


def draw_words(walkers: Tensor, sites: int, seed: int, sweep: int) -> Tensor:
    """The 32-bit random number of each spin in a sweep over links: int64 (walkers, sites)."""
    quads = -(-sites // 4)
    group = walkers[:, None] * quads + torch.arange(quads, device=walkers.device)
    return random_words(group, seed, sweep, Stream.GLASS_LINKS).flatten(1)[:, :sites]


def anneal(request: LaunchRequest) -> None:
    """Write ``request.out`` and ``request.energies``."""
    links, sites = request.glass.links, request.glass.spins
    ups = unpack_bits(request.spins).flatten(1).double()
    neighbours = torch.split(links.links[:, 0].long(), list(links.sizes))
    couplings = torch.split(links.links[:, 1].double(), list(links.sizes))
    start, held = links.fields.double().unbind(1)

    def field(i: int) -> Tensor:
        return start[i] + 2 * (couplings[i][:, None] * ups[neighbours[i]]).sum(0)

    update = _by_bonds(request, ups.shape[1]) if request.glass.bonds else _by_links(request, ups.shape[1])
    for sweep in range(request.schedule.sweeps):
        for i in range(sites):
            ups[i] = update(sweep, i, field(i), ups[i] == 1).double()
    request.out.copy_(pack_bits(ups.view(sites, -1, WORD)))
    total = torch.zeros_like(request.energies)
    for i in range(sites):
        total += (2 * ups[i] - 1) * (field(i) + held[i])
    request.energies.copy_(-0.5 * links.unit * total)


def _by_bonds(request: LaunchRequest, walkers: int) -> Update:
    """Flips by thresholds of the change of energy."""
    bonds, tables = request.glass.bonds, request.schedule.thresholds[request.rule].to(torch.int64) & 0xFFFFFFFF
    assert bonds is not None
    odds = bonds.starts & 1
    first = request.first_walker // WORD
    groups = torch.arange(first, first + walkers // WORD, device=request.spins.device)
    unit = request.glass.links.unit
    drawn: dict[int, Tensor] = {}

    def update(sweep: int, i: int, field: Tensor, up: Tensor) -> Tensor:
        if i == 0:
            drawn[0] = draw_numbers(groups, request.glass.spins, request.seed, request.first_sweep + sweep)
        numbers, odd = drawn[0][:, i], odds[i]
        change = (2 * unit * torch.where(up, field, -field)).long()
        if request.rule == "heat_bath":
            flips = (change <= 0) ^ (numbers < tables[sweep, odd, change.abs() // 4])
        else:
            kind = ((change + 2 * odd) // 4 - 1).clamp(min=0)
            flips = (change <= 0) | (numbers < tables[sweep, odd, kind])
        return up ^ flips

    return update


def _by_links(request: LaunchRequest, walkers: int) -> Update:
    """Flips by probabilities that `factors` computes from the local field."""
    numbered = torch.arange(request.first_walker, request.first_walker + walkers, device=request.spins.device)
    exponent = request.glass.links.exponent
    drawn: dict[int, Tensor] = {}

    def update(sweep: int, i: int, field: Tensor, up: Tensor) -> Tensor:
        if i == 0:
            drawn[0] = draw_words(numbered, request.glass.spins, request.seed, request.first_sweep + sweep)
        number, limit = drawn[0][:, i], factors(field.long(), request.schedule.rates[sweep], exponent)
        if request.rule == "heat_bath":
            against = number < _high_product(limit, 0xFFFFFFFF - number)
            return (field >= 0) ^ against
        raises = torch.where(up, field, -field) > 0
        return up ^ (~raises | (number < limit))

    return update


def _high_product(a: Tensor, b: Tensor) -> Tensor:
    """The upper 32 bits of the product of 32-bit numbers in int64, whose own product may not fit."""
    return ((a >> 16) * b + ((a & 0xFFFF) * b >> 16)) >> 16
