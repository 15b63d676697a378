"""One Ising lattice over ranks: the bits of the lattice on one device, whatever the number of ranks."""

import itertools
import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
from boltzbench.kernels.distributed import Exchange, IsingLattice, RankError, Ranks, lattice
from boltzbench.kernels.ising import energy, ising_sweeps, unpack_spins
from boltzbench.kernels.machines.states import random_spins
from support.ranks import Failed, alone

HEIGHT, WIDTH, BETA, SEED = 18, 134, 0.44, 5
OPTIONS = {"field": {"coupling": -0.7, "field": 0.25}, "metropolis": {"rule": "metropolis"}}


def advanced(group, backend, options, mutate=None):
    """The whole lattice after 1 and 2 more sweeps, its sums and energy, and the rows and bytes of this rank."""
    with pytest.MonkeyPatch.context() as patch:
        if mutate:
            MUTATIONS[mutate](patch)
        found = IsingLattice(
            HEIGHT, WIDTH, BETA, seed=SEED, first_sweep=3, ranks=Ranks(group), backend=backend, **options
        )
        found.advance()
        found.advance(2)
        return found.gather(), found.sums(), found.energy(), found.rows, found.bytes_per_sweep


def whole(backend, options):
    start = random_spins(HEIGHT, WIDTH, 1, seed=SEED)
    return ising_sweeps(start, WIDTH, 3, BETA, seed=SEED, first_sweep=3, backend=backend, **options)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize(("backend", "options"), [("torch", "field"), ("native", "metropolis")])
def test_the_bits_are_those_of_one_device(pool, size, backend, options):
    wanted = whole(backend, OPTIONS[options])
    spins = unpack_spins(wanted, WIDTH)
    found = pool.run(size, advanced, backend, OPTIONS[options])
    for swept, (magnetisation, _), e, _, sent in found:
        assert torch.equal(swept, wanted)
        assert magnetisation == int(spins.sum())
        assert e == float(energy(spins, **{k: v for k, v in OPTIONS[options].items() if k != "rule"}))
        assert sent == (0 if size == 1 else 2 * 2 * wanted.shape[3] * 4)
    assert [row for *_, rows, _ in found for row in rows] == list(range(HEIGHT))


def late_rows(patch):
    """No mistake: a network whose rows are not here before they are waited for."""
    honest = dist.batch_isend_irecv

    class Late:
        def __init__(self, work, row, arrived):
            self.work, self.row, self.arrived = work, row, arrived

        def wait(self):
            self.work.wait()
            self.row.copy_(self.arrived)

    def exchange(messages):
        rows = [each.tensor for each in messages]
        for each in messages:
            each.tensor = each.tensor.clone()
        works = honest(messages)
        return [Late(*each) for each in zip(works, rows, (each.tensor for each in messages), strict=True)]

    patch.setattr(dist, "batch_isend_irecv", exchange)


def counting(patch):
    """No mistake: counts the bytes that this rank sends, in ``counting.sent``."""
    honest, counting.sent = dist.batch_isend_irecv, 0

    def exchange(messages):
        counting.sent += sum(each.tensor.nbytes for each in messages if each.op is dist.isend)
        return honest(messages)

    patch.setattr(dist, "batch_isend_irecv", exchange)


def bytes_sent(group):
    with pytest.MonkeyPatch.context() as patch:
        counting(patch)
        found = IsingLattice(HEIGHT, WIDTH, BETA, seed=SEED, ranks=Ranks(group), backend="torch")
        found.advance(4)
        return counting.sent, found.bytes_per_sweep


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_bytes_of_a_sweep_are_those_sent(pool, size):
    for sent, of_a_sweep in pool.run(size, bytes_sent):
        assert sent == 5 * of_a_sweep  # four sweeps, and the rows at the start
        assert of_a_sweep == Exchange.halo(WIDTH).sent(size)


def no_wait(patch):
    late_rows(patch)
    honest, waiting = IsingLattice._exchange, []

    def careless(self, colour):
        while waiting:
            waiting.pop()()
        waiting.append(honest(self, colour))
        return lattice._no_wait

    patch.setattr(IsingLattice, "_exchange", careless)


def the_other_colour(patch):
    honest = IsingLattice._exchange
    patch.setattr(IsingLattice, "_exchange", lambda self, colour: honest(self, 1 - colour))


def swapped(patch):
    honest = IsingLattice._exchange

    def exchange(self, colour):
        wait = honest(self, colour)

        def then_swap():
            wait()
            slab = self._slab
            slab.below[colour], slab.above[colour] = slab.above[colour].clone(), slab.below[colour].clone()

        return then_swap

    patch.setattr(IsingLattice, "_exchange", exchange)


def first_row_off(patch):
    honest = lattice.Slab

    def shifted(spins, width, beta, *, first_row, **options):
        return honest(spins, width, beta, first_row=first_row + 2 * (first_row > 0), **options)

    patch.setattr(lattice, "Slab", shifted)


MUTATIONS = {each.__name__: each for each in (late_rows, no_wait, the_other_colour, swapped, first_row_off)}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_wrong_exchanges_are_seen(pool, mutation):
    same = torch.equal(pool.run(4, advanced, "torch", {}, mutation)[0][0], whole("torch", {}))
    assert same is (mutation == "late_rows")


def misused(group, case):
    ranks = Ranks(group)
    if case == "height":
        IsingLattice(6, 4, BETA, seed=1, ranks=ranks)
    if case == "seed":
        IsingLattice(8, 4, BETA, seed=ranks.rank // 3, ranks=ranks)
    if case == "rows":
        IsingLattice(8, 4, BETA, seed=1, spins=random_spins(4, 4, 1, seed=1), ranks=ranks)
    made = IsingLattice(8, 4, BETA, seed=1, ranks=ranks)
    made.advance(0 if ranks.rank == 2 and case == "sweeps" else 1 + (ranks.rank == 1))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("height", "height must be at least 2 rows for each of 4 ranks, got 6: use fewer ranks"),
        ("rows", "spins must be those of 2 rows on rank"),
        ("seed", "lattice must be the same on every rank"),
        ("sweeps", "sweeps must lie in"),
        ("more sweeps", "sweeps must be the same on every rank: rank 0 has range(0, 1), rank 1 range(0, 2)"),
    ],
)
def test_every_rank_hears_of_a_mistake(pool, case, words):
    for found in pool.outcomes(4, misused, case):
        assert isinstance(found, Failed)
        assert words in found.message, found


def dying(group, victim):
    """The message of each rank but the victim, which is killed between two half sweeps, and the seconds until then."""
    ranks = Ranks(group)
    found = IsingLattice(12, 70, BETA, seed=SEED, ranks=ranks, backend="torch")
    honest, halves = lattice.Slab.half_sweep, itertools.count()

    def half_sweep(*arguments):
        if ranks.rank == victim and next(halves) == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        honest(*arguments)

    lattice.Slab.half_sweep = half_sweep
    begin = time.monotonic()
    try:
        found.advance(1000)
    except RankError as error:
        return str(error), time.monotonic() - begin


def test_a_killed_rank_is_named_by_the_others():
    found = alone(4, dying, 1)
    assert found.pop(1) is None
    for words, seconds in found:
        assert words == "rank 1 of 4 does not answer; start the run again"
        assert seconds < 10  # the connection breaks at once: the timeout of a minute does not pass
