"""Stuck chains have no effective sample size, and chains that did not mix are said in the row and the closing line."""

import io
from dataclasses import replace

import numpy as np
import pytest
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Claim, Efficiency, Run, Standing
from boltzbench.harness.cli import validate as cli_validate
from boltzbench.harness.report.page import html, markdown
from boltzbench.harness.results.file import SCHEMA
from boltzbench.harness.validation import efficiency as module
from boltzbench.harness.validation.efficiency import (
    MOST_R_HAT,
    Undefined,
    effective_sample_size,
    mixing,
    not_mixed,
    split_r_hat,
)
from boltzbench.harness.validation.standing import standings, timed
from rich.console import Console
from support.fakes import CPU
from support.wrong_samplers import four_states, metropolis


def independent(chains=4, steps=2000, seed=0):
    return np.random.default_rng(seed).normal(size=(chains, steps))


def one_constant():
    draws = independent()
    draws[2] = 0.1
    return draws


def one_blip():
    draws = np.zeros((4, 2000))
    draws[1, 700] = 1.0
    return draws


def stuck_at_the_end():
    draws = independent()
    draws[3, 1001:] = draws[3, 1001]
    return draws


STUCK = [
    (one_constant, "chain 2 is stuck: the observable never changed in 1000 steps"),
    (one_blip, "chain 0 is stuck: the observable never changed in 1000 steps; 4 of 4 chains are stuck"),
    (stuck_at_the_end, "chain 3 is stuck: the observable changed only once in 1000 steps"),
    (lambda: np.ones((2, 8)), "chain 0 is stuck: the observable never changed in 4 steps; 2 of 2 chains are stuck"),
]


@pytest.mark.parametrize(("draws", "words"), STUCK)
@pytest.mark.parametrize("number", [effective_sample_size, split_r_hat])
def test_a_stuck_chain_has_no_effective_sample_size_and_no_r_hat(draws, words, number):
    with pytest.raises(Undefined) as refusal:
        number(draws())
    assert str(refusal.value) == words


def test_moving_chains_have_an_effective_sample_size():
    assert effective_sample_size(independent()) == pytest.approx(8000, rel=0.1)
    rare = (np.random.default_rng(1).random((4, 2000)) < 0.02).astype(float)
    assert effective_sample_size(rare) == pytest.approx(8000, rel=0.1)
    assert split_r_hat(rare) < MOST_R_HAT


def test_r_hat_is_about_the_bound_at_ten_independent_draws_in_each_half():
    """R-hat^2 = 1 + (tau - 1) / n: see MOST_R_HAT."""

    def r_hat(tau, chains=400, steps=512):
        a, noise = (tau - 1) / (tau + 1), independent(chains, steps)
        draws = np.empty_like(noise)
        draws[:, 0] = noise[:, 0]
        for t in range(1, steps):
            draws[:, t] = a * draws[:, t - 1] + (1 - a * a) ** 0.5 * noise[:, t]
        return split_r_hat(draws)

    assert not_mixed(r_hat(8)) == ""
    assert r_hat(25.6) == pytest.approx(MOST_R_HAT, abs=0.01)
    assert not_mixed(r_hat(60)).startswith("R-hat is 1.")
    assert not_mixed(float("nan"))


def freezing(first=9):
    """Metropolis with one chain that stops moving where efficiency is measured, and nowhere else."""
    right = metropolis("freezing")

    def advance(state, steps, temperature):
        before = state["x"].clone()
        state = right.advance(state, steps, temperature)
        if len(before) == 16:
            state["x"][first] = before[first]
        return state

    return replace(right, advance=advance)


def test_the_efficiency_of_a_stuck_chain_is_not_measured():
    with pytest.raises(Undefined, match=r"chain 9 is stuck: energy never changed in 32 steps"):
        mixing(freezing(), four_states(), 1.0, CPU, 0, steps=64)


