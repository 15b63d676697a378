"""Attacks on `validate`: samplers that only seem to sample, or seem to be quick."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from boltzbench.harness import Sampler
from boltzbench.harness.api.operations import Status
from boltzbench.harness.validation.efficiency import SkippedWork, steps_per_second
from boltzbench.harness.validation.judge import validate
from support.small_operations import CPU
from support.wrong_samplers import gaussian, langevin

CHAINS = 4000
Advance = Callable[[Any, int, Any], Any]
HONEST: Advance = langevin().advance


def failures(sampler: Sampler) -> set[str]:
    claims = validate(sampler, gaussian(), CPU, 3, chains=CHAINS)
    return {each.claim for each in claims if each.status not in (Status.PASSED, Status.UNAVAILABLE)}


def stay(state: Any, steps: int, temperature: Any) -> Any:
    """The starts are exact draws, and so they remain."""
    return {**state, "step": state["step"] + steps}


def one_step_for_all(state: Any, steps: int, temperature: Any) -> Any:
    return HONEST(state, 1, temperature)


def half_of_the_steps(state: Any, steps: int, temperature: Any) -> Any:
    return HONEST(state, (steps + 1) // 2, temperature)


def without_steps_of_many(state: Any, steps: int, temperature: Any) -> Any:
    """The claims make few steps in a call; what is timed makes many."""
    return HONEST(state, steps, temperature) if steps < 16 else {**state, "step": state["step"] + steps}


class Late(dict[str, Any]):
    """A state that moves when it is looked at."""

    todo: list[tuple[int, Any]]

    def __getitem__(self, name: str) -> Any:
        todo, self.todo = self.todo, []
        for steps, temperature in todo:
            self.update(HONEST(dict(self), steps, temperature))
        return super().__getitem__(name)


def when_looked_at(state: Any, steps: int, temperature: Any) -> Any:
    late = Late(state)
    late.todo = [*getattr(state, "todo", []), (steps, temperature)]
    return late


def scaled_exact_starts(state: Any, steps: int, temperature: Any) -> Any:
    """The sign changes: each state is an exact draw, and all follow from the start."""
    return {**state, "x": -state["x"] if steps % 2 else state["x"], "step": state["step"] + steps}


CLAIMS: dict[str, Advance] = {
    "stays where it is": stay,
    "makes one step for all": one_step_for_all,
    "makes half of the steps": half_of_the_steps,
    "changes the sign": scaled_exact_starts,
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_fails(name: str) -> None:
    assert failures(replace(langevin(), advance=CLAIMS[name]))


@pytest.mark.parametrize("advance", [without_steps_of_many, when_looked_at])
def test_work_skipped_or_left_for_later_where_it_is_timed(advance: Advance) -> None:
    with pytest.raises(SkippedWork):
        steps_per_second(replace(langevin(), advance=advance), gaussian(), 0.5, CPU, 3, clock=count(0, 1e-3).__next__)


def test_an_honest_sampler_is_measured() -> None:
    assert failures(langevin()) == set()
    assert steps_per_second(langevin(), gaussian(), 0.5, CPU, 3) > 0
