"""The Ising model on a torus: checkerboard sweeps of many lattices in one call, with one bit for each spin.

Energy ``E = -J sum s s' - h sum s`` over neighbours on a square lattice, periodic, spins -1 and +1, and ``p(s)``
proportional to ``exp(-beta E)``. One sweep updates all sites of even ``i + j``, then all of odd.

`units_of` and `spins_of` map spins and couplings to the 0/1 units and weights of a Boltzmann machine and back.

Sources: Metropolis et al., J. Chem. Phys. 21 (1953); Glauber, J. Math. Phys. 4 (1963), the heat bath; Block, Virnau and
Preis, Comput. Phys. Commun. 181 (2010), checkerboards of packed spins.
"""

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import backend_module, choose_backend, note_written, require_output, require_tensor, running_on
from ..common.prepared import keep
from ..machines.packed_spins import PARTS
from ..machines.spins_and_units import SpinMachine, UnitMachine, lattice_couplings, spins_of, units_of
from ..numbers import INT64_MAX, can_check, integer, real
from ..philox import STEP_LIMIT, check_counter
from .acceptance import RULES, thresholds
from .request import LaunchRequest
from .slab import Slab
from .states import energy, pack_spins, require_packed, unpack_spins, words_of

__all__ = [
    "PLANS",
    "RULES",
    "Slab",
    "SpinMachine",
    "UnitMachine",
    "energy",
    "ising_sweeps",
    "lattice_couplings",
    "pack_spins",
    "spins_of",
    "units_of",
    "unpack_spins",
    "words_of",
]

PLANS = ("auto", "resident", "half_sweeps")