def test_a_standing_names_the_stuck_chain(monkeypatch):
    from boltzbench.harness.validation import judge

    passed = [Claim("freezing", "four", t, "form", Status.PASSED) for t in (1.0, 0.5)]
    monkeypatch.setattr(judge, "validate", lambda *given, **more: passed)
    one, two = standings(freezing(), four_states(), CPU, 0)
    for each in (one, two):
        assert each.efficiency is None
        assert each.unmixed == "chain 9 is stuck: energy never changed in 256 steps"
        assert each.unmeasured == f"not measured: {each.unmixed}"
    right = standings(metropolis(), four_states(), CPU, 0)
    assert [each.unmixed for each in right] == ["", ""]
    assert all(each.efficiency for each in right)


def test_speeds_are_measured_apart_and_an_error_there_fails_one_claim(monkeypatch):
    from boltzbench.harness.validation import judge

    calls = []

    def advance(state, steps, temperature):
        calls.append(steps)
        if broken:
            raise OSError("the plug")
        return metropolis().advance(state, steps, temperature)

    broken = False
    sampler = replace(metropolis(), advance=advance)
    passed = tuple(Claim("metropolis", "four", t, "form", Status.PASSED) for t in (1.0, 0.5))
    monkeypatch.setattr(judge, "validate", lambda *given, **more: passed)
    found = standings(sampler, four_states(), CPU, 0)
    assert set(calls) == {1}
    assert {(each.efficiency.steps_per_second, each.efficiency.ess_per_second) for each in found} == {(None, None)}
    for before, after in zip(found, timed(found, sampler, four_states(), CPU, 0), strict=True):
        speeds = after.efficiency
        assert speeds.ess_per_second == speeds.steps_per_second / before.efficiency.autocorrelation_time > 0
        assert replace(after, efficiency=before.efficiency) == before
    broken = True
    first, _ = timed([found[0], replace(found[1], efficiency=None)], sampler, four_states(), CPU, 0)
    assert [(each.claim, each.status) for each in first.failed] == [("efficiency", Status.ERROR)]
    assert "the plug" in first.failed[0].message


def test_the_traces_do_not_depend_on_the_parts_they_are_computed_in(monkeypatch):
    whole = mixing(metropolis(), four_states(), 1.0, CPU, 0, steps=64)
    monkeypatch.setattr(module, "TRACED_ELEMENTS", 48)
    assert mixing(metropolis(), four_states(), 1.0, CPU, 0, steps=64) == whole


def standing(target, r_hat=None, unmixed=""):
    found = None if r_hat is None else Efficiency(1.0, 1.0, r_hat, 1.0, None, 0.0)
    claim = Claim("slow", target, 1.0, "law of x after 1 step", Status.PASSED, steps=1)
    why = "" if found else f"not measured: {unmixed}"
    return Standing("slow", target, 1.0, "torch", "p", (claim, claim), found, why, unmixed or not_mixed(r_hat))


def concluded(*rows):
    written = io.StringIO()
    status = cli_validate._conclude(Console(width=80, file=written), rows, (), (), ())
    return status, written.getvalue()


def test_claims_that_hold_of_chains_that_did_not_mix_do_not_read_like_a_success():
    rows = standing("a", 99.0), standing("b", 1.2), standing("b", 1.01), standing("c", unmixed="chain 3 is stuck")
    status, text = concluded(*rows)
    last = cli_validate.closing_line(rows, (), (), ())
    assert status == 0
    assert last.startswith("3 pairs did not mix (R-hat up to 99, stuck chains): ESS/s says little there, and errors")
    assert "All 8 claims hold" in last
    assert text.count("did not mix") == 2 + 1
    assert text.count("a chain is stuck") == 1
    assert "not measured: chain 3 is stuck: slow on c, T = 1" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("report", [html, markdown])
def test_reports_show_why_chains_did_not_mix(report):
    def text(*rows):
        return report([("a", Run(SCHEMA, "complete", {}, (), standings=rows))])

    words = "did not mix, so ESS/s says little: slow on a, T = 1: {}"
    assert words.format("R-hat is 99, above 1.05") in text(standing("a", 99.0))
    assert words.format("chain 3 is stuck") in text(standing("a", unmixed="chain 3 is stuck"))
    assert "did not mix" not in text(standing("a", 1.0))


def test_chains_that_mixed_are_not_mentioned():
    status, text = concluded(standing("a", 1.01))
    assert status == 0
    assert "mix" not in text
    assert "All 2 claims hold. (" in " ".join(text.split())
