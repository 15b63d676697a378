"""What is printed of a broken sampler: its contract first, three failures of laws, and a count of the rest."""

import math
from dataclasses import replace

import torch
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Claim
from boltzbench.harness.validation.failures import failures_in_words
from boltzbench.harness.validation.judge import validate
from support.fakes import CPU
from support.wrong_samplers import WRONG, gaussian, langevin


def law(claim, steps, p_value, sampler="s", target="t"):
    return Claim(sampler, target, 1.0, claim, Status.WRONG_LAW, "far off", p_value=p_value, steps=steps)


def contract(claim, target="t", sampler="s"):
    return Claim(sampler, target, 1.0, claim, Status.WRONG_VALUES, "differs")


def test_the_contract_first_then_the_strongest_failures_at_the_fewest_steps():
    claims = [
        law("late", 15, 0.0), law("weak", 1, 1e-9), law("own", 0, 1e-8), law("strong", 1, 1e-99), law("more", 4, 0.0),
        contract("same seed"), contract("same seed", "u"), contract("form"), contract("form", sampler="r"),
    ]  # fmt: skip
    assert failures_in_words(claims) == [
        "wrong_values: s on t, T = 1: same seed: differs (also on u, T = 1)",
        "wrong_values: s on t, T = 1: form: differs",
        "wrong_law: s on t, T = 1: own: far off",
        "wrong_law: s on t, T = 1: strong: far off",
        "wrong_law: s on t, T = 1: weak: far off",
        "+2 more failed tests of laws by s",
        "wrong_values: r on t, T = 1: form: differs",
    ]
    assert failures_in_words([]) == []


def test_three_failures_are_not_followed_by_a_count():
    assert len(failures_in_words([law(str(n), 1, 0.0) for n in range(3)])) == 3


def test_a_broken_sampler_prints_few_lines():
    """`eps, not eps / 2` fails dozens of tests. The first lines are those after one step."""
    wrong = next(each for each in WRONG if each.sampler.name == "eps, not eps / 2")
    claims = validate(wrong.sampler, gaussian(), CPU, 3, chains=20_000)
    failed = [each for each in claims if each.status is not Status.PASSED]
    lines = failures_in_words(failed)
    assert len(failed) > 20
    assert len(lines) <= 6
    assert sum("after 1 step:" in line for line in lines) == 3
    assert lines[-1].startswith("+")
    assert {each.steps for each in claims} == {None, 0, 1, 4, 15, 64, 256}


def nan_from(step, value=math.nan):
    right = langevin()

    def advance(state, steps, temperature):
        state = right.advance(state, steps, temperature)
        if state["step"] >= step:
            state["x"][0] = value
        return state

    return replace(right, advance=advance)


def test_values_that_are_not_finite_fail_one_claim_and_end_the_judgement():
    """At the first step, and at one that only the long run reaches."""
    for step, name in ((1, "form"), (100, "long run")):
        for value in (math.nan, math.inf):
            claims = validate(nan_from(step, value), gaussian(), CPU, 0, chains=1000)
            (failed,) = (each for each in claims if each.status is not Status.PASSED)
            assert (failed.claim, failed.status) == (name, Status.WRONG_VALUES)
            assert failed.message == f"step {step}, chain 0: {value}, which is not finite"
            assert claims.index(failed) == len([each for each in claims if each.p_value is None]) - 1
            assert not [each for each in claims if each.temperature == 2.0 and each.claim != "form"]


def test_a_state_of_another_dtype_still_fails_every_temperature():
    wrong = replace(langevin(), advance=lambda state, steps, temperature: {"x": torch.zeros(64, 2).double()})
    claims = validate(wrong, gaussian(), CPU, 0)
    assert [each.claim for each in claims if each.status is Status.WRONG_DTYPE] == ["form", "form"]
