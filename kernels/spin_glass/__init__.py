"""Simulated annealing of Ising spin glasses: one launch takes many walkers through a whole schedule of temperatures.

Energy ``E = -sum_{i<j} J_ij s_i s_j - sum_i h_i s_i``, spins -1 and +1. ``J`` is symmetric and 0 on the diagonal: the
couplings and fields of `boltzbench.kernels.ising.SpinMachine`. A sweep updates spins 0, 1, ..., n - 1 in this order, by
the heat bath or by the Metropolis rule.

Sources: Edwards and Anderson, J. Phys. F 5 (1975); Glauber, J. Math. Phys. 4 (1963), the heat bath; Metropolis et al.,
J. Chem. Phys. 21 (1953); Kirkpatrick, Gelatt and Vecchi, Science 220 (1983); Isakov et al., Comput. Phys. Commun. 192
(2015), walkers packed into words.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import backend_module, choose_backend, note_written, require_output, require_tensor, running_on
from ..machines.packed_spins import WORD
from ..numbers import integer
from ..philox import check_counter
from .bonds import RULES
from .prepared import PreparedGlass, PreparedSchedule, prepare_glass, prepare_schedule
from .request import LaunchRequest
from .states import energies, lattice_glass, pack_walkers, random_walkers, unpack_walkers

__all__ = [
    "RULES",
    "AnnealedGlass",
    "PreparedGlass",
    "PreparedSchedule",
    "anneal_spins",
    "bonds_of",
    "energies",
    "lattice_glass",
    "pack_walkers",
    "prepare_glass",
    "prepare_schedule",
    "random_walkers",
    "unpack_walkers",
]


bonds_of = prepare_glass
"""The name of `prepare_glass` in version 0.1.0."""


class AnnealedGlass(NamedTuple):
    """Final ``spins``, packed, int32 (n, walkers / 32), and their ``energies``, float64 (walkers,)."""

    spins: Tensor
    energies: Tensor

    @property
    def best(self) -> Tensor:
        """The lowest of the energies, float64 (). Raises ValueError if there are no walkers."""
        if not len(self.energies):
            raise ValueError("no walkers, so no energy is the lowest")
        return self.energies.amin()


def anneal_spins(
    spins: Tensor,
    couplings: Tensor | PreparedGlass,
    temperatures: Tensor | PreparedSchedule,
    *,
    fields: Tensor | None = None,
    rule: str = "heat_bath",
    seed: int,
    first_sweep: int = 0,
    first_walker: int = 0,
    out: Tensor | None = None,
    energies_out: Tensor | None = None,
    backend: str = "auto",
) -> AnnealedGlass:
    """Anneal every walker: one sweep at each of the temperatures.

    Args:
        spins: spins from `pack_walkers` or `random_walkers`: int32 (n, walkers / 32); not modified.
        couplings: ``J``, (n, n), of any real or integer dtype, on any device: finite, symmetric, 0 on the diagonal; or
            the result of `prepare_glass`, which holds the fields too and saves converting them at each call.
        temperatures: temperature of each sweep, float64 (sweeps,), positive and finite, on the CPU or the device of
            ``spins``; see `boltzbench.kernels.schedules`. Values on a GPU are not checked. Or the result of
            `prepare_schedule`. If both are prepared, a call does nothing but the launch.
        fields: ``h``, (n,), of any real or integer dtype, on any device, finite; none by default.
        rule: ``heat_bath``, probability ``1 / (1 + exp(dE / T))`` of a flip; or ``metropolis``, with probability
            ``min(1, exp(-dE / T))``.
        seed: the key of the random stream, in [0, 2**64).
        first_sweep: number of the first sweep in the stream; to continue a run, pass the number of sweeps done.
        first_walker: number of the first walker in the stream, a multiple of 32; with it, a batch split over calls ends
            in the same spins.
        out: contiguous tensor for the spins; it must not share memory with the arguments.
        energies_out: the same for the energies, float64 (walkers,).
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, couplings are not symmetric or not finite, the schedule is empty, what is
            prepared is out of date or on another device, a number is out of range, or ``rule`` or ``backend`` is
            unknown or cannot run here.
        NotImplementedError: under a transform of ``torch.func``.

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

    The couplings decide which of two kernels runs, and what it draws. Every backend gives the same spins and energies.

    **Bonds**: integer couplings without fields, whose magnitudes add up to at most 31 for every spin, and to less than
    ``2**17`` for all. A thread updates 32 walkers at once. For spin ``i``, walkers ``32 g`` to ``32 g + 31`` draw the
    groups ``8 (n g + i)`` to ``8 (n g + i) + 7`` at step ``first_sweep + t`` of the stream ``GLASS_SITES``. Bit ``k``
    of their 32 words, most significant first, makes the random number of walker ``32 g + k``.

    - Heat bath: with a number less than ``2**32 / (1 + exp(|dE| / T))``, rounded, a spin flips if ``dE > 0``;
      otherwise it flips if ``dE <= 0``.
    - Metropolis: a spin flips if ``dE <= 0``, or if its number is less than ``2**32 exp(-dE / T)``, rounded and at most
      ``2**32 - 1``.

    **Links**: all other glasses. Couplings and fields are rounded to multiples of the least power of two that keeps
    ``|h_i| + sum_j |J_ij|`` below ``2**30`` of them: integers stay exact up to that sum, and the energies are those of
    the rounded couplings, exactly. For spin ``i``, walker ``w`` draws word ``i % 4`` of group ``w ceil(n / 4) + i //
    4`` at step ``first_sweep + t`` of the stream ``GLASS_LINKS``. With this random number ``r`` and ``F``, which is
    ``2**32 exp(-|dE| / T)`` up to a relative error of ``2**-25`` and at most ``2**32 - 1``,

    - Heat bath: a spin ends along its local field (up where that is 0), unless ``r < F (2**32 - 1 - r) / 2**32``,
      rounded down.
    - Metropolis: a spin flips if ``dE <= 0``, or if ``r < F``.
    """
    require_no_transform("anneal_spins")
    require_tensor("spins", spins, (torch.int32,), None)
    if spins.ndim != 2:
        raise ValueError(f"spins must have shape (n, walkers / {WORD}), got {tuple(spins.shape)}")
    sites, groups = spins.shape
    glass = _glass(couplings, fields, spins)
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    schedule = _schedule(temperatures, spins)
    first_walker = integer("first_walker", first_walker)
    seed, first_sweep, _ = check_counter(seed, first_sweep, steps=schedule.sweeps, step_name="first_sweep")
    if first_walker % WORD or (first_walker + groups * WORD) * (sites + 3) >= 1 << 65:
        raise ValueError(f"first_walker must be a multiple of {WORD} and end below group 2**63; got {first_walker}")
    chosen = choose_backend(backend, spins.device, __name__)
    kernels = backend_module(chosen, __name__)
    inputs = {"spins": spins, **{name: x for name, x in (("couplings", couplings), ("fields", fields),
              ("temperatures", temperatures)) if isinstance(x, Tensor)}}  # fmt: skip
    result = torch.empty_like(spins, memory_format=torch.contiguous_format) if out is None else out
    require_tensor("out", result, (torch.int32,), spins.device)
    require_output("out", result, spins.shape, inputs)
    if energies_out is None:
        energies_out = torch.empty(groups * WORD, dtype=torch.float64, device=spins.device)
    require_tensor("energies_out", energies_out, (torch.float64,), spins.device)
    require_output("energies_out", energies_out, torch.Size((groups * WORD,)), {**inputs, "out": result})
    if groups:
        with running_on(spins.device):
            kernels.anneal(
                LaunchRequest(
                    spins.contiguous(), result, energies_out, glass, schedule, rule, seed, first_sweep, first_walker
                )
            )
    note_written(result)
    note_written(energies_out)
    return AnnealedGlass(result, energies_out)


def _glass(couplings: Tensor | PreparedGlass, fields: Tensor | None, spins: Tensor) -> PreparedGlass:
    if not isinstance(couplings, PreparedGlass):
        glass = prepare_glass(couplings, fields, device=spins.device)
    elif fields is not None:
        raise ValueError("fields must be given to prepare_glass, since couplings are prepared")
    else:
        glass = couplings
    if not glass.is_current:
        raise ValueError("couplings are out of date, their sources were written to: prepare them again")
    if glass.spins != len(spins):
        raise ValueError(f"couplings must be for {len(spins)} spins, got {glass.spins}")
    if glass.device != spins.device:
        raise ValueError(f"couplings must be prepared on {spins.device}, got {glass.device}")
    return glass


def _schedule(temperatures: Tensor | PreparedSchedule, spins: Tensor) -> PreparedSchedule:
    if isinstance(temperatures, PreparedSchedule):
        if not temperatures.is_current:
            raise ValueError("temperatures are out of date, they were written to: prepare them again")
        if temperatures.device != spins.device:
            raise ValueError(f"temperatures must be prepared on {spins.device}, got {temperatures.device}")
        return temperatures
    require_tensor("temperatures", temperatures, (torch.float64,), None)
    if temperatures.device.type != "cpu" and temperatures.device != spins.device:
        raise ValueError(f"temperatures must be on the CPU or on {spins.device}, got {temperatures.device}")
    return prepare_schedule(temperatures, device=spins.device)