def ising_sweeps(
    spins: Tensor,
    width: int,
    sweeps: int = 1,
    beta: float | Tensor = 1.0,
    *,
    coupling: float = 1.0,
    field: float = 0.0,
    rule: str = "heat_bath",
    seed: int,
    first_sweep: int = 0,
    first_lattice: int = 0,
    out: Tensor | None = None,
    plan: str = "auto",
    backend: str = "auto",
) -> Tensor:
    """Advance every lattice by ``sweeps`` checkerboard sweeps and return the new spins, packed.

    Args:
        spins: spins packed by `pack_spins`: int32 (lattices, 2, height, ceil(width / 64)); not modified.
        width: sites of a row, even; the height is even, too.
        sweeps: number of sweeps, at least 1.
        beta: inverse temperature, not negative and possibly infinite: a number, or one for each lattice, shape
            (lattices,), float32 or float64.
        coupling, field: ``J`` and ``h``, finite.
        rule: ``heat_bath``, probability ``1 / (1 + exp(beta dE))`` of a flip; or ``metropolis``, with probability
            ``min(1, exp(-beta dE))``.
        seed: the key of the random stream, in [0, 2**64).
        first_sweep: number of the first sweep in the stream; to continue a run, pass the number of sweeps done.
        first_lattice: number of the first lattice in the stream, so that a batch split over calls gives the same spins.
        out: contiguous tensor to write to; it must not share memory with the arguments.
        plan: ``half_sweeps`` launches a kernel for each half sweep. ``resident`` does all sweeps in one launch with the
            lattices in shared memory; it needs backend ``cupy`` and lattices that fit there (up to 1024 x 1024 on an
            H200) and have rows of at most 32768 sites. ``auto`` takes ``resident`` where the lattices fit and are small
            or many.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: an argument is not a dense tensor of a supported dtype.
        ValueError: shapes do not match, a side is odd, a number is out of range, ``rule``, ``plan`` or ``backend`` is
            unknown or cannot run here.
        NotImplementedError: under a transform of ``torch.func``.

    Both rules leave the Boltzmann distribution invariant, up to the rounding of ``P`` below. By the heat bath, every
    state leads to every other in one sweep, so that lattices of every size converge to it from every start, if
    ``beta |dE| < 33 log 2 = 22.87`` for every flip. A probability below ``2**-33`` rounds to 0, and such a flip never
    happens: at ``beta J = 3`` and without a field, lattices of equal spins stay as they are. Metropolis flips for
    certain where ``dE = 0``, and without a field it does not converge

    - at beta 0: a sweep flips every spin, so that two sweeps change nothing;
    - at any beta, from diagonal stripes of two sites (sides that 4 divides) or from rows or columns of alternating
      sign on a side of 2: every spin has two neighbours of each sign, and all flip in each sweep;
    - on 2 x 2 sites, where these stripes and the other states do not lead to each other.

    At a small beta it decorrelates slowly for the same reason.

    A colour of a lattice has ``n = height * ceil(width / 64)`` words. Word ``w`` of lattice ``l`` draws groups
    ``8 (n l + w)`` to ``8 (n l + w) + 7`` at step ``first_sweep + t`` of the stream for its colour. Bit ``k`` of their
    32 words, most significant first, makes the random number of spin ``k``. The spin flips if the number is less than
    ``2**32 P(flip)``, rounded; by the heat bath without a field, a spin with ``dE <= 0`` flips if the number is at
    least ``2**32 P(stay)``. Every backend gives the same spins. Bits beyond the last site must be 0, which is
    checked on a CPU only.
    """
    require_no_transform("ising_sweeps")
    width = require_packed(spins, width)
    lattices, _, height, words = spins.shape
    sweeps = integer("sweeps", sweeps, 1, STEP_LIMIT)
    coupling, field = real("coupling", coupling), real("field", field)
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}; got {rule!r}")
    if plan not in PLANS:
        raise ValueError(f"plan must be one of {', '.join(PLANS)}; got {plan!r}")
    seed, first_sweep, _ = check_counter(seed, first_sweep, steps=sweeps, step_name="first_sweep")
    most = INT64_MAX // max(1, height * words * PARTS) - lattices
    first_lattice = integer("first_lattice", first_lattice, 0, most)
    each = _require_beta(beta, lattices, spins.device)
    chosen = choose_backend(backend, spins.device, __name__)
    result = torch.empty_like(spins, memory_format=torch.contiguous_format) if out is None else out
    require_tensor("out", result, (torch.int32,), spins.device)
    inputs = {"spins": spins, **({"beta": beta} if isinstance(beta, Tensor) else {})}
    require_output("out", result, spins.shape, inputs)
    kernels = backend_module(chosen, __name__)
    table = _table(each, lattices, spins.device, coupling, field, rule)
    fits = chosen == "cupy" and kernels.resident_fits(spins, table.shape[1])
    if plan == "resident" and not fits:
        raise ValueError(
            "plan 'resident' needs backend 'cupy' and lattices that fit in shared memory, with rows of at most 32768 "
            "sites: use 'auto'"
        )
    resident = fits and (plan == "resident" or (plan == "auto" and kernels.resident_pays(spins)))
    if lattices:
        start = spins.contiguous()

        def half(sweep: int, colour: int) -> LaunchRequest:
            own, around = (start if sweep == 0 else result), (start if sweep + colour == 0 else result)
            return LaunchRequest(
                own, around, result, width, table, 1 if coupling >= 0 else -1, colour, seed, first_sweep + sweep,
                first_lattice * height * words, 0, height,
            )  # fmt: skip

        with running_on(spins.device):
            if chosen == "native":
                kernels.all_sweeps(half(0, 0), sweeps)
            elif resident:
                kernels.resident_sweeps(half(0, 0), sweeps)
            else:
                for sweep in range(sweeps):
                    for colour in (0, 1):
                        kernels.half_sweep(half(sweep, colour))
    note_written(result)
    return result


def _table(
    beta: float | Tensor, lattices: int, device: torch.device, coupling: float, field: float, rule: str
) -> Tensor:
    """`thresholds` of each lattice, contiguous; a prepared launch keeps them."""
    sources = (beta,) if isinstance(beta, Tensor) else ()

    def make() -> Tensor:
        each = torch.as_tensor(beta, dtype=torch.float64, device=device).expand(lattices)
        return thresholds(each, coupling, field, rule).contiguous()

    return keep(("thresholds", beta if not sources else None, lattices, coupling, field, rule), make, *sources)


def _require_beta(beta: float | Tensor, lattices: int, device: torch.device) -> float | Tensor:
    """A float, or a tensor (lattices,). Its values are checked on a CPU only, so that no call waits for a GPU."""
    if isinstance(beta, Tensor) and beta.dim():
        require_tensor("beta", beta, (torch.float32, torch.float64), device)
        if beta.shape != (lattices,):
            raise ValueError(f"beta must be a number or have shape ({lattices},), got {tuple(beta.shape)}")
        if can_check(beta) and not bool((beta >= 0).all()):
            raise ValueError("beta must not be negative or NaN")
        return beta
    return real("beta", beta, least=0, infinite=True)
