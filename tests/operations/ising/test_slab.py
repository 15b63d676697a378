"""Slabs of a lattice, swept with copies of their neighbours' rows, make the same spins as the whole lattice."""

import pytest
import torch
from boltzbench.kernels.ising import RULES, Slab, energy, ising_sweeps, unpack_spins
from boltzbench.kernels.ising import slab as slab_module
from boltzbench.kernels.machines.states import random_spins
from support.devices import DEVICE, backends_of

WIDTH, HEIGHT, SEED = 70, 12, 2**64 - 1


def slab_of(count: int, number: int, **options: object) -> Slab:
    rows = HEIGHT // count
    first = options.pop("first_row", number * rows)
    spins = random_spins(HEIGHT, WIDTH, 1, seed=1, first_row=number * rows, rows=rows, device=DEVICE)
    return Slab(spins, WIDTH, 0.44, **{"first_row": first, "seed": SEED, "backend": "torch", **options})


def give(slabs: list[Slab], colour: int) -> None:
    """Copy the border rows of a colour to the neighbours."""
    for slab, after in zip(slabs, [*slabs[1:], slabs[0]], strict=True):
        slab.below[colour] = after.spins[0, colour, 0]
        after.above[colour] = slab.spins[0, colour, -1]


def swept(slabs: list[Slab], sweeps: int, give=give) -> torch.Tensor:
    """All spins after the sweeps: the inner rows of a slab are updated before its border rows."""
    give(slabs, 0), give(slabs, 1)
    for sweep in range(sweeps):
        for colour in (0, 1):
            for slab in slabs:
                half = slab.rows // 2
                for first, rows in ((1, half - 1), (half, half - 1), (0, 1), (slab.rows - 1, 1)):
                    slab.half_sweep(colour, sweep, first, rows)
            give(slabs, colour)
    return torch.cat([slab.spins for slab in slabs], 2)


def whole(sweeps: int, **options: object) -> torch.Tensor:
    spins = random_spins(HEIGHT, WIDTH, 1, seed=1, device=DEVICE)
    return ising_sweeps(spins, WIDTH, sweeps, 0.44, seed=SEED, **{"backend": "torch", **options})


@pytest.mark.parametrize("backend", backends_of("ising"))
def test_slabs_make_the_spins_of_the_whole_lattice(backend):
    """By Metropolis, where a row that is updated an even number of times differs from one that is updated once."""
    slabs = [slab_of(3, number, backend=backend, rule="metropolis") for number in range(3)]
    assert torch.equal(swept(slabs, 1), whole(1, rule="metropolis"))


@pytest.mark.skipif("native" not in backends_of("ising"), reason="native cannot run here")
def test_threads_share_the_rows_of_a_slab():
    height, width, before = 16, 4096, torch.get_num_threads()
    start = random_spins(height, width, 1, seed=1)
    wanted = ising_sweeps(start, width, 1, 0.44, rule="metropolis", seed=3, backend="torch")
    torch.set_num_threads(2)
    try:
        slab = Slab(start, width, 0.44, first_row=0, rule="metropolis", seed=3, backend="native")
        assert torch.equal(swept([slab], 1), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 6])
@pytest.mark.parametrize(("rule", "coupling", "field"), [(RULES[1], 1.0, 0.0), (RULES[0], -0.7, 0.4)])
def test_whatever_the_number_of_slabs_and_the_rule(count, rule, coupling, field, monkeypatch):
    monkeypatch.setattr(slab_module, "ROWS_AT_ONCE", 2)
    options = {"rule": rule, "coupling": coupling, "field": field}
    slabs = [slab_of(count, number, **options) for number in range(count)]
    wanted = whole(3, **options)
    assert torch.equal(swept(slabs, 3), wanted)
    spins = unpack_spins(wanted, WIDTH)
    magnetisation, bonds = sum(each.sums() for each in slabs).tolist()
    assert magnetisation == int(spins.sum())
    assert -coupling * bonds - field * magnetisation == float(energy(spins, coupling, field))


def from_the_wrong_side(slabs, colour):
    for slab, after in zip(slabs, [*slabs[1:], slabs[0]], strict=True):
        slab.above[colour] = after.spins[0, colour, 0]
        after.below[colour] = slab.spins[0, colour, -1]


def one_row_too_deep(slabs, colour):
    for slab, after in zip(slabs, [*slabs[1:], slabs[0]], strict=True):
        slab.below[colour] = after.spins[0, colour, 1]
        after.above[colour] = slab.spins[0, colour, -1]


class OneHalfSweepLate:
    """Gives the rows as they were at the last time."""

    def __init__(self) -> None:
        self.rows = {}

    def __call__(self, slabs, colour):
        for slab, after in zip(slabs, [*slabs[1:], slabs[0]], strict=True):
            now = after.spins[0, colour, 0].clone(), slab.spins[0, colour, -1].clone()
            slab.below[colour], after.above[colour] = self.rows.get((slab, colour), now)
            self.rows[slab, colour] = now


@pytest.mark.parametrize("wrong", [from_the_wrong_side, one_row_too_deep, OneHalfSweepLate()])
def test_wrong_copies_are_seen(wrong):
    slabs = [slab_of(3, number) for number in range(3)]
    assert not torch.equal(swept(slabs, 3, wrong), whole(3))


def test_a_wrong_first_row_is_seen():
    slabs = [slab_of(3, number, first_row=4 * number + 2 * (number == 1)) for number in range(3)]
    assert not torch.equal(swept(slabs, 1), whole(1))


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"first_row": 3}, ValueError, "first_row must be even, got 3"),
        ({"first_row": -2}, ValueError, r"first_row must lie in \[0, "),
        ({"rule": "glauber"}, ValueError, "rule must be one of"),
        ({"seed": -1}, ValueError, "seed must"),
        ({"backend": "jax"}, ValueError, "backend must be one of"),
    ],
)
def test_bad_arguments(options, kind, words):
    with pytest.raises(kind, match=words):
        slab_of(2, 0, **options)


def test_bad_rows():
    with pytest.raises(ValueError, match="rows must lie in a slab of 6, got 3 from 4 on"):
        slab_of(2, 0).half_sweep(0, 0, 4, 3)
    with pytest.raises(ValueError, match="spins must be those of one lattice, got 2 lattices"):
        Slab(random_spins(4, 4, 2, seed=1, device=DEVICE), 4, 0.4, first_row=0, seed=1)
