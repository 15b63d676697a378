"""One Ising lattice over ranks, bit-equal to the same lattice on one device.

The rows fall to the ranks in slabs, in order. A half sweep of a row reads the rows next to it, so that after each half
sweep a rank sends the packed border rows of the colour to the ranks before and after it. The exchange of one colour
runs while the inner rows of the other are updated, and only the two border rows wait for it:

    start to exchange the border rows of one colour
    update the other colour in the rows from the second to the last but one
    wait for the rows
    update the other colour in the first and the last row

Random numbers are named by the site's place in the whole lattice and by the sweep (`boltzbench.kernels.ising.Slab`), so
the spins do not depend on the number of ranks.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from ..ising import Slab, words_of
from ..machines.states import random_spins
from ..numbers import integer
from ..philox import STEP_LIMIT, check_counter
from .ranks import Ranks


class IsingLattice:
    """A lattice of ``height`` x ``width`` sites on a torus, of which each rank holds a slab of rows.

    Energy, rules and random stream are those of `boltzbench.kernels.ising.ising_sweeps`, and so are the spins, bit for
    bit, for every number of ranks.

    Args:
        height: rows of the lattice, even, at least 2 for each rank. Slabs differ by 2 rows at most.
        width: sites of a row, even.
        beta: inverse temperature, not negative and possibly infinite.
        spins: the packed spins of this rank's `rows` to start from, int32 (1, 2, rows, ceil(width / 64)). By default
            each is +1 with probability 1/2, by `boltzbench.kernels.machines.states.random_spins` with this seed.
        coupling, field, rule, seed: as in `boltzbench.kernels.ising.ising_sweeps`.
        first_sweep: number of the first sweep in the stream; to continue a run, pass the number of sweeps done.
        ranks: by default those of the default group, or this process alone.
        device: where the slab is, if ``spins`` are not given.
        backend: ``auto``, ``torch``, ``triton``, ``cupy``, or on a CPU ``native``.

    Raises:
        TypeError: ``spins`` is not a dense int32 tensor.
        ValueError: a side is odd, the ranks outnumber pairs of rows, another argument is out of range.
        RankError: an argument or the software differs between the ranks, or a rank does not answer.

    Every rank makes the object and calls its methods with the same arguments.
    """

    rows: range
    """The numbers of this rank's rows."""
    sweeps: int
    """The number of the next sweep in the stream."""

    def __init__(
        self,
        height: int,
        width: int,
        beta: float,
        *,
        seed: int,
        spins: Tensor | None = None,
        coupling: float = 1.0,
        field: float = 0.0,
        rule: str = "heat_bath",
        first_sweep: int = 0,
        ranks: Ranks | None = None,
        device: torch.device | str = "cpu",
        backend: str = "auto",
    ) -> None:
        self.ranks = Ranks() if ranks is None else ranks
        with self.ranks.together():
            self.height = integer("height", height, 2)
            if height % 2:
                raise ValueError(f"height must be even, got {height}")
            if height < 2 * self.ranks.size:
                raise ValueError(
                    f"height must be at least 2 rows for each of {self.ranks.size} ranks, got {height}: use fewer ranks"
                )
            self.rows = self.ranks.share(self.height, multiple=2)
            if spins is None:
                spins = random_spins(
                    height, width, 1, seed=seed, first_row=self.rows.start, rows=len(self.rows), device=device
                )
            if spins.ndim == 4 and spins.shape[2] != len(self.rows):
                raise ValueError(f"spins must be those of {len(self.rows)} rows on {self.ranks}, got {spins.shape[2]}")
            self._slab = Slab(
                spins, width, beta, first_row=self.rows.start, coupling=coupling, field=field, rule=rule, seed=seed,
                backend=backend,
            )  # fmt: skip
            _, self.sweeps, _ = check_counter(seed, first_sweep, step_name="first_sweep")
        slab = self._slab
        settings = (self.height, slab.width, float(beta), slab.coupling, slab.field, rule, slab.seed, self.sweeps)
        self.ranks.require_same(lattice=settings)
        for colour in (0, 1):
            self._exchange(colour)()

    @property
    def spins(self) -> Tensor:
        """This rank's rows, packed: int32 (1, 2, rows, words). A view, which `advance` changes."""
        return self._slab.spins

    @property
    def bytes_per_sweep(self) -> int:
        """Bytes that this rank sends in a sweep: two rows of each colour."""
        return 4 * 4 * words_of(self._slab.width) if self.ranks.size > 1 else 0

    def advance(self, sweeps: int = 1) -> None:
        """Advance the lattice by ``sweeps`` checkerboard sweeps, at least 1.

        Raises RankError if a rank fails or does not answer within the timeout of the group. The spins are then lost:
        begin again with those that were saved.
        """
        with self.ranks.together():
            sweeps = integer("sweeps", sweeps, 1, STEP_LIMIT - self.sweeps)
        self.ranks.require_same(sweeps=range(self.sweeps, self.sweeps + sweeps))
        last, wait = self._slab.rows - 1, _no_wait
        for sweep in range(self.sweeps, self.sweeps + sweeps):
            for colour in (0, 1):
                self._slab.half_sweep(colour, sweep, 1, last - 1)
                wait()
                self._slab.half_sweep(colour, sweep, 0, 1)
                self._slab.half_sweep(colour, sweep, last, 1)
                wait = self._exchange(colour)
        wait()
        self.sweeps += sweeps

    def sums(self) -> tuple[int, int]:
        """``sum s`` and ``sum s s'`` over all bonds, exact, on every rank. Each rank sends 16 bytes to each other."""
        magnetisation, bonds = self.ranks.gather(self._slab.sums()[None]).sum(0).tolist()
        return magnetisation, bonds

    def magnetisation(self) -> float:
        """``sum s / (height width)``."""
        return self.sums()[0] / (self.height * self._slab.width)

    def energy(self) -> float:
        """``E = -J sum s s' - h sum s`` of the whole lattice, as by `boltzbench.kernels.ising.energy`."""
        magnetisation, bonds = self.sums()
        return -self._slab.coupling * bonds - self._slab.field * magnetisation

    def gather(self) -> Tensor:
        """The packed spins of the whole lattice, on every rank: int32 (1, 2, height, words)."""
        rows = self.ranks.gather(self.spins[0].transpose(0, 1).contiguous())
        return rows.transpose(0, 1)[None].contiguous()

    def _exchange(self, colour: int) -> Callable[[], None]:
        """Start to send the border rows of a colour to the neighbours; returns what waits until theirs are here."""
        slab, ranks = self._slab, self.ranks
        first, last = slab.spins[0, colour, 0], slab.spins[0, colour, -1]
        if ranks.size == 1:
            slab.below[colour], slab.above[colour] = first, last
            return _no_wait
        return start_to_send(ranks, first, last, slab.above[colour], slab.below[colour], tag=2 * colour)


def start_to_send(
    ranks: Ranks, first: Tensor, last: Tensor, above: Tensor, below: Tensor, tag: int = 0
) -> Callable[[], None]:
    """Start to send ``first`` to the rank before this one and ``last`` to the one after it, and to get theirs.

    Returns what waits until the last row of the rank before is in ``above``, and the first of the rank after in
    ``below``. Both raise RankError if a rank does not answer.
    """
    before, after = (ranks.rank - 1) % ranks.size, (ranks.rank + 1) % ranks.size
    # Two ranks send each other two rows. NCCL tells them apart by their order, gloo by the tag.
    plan = (
        (dist.irecv, above, before, tag),
        (dist.irecv, below, after, tag + 1),
        (dist.isend, last, after, tag),
        (dist.isend, first, before, tag + 1),
    )
    with ranks.answering():
        works = dist.batch_isend_irecv(
            [dist.P2POp(kind, row, group=ranks.group, tag=number, group_peer=peer) for kind, row, peer, number in plan]
        )

    def wait() -> None:
        with ranks.answering():
            for work in works:
                work.wait()

    return wait


def _no_wait() -> None:
    """For rows that are here already."""
