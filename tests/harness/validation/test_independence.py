"""Tests of paths hold their level with few values of a move, and see what they are for."""

import numpy as np
import torch
from boltzbench.harness.validation.independence import (
    correlated_at_a_distance,
    differs_after_one_step,
    never_changed,
    never_left,
    repeats,
    same_paths,
)

SEEDS = range(200)


def rate(p_values, level=0.05):
    return np.mean(np.array(p_values) < level)


def steps_of_a_walk(seed, chains=120):
    """Four steps of -1, 0 or +1 that many chains share by chance, (chains, 4)."""
    return torch.randint(-1, 2, (chains, 4), generator=torch.Generator().manual_seed(seed)).cumsum(1)


def test_equal_paths_by_chance_are_no_alarm():
    found = [same_paths({"a": steps_of_a_walk(seed), "b": steps_of_a_walk(1000 + seed)})[0] for seed in SEEDS]
    assert rate(found) <= 0.05


def test_paths_that_are_equal_at_one_distance_are_named():
    path = torch.rand(300, 4)
    path[105:200] = path[5:100]
    p_value, words = same_paths({"seed 3": path})
    assert p_value < 1e-12
    assert words.startswith("chain 5 of seed 3 and chain 105 of seed 3 take the same path from one start, as do 95 ")
    assert same_paths({"seed 3": torch.rand(300, 4)}) == (1.0, "no two chains take the same path")


def test_independent_states_are_uncorrelated_at_every_distance():
    for values in (torch.randn, lambda *n, generator: (torch.rand(*n, generator=generator) < 0.9).double()):
        found = [
            correlated_at_a_distance(values(400, 1, generator=torch.Generator().manual_seed(seed)))[0] for seed in SEEDS
        ]
        assert rate(found) <= 0.05


def test_states_correlated_in_blocks_or_at_a_distance_are_seen():
    x = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0))
    assert correlated_at_a_distance(x)[0] > 1e-3
    blocks = 0.6 * x[:625].repeat_interleave(32, 0) + 0.8 * x
    assert correlated_at_a_distance(blocks)[0] < 1e-12
    p_value, words = correlated_at_a_distance(x + 0.3 * x.roll(1000, 0))
    assert p_value < 1e-12
    assert words.startswith("element 0 of chains at distance 1000 is correlated by 0.1")


def test_a_chain_at_a_start_that_is_hard_to_leave_is_not_stuck():
    """Of the chains that leave their start in a step with one probability, few that are idle are an alarm."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2000):
        moved = torch.rand(20, 33, generator=generator) < 0.05
        if moved[:, 0].any():
            found.append(1.0)
            continue
        copies = torch.cat([torch.zeros(1, 32), moved[:, 1:].cumsum(0)])
        found.append(never_left(copies[..., None], 20))
    assert 0 < rate(found, 0.2) <= 0.2
    assert never_left(torch.arange(33.0)[:, None, None].expand(33, 32, 1), 256) < 1e-25


def test_moves_that_coincide_by_chance_repeat_no_numbers():
    """Where other random numbers give the same moves, equal moves are no sign."""
    here, moved = torch.zeros(64, 1), torch.ones(64, 1)
    assert repeats(moved, here, moved) < 1e-30
    assert repeats(moved, moved, moved) == 1.0
    assert repeats(here, moved, moved) == 1.0


def test_an_element_that_no_chain_changes():
    path = torch.rand(40, 16, 2)
    assert never_changed(path) == (1.0, "every element changes")
    path[:, :, 1] = path[0, :, 1]
    p_value, words = never_changed(path)
    assert p_value == 0.98 ** (39 * 16)
    assert words == "no chain ever changed element 1 (1 of 2 elements) in 39 steps"


def test_two_chains_may_differ_by_a_decision_that_rounding_changes():
    once = torch.randn(256, 3)
    x = once * (1 + 1e-6)
    x[:2] += 1
    assert differs_after_one_step(x, once) is None
    x[7] += 1e-3
    assert differs_after_one_step(x, once) == "3 of 256 chains differ, the first is chain 0"
