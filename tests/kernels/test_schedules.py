"""Annealing schedules: known values, and invalid arguments."""

import math

import pytest
import torch
from boltzbench.kernels import schedules


def test_each_schedule_has_its_first_and_last_temperature():
    assert schedules.constant(3, 0.5).tolist() == [0.5] * 3
    assert schedules.linear(5, 2.0, 1.0).tolist() == [2.0, 1.75, 1.5, 1.25, 1.0]
    torch.testing.assert_close(schedules.geometric(3, 4.0, 1.0), torch.tensor([4.0, 2.0, 1.0]).double())
    cycle = [0.9, 0.9 - 0.8 * (1 - math.cos(math.pi / 3)) / 2, 0.1 + 0.8 * (1 - math.cos(math.pi / 3)) / 2, 0.1]
    torch.testing.assert_close(schedules.cyclic_cosine(8, 0.9, 0.1, 2), torch.tensor(2 * cycle).double())
    assert schedules.custom([3, 1, 2]).tolist() == [3.0, 1.0, 2.0]
    assert schedules.linear(1, 2.0, 1.0).tolist() == schedules.geometric(1, 2.0, 1.0).tolist() == [1.0]
    given = torch.ones(2, dtype=torch.float64)
    assert schedules.custom(given, cooling=True) is not given
    assert all(each.dtype is torch.float64 for each in (schedules.linear(2, 1, 1), schedules.custom([1])))


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize(
    ("start", "end"),
    [(10.0, 0.1), (7.0, 0.2), (1.0, 1.0), (1.0, 1 - 2.0**-53), (1e17, 0.5), (1.7e308, 1e-308), (3e-308, 5e-324)],
)
@pytest.mark.parametrize("schedule", [schedules.linear, schedules.geometric])
def test_cooling_ends_exactly_at_its_last_temperature_and_never_rises(schedule, start, end, steps):
    found = schedule(steps, start, end)
    assert found[-1] == end
    assert found[0] == (start if steps > 1 else end)
    schedules.custom(found, cooling=True)


def test_a_cycle_of_the_largest_temperatures_is_finite():
    assert schedules.cyclic_cosine(4, 1.7e308, 1.0, 2).tolist() == [1.7e308, 1.0] * 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: schedules.constant(0, 1.0), "steps"),
        (lambda: schedules.constant(2, 0.0), "temperature must be finite and positive"),
        (lambda: schedules.linear(2, 1.0, 2.0), "end must not exceed start"),
        (lambda: schedules.geometric(2, 1.0, 2.0), "end must not exceed start"),
        (lambda: schedules.linear(500, 0, 1), "inverse temperatures, as kernels.ais takes them, .* torch.linspace"),
        (lambda: schedules.geometric(2, math.inf, 2.0), "start must be finite and positive"),
        (lambda: schedules.linear(2, 1.0, -1.0), "end must be finite and positive"),
        (lambda: schedules.cyclic_cosine(8, 0.1, 0.9, 2), "cold must not exceed hot"),
        (lambda: schedules.cyclic_cosine(8, 0.9, 0.1, 3), "cycles must divide"),
        (lambda: schedules.cyclic_cosine(8, 0.9, 0.1, 8), "cycles of two or more"),
        (lambda: schedules.cyclic_cosine(8, 0.9, math.nan, 2), "cold must be finite and positive"),
        (lambda: schedules.custom([]), "at least one"),
        (lambda: schedules.custom([[1.0]]), r"temperatures\[0\] must be a number"),
        (lambda: schedules.custom([1.0, 0.0]), "positive and finite, got 0.0 for step 1"),
        (lambda: schedules.custom([1.0, math.nan]), r"temperatures\[1\] must be finite, got nan"),
        (lambda: schedules.custom([2.0, 1.0, 1.5], cooling=True), "must not rise .* step 2 has 1.5 after 1.0"),
    ],
)
def test_an_invalid_schedule_is_refused(call, words):
    with pytest.raises((TypeError, ValueError), match=words):
        call()
