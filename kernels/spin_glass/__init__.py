"""Simulated annealing of Ising spin glasses: one launch takes many walkers through a whole schedule of temperatures.

Energy ``E = -sum_{i<j} J_ij s_i s_j``, spins -1 and +1. ``J`` is symmetric, has integer entries and is 0 on the
diagonal: the couplings of `boltzbench.kernels.ising.SpinMachine`, without fields. A sweep updates spins 0, 1, ...,
n - 1 in this order, by the heat bath or by the Metropolis rule.

Sources: Edwards and Anderson, J. Phys. F 5 (1975); Glauber, J. Math. Phys. 4 (1963), the heat bath; Metropolis et al.,
J. Chem. Phys. 21 (1953); Kirkpatrick, Gelatt and Vecchi, Science 220 (1983); Isakov et al., Comput. Phys. Commun. 192
(2015), walkers packed into words.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.dispatch import backend_module, choose_backend, note_written, require_output, require_tensor, running_on
from ..machines.packed_spins import PARTS, WORD
from ..numbers import integer
from ..philox import check_counter
from ..schedules import require_schedule
from .bonds import MOST_TOTAL, RULES, Bonds, bonds_of, lattice_glass, thresholds
from .request import LaunchRequest
from .states import energies, pack_walkers, random_walkers, unpack_walkers

__all__ = [
    "MOST_TOTAL",
    "RULES",
    "AnnealedGlass",
    "Bonds",
    "anneal_spins",
    "bonds_of",
    "energies",
    "lattice_glass",
    "pack_walkers",
    "random_walkers",
    "unpack_walkers",
]


class AnnealedGlass(NamedTuple):
    """Final ``spins``, packed, int32 (n, walkers / 32); ``energies``, int32 (walkers,); ``best`` energy, int32 ()."""

    spins: Tensor
    energies: Tensor
    best: Tensor


def anneal_spins(
    spins: Tensor,
    couplings: Tensor | Bonds,
    temperatures: Tensor,
    *,
    rule: str = "heat_bath",
    seed: int,
    first_sweep: int = 0,
    first_walker: int = 0,
    out: Tensor | None = None,
    backend: str = "auto",
) -> AnnealedGlass:
    """Anneal every walker: one sweep at each of the temperatures.

    Args:
        spins: spins from `pack_walkers` or `random_walkers`: int32 (n, walkers / 32); not modified.
        couplings: symmetric (n, n), of any dtype, on any device: integers, 0 on the diagonal, the magnitudes in a row
            adding up to at most `MOST_TOTAL`; or the result of `bonds_of`, which saves converting them again. To use
            real couplings, multiply couplings and temperatures by one factor, then round the couplings.
        temperatures: temperature of each sweep, float64 (sweeps,), positive and finite, on the CPU or the device of
            ``spins``; see `boltzbench.kernels.schedules`. Values on a GPU are not checked.
        rule: ``heat_bath``, probability ``1 / (1 + exp(dE / T))`` of a flip; or ``metropolis``, with probability
            ``min(1, exp(-dE / T))``.
        seed: the key of the random stream, in [0, 2**64).
        first_sweep: number of the first sweep in the stream; to continue a run, pass the number of sweeps done.
        first_walker: number of the first walker in the stream, a multiple of 32; with it, a batch split over calls ends
            in the same spins.
        out: contiguous tensor for the spins; it must not share memory with the arguments.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, couplings are not symmetric integers or too strong, the schedule is empty,
            a number is out of range, or ``rule`` or ``backend`` is unknown or cannot run here.

    At a constant temperature both rules leave the Boltzmann distribution invariant, up to the rounding below. By the
    heat bath, every state leads to every other in one sweep, so that walkers converge to it on every graph, if
    ``|dE| / T < 33 log 2 = 22.87`` for every flip. A probability below ``2**-33`` rounds to 0, and such a flip never
    happens. Metropolis flips for certain where ``dE = 0``, and in a fixed order it does not converge

    - on a ring with its spins in order, at any temperature: a sweep moves domain walls around the ring and seldom lets
      them meet. 256 spins at T = 1 stay near energy -2; the mean is -195;
    - on tori of 2 x 2 or 3 x 3 spins, where stripes lead to stripes only;
    - without couplings, or at a high temperature: a sweep flips every spin, so that two sweeps change nothing. This
      holds for each spin that has no bonds.

    Use it only for graphs and orders that are known to mix.

    For spin ``i``, walkers ``32 g`` to ``32 g + 31`` draw the groups ``8 (n g + i)`` to ``8 (n g + i) + 7`` at step
    ``first_sweep + t`` of the stream ``GLASS_SITES``. Bit ``k`` of their 32 words, most significant first, makes the
    random number of walker ``32 g + k``. Every backend gives the same spins.

    - Heat bath: with a number less than ``2**32 / (1 + exp(|dE| / T))``, rounded, a spin flips if ``dE > 0``;
      otherwise it flips if ``dE <= 0``.
    - Metropolis: a spin flips if ``dE <= 0``, or if its number is less than ``2**32 exp(-dE / T)``, rounded and at most
      ``2**32 - 1``.
    """
    require_tensor("spins", spins, (torch.int32,), None)
    if spins.ndim != 2:
        raise ValueError(f"spins must have shape (n, walkers / {WORD}), got {tuple(spins.shape)}")
    sites, groups = spins.shape
    bonds = couplings if isinstance(couplings, Bonds) else bonds_of(couplings)
    if len(bonds.couplings) != sites:
        raise ValueError(f"couplings must be ({sites}, {sites}) for {sites} spins, got {tuple(bonds.couplings.shape)}")
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    require_tensor("temperatures", temperatures, (torch.float64,), None)
    if temperatures.device.type != "cpu" and temperatures.device != spins.device:
        raise ValueError(f"temperatures must be on the CPU or on {spins.device}, got {temperatures.device}")
    require_schedule("temperatures", temperatures)
    first_walker = integer("first_walker", first_walker)
    seed, first_sweep, _ = check_counter(seed, first_sweep, steps=len(temperatures), step_name="first_sweep")
    if first_walker % WORD or (first_walker // WORD + groups) * sites * PARTS >= 1 << 63:
        raise ValueError(f"first_walker must be a multiple of {WORD} and end below group 2**63; got {first_walker}")
    chosen = choose_backend(backend, spins.device)
    kernels = backend_module(chosen, __name__)
    result = torch.empty_like(spins, memory_format=torch.contiguous_format) if out is None else out
    require_tensor("out", result, (torch.int32,), spins.device)
    require_output("out", result, spins.shape, {"spins": spins, "temperatures": temperatures})
    result.copy_(spins)
    if spins.numel():
        table = thresholds(temperatures, bonds.size, rule).to(spins.device)
        each = bonds.on(spins.device)
        with running_on(spins.device):
            kernels.anneal(
                LaunchRequest(result, each, table, rule == "heat_bath", seed, first_sweep, first_walker // WORD)
            )
    note_written(result)
    found = energies(result, bonds.couplings)
    best = found.amin() if groups else torch.zeros((), dtype=torch.int32, device=spins.device)
    return AnnealedGlass(result, found, best)
