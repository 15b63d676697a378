"""Prepared launches: what they keep, and when they make it again."""

from collections.abc import Callable

import pytest
import torch
from boltzbench.kernels import schedules
from boltzbench.kernels.annealed_langevin import annealed_langevin
from boltzbench.kernels.common.prepared import is_prepared, keep, prepared
from boltzbench.kernels.ising import ising_sweeps, pack_spins
from torch import Tensor


def counting(name: str = "double") -> tuple[Callable[[Tensor], Tensor], list[int]]:
    """A function that keeps twice its argument, and a list that grows whenever it makes that."""
    made: list[int] = []

    def double(x: Tensor) -> Tensor:
        def make() -> Tensor:
            made.append(len(made))
            return 2 * x

        return keep(name, make, x)

    return double, made


def test_a_plain_call_keeps_nothing():
    double, made = counting()
    x = torch.ones(3)
    assert torch.equal(double(x), double(x))
    assert len(made) == 2


def test_a_prepared_launch_makes_a_table_once_and_again_after_a_write():
    double, made = counting()
    x = torch.ones(3)
    launch = prepared(double, x)
    assert launch() is launch()
    x[1:].add_(1)  # a view counts the versions of its base
    assert launch().tolist() == [2, 4, 4]
    assert len(made) == 2


def test_launches_do_not_share_what_they_keep():
    double, made = counting()
    x = torch.ones(3)
    first, second = prepared(double, x), prepared(double, x)
    assert first() is not second()
    assert len(made) == 2


def test_another_source_under_the_same_name_is_another_table():
    double, _ = counting()
    x, y = torch.ones(3), torch.zeros(3)
    launch = prepared(lambda: (double(x), double(y)))
    for _ in range(2):
        assert [each.tolist() for each in launch()] == [[2, 2, 2], [0, 0, 0]]


def test_nothing_is_kept_of_tensors_that_count_no_versions():
    double, made = counting()
    with torch.inference_mode():
        x = torch.ones(3)
        launch = prepared(double, x)
        launch()
        x.add_(1)
        assert launch().tolist() == [4, 4, 4]
    assert len(made) == 2


def test_a_launch_that_fails_leaves_no_trace():
    def fail() -> None:
        assert is_prepared()
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        prepared(fail)()
    assert not is_prepared()


def test_sweeps_and_walks_of_a_prepared_launch_follow_their_temperatures():
    spins = pack_spins(torch.ones(2, 4, 6, dtype=torch.int8))
    beta = torch.tensor([0.1, 0.7], dtype=torch.float64)
    temperatures = schedules.linear(5, 1.0, 0.1)
    x = torch.linspace(-1, 1, 7)
    sweep = prepared(ising_sweeps, spins, 6, 3, beta, seed=7)
    walk = prepared(annealed_langevin, x, temperatures, 0.05, threshold=0.5, seed=7)
    for scale in (1.0, 0.3, 2.0):
        beta.mul_(scale)
        temperatures.mul_(scale)
        for _ in range(2):
            assert torch.equal(sweep(), ising_sweeps(spins, 6, 3, beta, seed=7))
            expected = annealed_langevin(x, temperatures, 0.05, threshold=0.5, seed=7)
            assert all(map(torch.equal, walk(), expected))
