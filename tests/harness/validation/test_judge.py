"""The right claim catches every seeded bug, and correct samplers pass at every seed."""

import functools
import math
import re
from dataclasses import replace

import pytest
import torch
import typer
from boltzbench.harness.api.operations import Status, Unsupported
from boltzbench.harness.api.samplers import Dynamics, ExactLaw, Projection, Target
from boltzbench.harness.cli import validate as cli_validate
from boltzbench.harness.discovery.registry import Registry, UnknownName
from boltzbench.harness.execution.child import Died
from boltzbench.harness.execution.parallel import judges
from boltzbench.harness.report.page import html, markdown
from boltzbench.harness.results.file import read_run
from boltzbench.harness.validation import judge as validation
from boltzbench.harness.validation.claims import FALSE_ALARM
from boltzbench.harness.validation.efficiency import at_speed, mixing, steps_per_second
from boltzbench.harness.validation.failures import failures_in_words
from boltzbench.harness.validation.judge import validate
from boltzbench.harness.validation.progress import CurrentClaim
from boltzbench.harness.validation.standing import standings, timed
from support.fakes import CPU
from support.wrong_samplers import ODD, RIGHT, WRONG, ar1, four_states, gaussian, gibbs, langevin, metropolis, rbm
from typer.testing import CliRunner

FRESH = range(1000, 1020)


@functools.cache
def claims_at_fresh_seeds(sampler, target):
    """The claims about a sampler at each of `FRESH`; ``target`` makes its target."""
    return [validate(sampler, target(), CPU, seed, chains=6000) for seed in FRESH]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """With so few chains, threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def failed(claims):
    return [claim for claim in claims if claim.status not in (Status.PASSED, Status.UNAVAILABLE)]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.sampler.name)
def test_a_bug_is_caught_by_the_claim_that_names_it(wrong):
    claims = failed(validate(wrong.sampler, wrong.target(), CPU, 3, chains=wrong.chains))
    named = [each for each in claims if each.claim.startswith(wrong.claim) and each.status is wrong.status]
    assert named, f"failed instead: {[(each.claim, each.status, each.message) for each in claims]}"
    assert named[0].message.startswith(wrong.message)
    assert named[0].message


CAUSES = {
    "inverted ratio": "the law is that of the energy with the opposite sign",
    "barker's ratio with metropolis' sign": "the law is that of 0.5 times the temperature",
}


def named(sampler, target, chains=20_000):
    """The first words that `validate` prints about ``sampler``."""
    claims = failed(validate(sampler, target(), CPU, 3, chains=chains))
    return failures_in_words(claims)[0].partition("likely cause: ")[2]


@pytest.mark.parametrize("name", CAUSES)
def test_the_first_line_names_the_cause(name):
    wrong = next(each for each in WRONG if each.sampler.name == name)
    assert named(wrong.sampler, wrong.target) == CAUSES[name]


def test_a_temperature_off_by_a_factor_is_named():
    assert named(langevin("hot", heat=lambda t: 1.2 * t), gaussian).startswith("the law is that of 1.")


def test_what_no_law_explains_has_no_cause():
    assert named(gibbs("wrong", sign=-1.0), rbm, 6000) == ""


def test_there_are_at_least_twenty_bugs():
    assert len({wrong.sampler.name for wrong in WRONG}) >= 20


@pytest.mark.parametrize(("sampler", "target"), RIGHT, ids=lambda each: getattr(each, "name", ""))
def test_right_samplers_raise_no_false_alarm_at_twenty_seeds(sampler, target):
    for claims in claims_at_fresh_seeds(sampler, target):
        assert failed(claims) == []
        assert not [each for each in claims if each.status is Status.UNAVAILABLE]


@pytest.mark.parametrize(("sampler", "target"), ODD, ids=lambda each: getattr(each, "name", ""))
def test_right_samplers_that_look_odd_pass(sampler, target):
    for seed in range(3):
        assert failed(validate(sampler, target(), CPU, seed, chains=4000)) == []


def test_the_numbers_of_a_claim():
    claims = validate(langevin(), gaussian(), CPU, 1, chains=4000)
    assert {each.temperature for each in claims} == {0.5, 2.0}
    tests = [each for each in claims if each.p_value is not None]
    assert {each.false_alarm for each in tests} == {FALSE_ALARM / len(tests)}
    mean = next(each for each in claims if each.claim == "mean of x_0^2 after 4 steps")
    assert mean.exact == pytest.approx(0.5 / (1 - 0.8 / 4))
    assert mean.z == pytest.approx((mean.measured - mean.exact) / mean.stderr)
    assert mean.stderr == pytest.approx(mean.exact * (2 / 4000) ** 0.5, rel=0.2)
    assert "any split of steps" in [each.claim for each in claims if each.p_value is None]


def test_p_values_are_uniform():
    """The stated false alarm relies on it: a tenth of the p-values lies below 0.1."""
    ((sampler, target),) = [pair for pair in RIGHT if pair[1] is gaussian]
    claims = claims_at_fresh_seeds(sampler, target)
    p_values = [each.p_value for one in claims for each in one if each.p_value is not None]
    assert len(p_values) > 1000
    assert 0.05 < sum(p < 0.1 for p in p_values) / len(p_values) < 0.15


def test_a_sampler_that_refuses_is_unavailable_with_its_reason():
    (claim,) = validate(gibbs(), gaussian(), CPU, 0)
    assert (claim.status, claim.message) == (Status.UNAVAILABLE, "made for rbm")
    (claim,) = validate(replace(gibbs(), unavailable=lambda device: "needs a GPU"), rbm(), CPU, 0)
    assert (claim.status, claim.message) == (Status.UNAVAILABLE, "needs a GPU")


def test_without_an_exact_law_the_rest_is_judged():
    target = replace(gaussian(), law=lambda temperature, dynamics: None)
    claims = validate(langevin(), target, CPU, 0)
    assert failed(claims) == []
    unknown = [each for each in claims if each.status is Status.UNAVAILABLE]
    assert [each.temperature for each in unknown] == [0.5, 2.0]
    assert {each.message for each in unknown} == {"no exact law is known for langevin"}
    assert {"form", "independent streams", "moves"} <= {each.claim for each in claims}
    wrong = next(each for each in WRONG if each.sampler.name == "seed + step")
    assert [each.claim for each in failed(validate(wrong.sampler, target, CPU, 0))] == ["independent streams"]


def test_the_ratio_of_partition_functions_is_judged_against_log_z():
    """If log Z is all that is known of a well, this ratio detects a sampler that is too hot."""

    def law(temperature, dynamics):
        log_z = 0.5 * math.log(2 * math.pi * temperature)
        return ExactLaw(lambda n, g: temperature**0.5 * torch.randn(n, 1, generator=g), (), log_z)

    target = replace(one_well(), law=law)
    right, hot = ar1("right", 0.5, 0.0, Clock()), ar1("hot", 0.5, 0.0, Clock())
    hot = replace(hot, advance=lambda state, steps, t: right.advance(state, steps, 1.3 * t))
    claims = validate(right, target, CPU, 1, chains=4000)
    (last,) = [each for each in claims if each.claim == "mean of Z(T = 1.1) / Z(T = 1) after 15 steps"]
    assert failed(claims) == []
    assert last.exact == pytest.approx(1.1**0.5)
    assert abs(last.measured - last.exact) < 6 * last.stderr < 0.05
    assert {each.claim.partition(" / ")[0] for each in failed(validate(hot, target, CPU, 1, chains=4000))} == {
        "mean of Z(T = 1.1)"
    }


def test_wrong_draws_of_a_target_are_distinguished_from_a_wrong_sampler():
    def law(temperature, dynamics):
        right = gaussian().law(temperature, dynamics)
        return replace(right, draw=lambda chains, generator: 1.1 * right.draw(chains, generator))

    claims = failed(validate(langevin(), replace(gaussian(), law=law), CPU, 0, chains=20_000))
    assert any(each.claim.endswith("of the target's own draws") for each in claims)


def test_draws_of_another_shape_and_cells_that_do_not_exist():
    def flat(temperature, dynamics):
        return replace(gaussian().law(temperature, dynamics), draw=lambda chains, generator: torch.zeros(chains))

    claims = failed(validate(langevin(), replace(gaussian(), law=flat), CPU, 0))
    assert [each.message for each in claims] == ["target gaussian: its law draws (64,), not (64, 2)"] * 2

    def shifted(temperature, dynamics):
        right = four_states().law(temperature, dynamics)
        state = right.projections[0]
        return ExactLaw(right.draw, (replace(state, of=lambda x: state.of(x) + 1),))

    claims = failed(validate(metropolis(), replace(four_states(), law=shifted), CPU, 0, chains=1000))
    cause, *claims = claims
    assert (cause.claim, cause.message) == ("likely cause", "the target's own draws do not have its law")
    assert {each.message for each in claims} == {"cells 1..4 were drawn, but there are 4"}


def test_a_sampler_may_refuse_temperatures_for_each_chain():
    right = langevin()

    def advance(state, steps, temperature):
        if isinstance(temperature, torch.Tensor):
            raise Unsupported("one temperature for all chains")
        return right.advance(state, steps, temperature)

    claims = validate(replace(right, advance=advance), gaussian(), CPU, 0, chains=6000)
    assert failed(claims) == []
    refused = [each for each in claims if each.status is Status.UNAVAILABLE]
    assert [(each.claim, each.message) for each in refused] == [
        ("a temperature for each chain", "one temperature for all chains"),
        ("a temperature for each step", "one temperature for all chains"),
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init": lambda *a: 1 / 0}, "init raised ZeroDivisionError: division by zero (test_judge.py:"),
        ({"advance": lambda *a: 1 / 0}, "step 1: advance raised ZeroDivisionError"),
        ({"init": lambda *a: None}, "init: init returned None instead of the state: its return is missing"),
        ({"advance": lambda *a: None}, "step 1: advance returned None instead of the state: its return is missing"),
        ({"advance": lambda *a: {}}, 'step 1: the state has no "x"'),
        ({"advance": lambda *a: {"x": [1.0]}}, 'step 1: state["x"] is a list, not a tensor'),
        ({"advance": lambda *a: {"x": torch.zeros(64, 2, device="meta")}}, "step 1: the state lies on meta, not cpu"),
        ({"dynamics": lambda target: 1 / 0}, "ZeroDivisionError"),
        ({"refuses": lambda target: 1 / 0}, "ZeroDivisionError"),
    ],
)
def test_a_sampler_that_breaks_is_an_error_and_not_a_crash(changes, words):
    claims = failed(validate(replace(langevin(), **changes), gaussian(), CPU, 0))
    assert {each.status for each in claims} == {Status.ERROR}
    assert claims[0].message.startswith(words)


def test_a_modified_target_is_restored():
    target = gaussian()
    wrong = next(each for each in WRONG if each.sampler.name == "target modified")
    validate(wrong.sampler, target, CPU, 0)
    assert target.parameters["stiffness"].tolist() == [1.0, 1.5]


def test_a_change_of_the_energy_outside_the_parameters_is_detected():
    target, hidden = gaussian(), torch.ones(())
    spoilt = replace(target, energy=lambda x: target.energy(x) * hidden)
    right = langevin()

    def advance(state, steps, temperature):
        hidden.mul_(1.5)
        return right.advance(state, steps, temperature)

    claims = failed(validate(replace(right, advance=advance), spoilt, CPU, 0, chains=1000))
    assert [each.claim for each in claims] == ["target unchanged"]


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def one_well() -> Target:
    def law(temperature, dynamics):
        x = Projection("x", lambda x: x[:, 0], mean=0.0)
        return ExactLaw(lambda n, g: temperature**0.5 * torch.randn(n, 1, generator=g), (x,))

    return Target("well", "", "", "", "continuous", (1,), "float32", {}, lambda x: x[:, 0] ** 2 / 2, law)


def test_a_sampler_with_faster_steps_but_more_correlation_has_fewer_independent_draws():
    clock = Clock()
    slow = ar1("slow", 0.5, seconds=2.0, clock=clock)  # autocorrelation time (1 + a) / (1 - a) = 3
    fast = ar1("fast", 0.8, seconds=1.0, clock=clock)  # and 9
    one, two = (
        at_speed(
            mixing(each, one_well(), 1.0, CPU, 5, steps=2000),
            steps_per_second(each, one_well(), 1.0, CPU, 5, clock=clock),
        )
        for each in (slow, fast)
    )
    assert two.steps_per_second == 2 * one.steps_per_second == 16.0
    assert one.autocorrelation_time == pytest.approx(3, rel=0.1)
    assert two.autocorrelation_time == pytest.approx(9, rel=0.15)
    assert two.ess_per_second < one.ess_per_second
    for each in (one, two):
        assert each.ess_per_second == pytest.approx(each.steps_per_second / each.autocorrelation_time)
        assert each.r_hat == pytest.approx(1.0, abs=0.02)
        assert each.energy_mean == pytest.approx(0.5, rel=0.15)
        assert each.quantity == "x"
        assert each.acceptance is None
        assert len(each.energy_trace) == 2000


def test_r_hat_is_large_for_chains_that_do_not_mix():
    clock = Clock()
    still = ar1("still", 1.0 - 1e-9, seconds=1.0, clock=clock)
    found = mixing(still, one_well(), 1.0, CPU, 5)
    assert found.r_hat > 5
    assert at_speed(found, 8.0).ess_per_second < 1


def test_acceptance_without_an_exact_law():
    sampler = replace(metropolis(), accepted=lambda state: torch.full((len(state["x"]),), 0.25))
    target = replace(four_states(), law=lambda temperature, dynamics: None)
    found = mixing(sampler, target, 1.0, CPU, 0, steps=64)
    assert found.acceptance == 0.25
    assert found.quantity == "energy"


def test_the_default_dynamics_are_exact():
    assert gibbs().dynamics(rbm()) == Dynamics()


def command(monkeypatch, arguments, samplers):
    targets = {each.name: each for each in (gaussian(), rbm())}
    registry = Registry({}, (), (), (), targets, {each.name: each for each in samplers})
    monkeypatch.setattr(cli_validate, "read_catalogue", lambda *given, **named: registry)

    def judged_here(registry, devices, time_limit, progress, pairs, experiments, seed, found, outcomes, lost):
        for sampler, target in pairs:
            rows = standings(sampler, target, devices[0], seed)
            found[sampler.name, target.name] = timed(rows, sampler, target, devices[0], seed)

    monkeypatch.setattr(cli_validate, "_judge", judged_here)
    monkeypatch.setattr(validation, "CHAINS", 6000)
    app = typer.Typer()
    app.command()(cli_validate.validate)
    return CliRunner().invoke(app, ["--device", "cpu", *arguments])


def test_the_command(monkeypatch, tmp_path):
    file = tmp_path / "claims.json"
    result = command(monkeypatch, ["-t", "small_rbm", "--json", str(file)], [gibbs(), langevin()])
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "claims hold, 1 pair of sampler and target refused. (1 pair: if all are correct, " in words
    assert max(map(len, result.output.splitlines())) <= 80
    run = read_run(file)
    judged, *_, refused = run.standings
    assert (judged.sampler, judged.target, judged.temperature) == ("gibbs", "small_rbm", 1.0)
    assert {each.status for each in judged.claims} == {Status.PASSED}
    assert judged.efficiency.ess_per_second > 0
    assert refused.claims[0].message == "made for gaussian"
    page, text = html([("a", run)]), markdown([("a", run)])
    assert "gibbs" in page
    assert "langevin" not in text
    for words in ("<h2>Samplers</h2>", "All claims about samplers on small_rbm", "Mean energy of the chains on small"):
        assert words in page
    assert '<section id="agreement">' not in page
    assert f"| gibbs | small\\_rbm | 1 | {len(judged.claims)}/{len(judged.claims)} |" in text


def test_the_command_shows_failures_in_full_and_reports_that_nothing_was_tested(monkeypatch, tmp_path):
    file = tmp_path / "claims.json"
    result = command(monkeypatch, ["-s", "wrong", "--json", str(file)], [gibbs("wrong", sign=-1.0)])
    assert result.exit_code == 1
    assert "wrong_law: wrong on small_rbm, T = 1: law of state after 1 step: chi-square" in " ".join(
        result.output.split()
    )
    run = read_run(file)
    for report in (html([("a", run)]), markdown([("a", run)])):
        assert re.search(r"law of state after 1 step\b", report)
        assert "chi-square" in report
    result = command(monkeypatch, ["-t", "gaussian"], [gibbs()])
    assert result.exit_code == 1
    assert "Nothing was tested, 1 pair of sampler and target refused: made for rbm." in result.output


def test_the_command_leaves_out_large_targets_unless_asked(monkeypatch):
    large = replace(rbm(), name="large", shape=(65,))
    monkeypatch.setitem(command.__globals__, "gaussian", lambda: large)
    result = command(monkeypatch, ["-s", "gibbs"], [gibbs()])
    assert result.exit_code == 0, result.output
    assert "Left out: large. --thorough includes what takes longer." in result.output
    result = command(monkeypatch, ["-s", "gibbs", "--thorough"], [gibbs()])
    assert result.exit_code == 1
    assert "Left out" not in result.output
    assert "gibbs on large" in " ".join(result.output.split())


@pytest.mark.parametrize(("option", "words"), [("-s", "unknown sampler 'gibs'"), ("-t", "unknown target 'gibs'")])
def test_the_command_refuses_unknown_names(monkeypatch, option, words):
    result = command(monkeypatch, [option, "gibs"], [gibbs()])
    assert isinstance(result.exception, UnknownName)
    assert str(result.exception).startswith(words)


def test_the_claim_of_a_lost_worker_has_the_exact_temperature(monkeypatch):
    critical = 2 / math.log(1 + 2**0.5)
    target = replace(gaussian(), temperatures=(1.0, critical))

    class Dying:
        def __init__(self, device, announce, time_limit, registry, worker_threads):
            self.announce = announce

        def standings(self, sampler, target, seed):
            self.announce("start")
            self.announce(CurrentClaim("long run", critical))
            raise Died(Status.TIMEOUT, "no answer")

    monkeypatch.setattr(judges, "Workers", Dying)
    announced = []
    (standing,) = judges.Judge(CPU, announced.append, 1.0, Registry({}, (), ())).standings(langevin(), target, 0)
    (claim,) = standing.claims
    assert standing.temperature == claim.temperature == critical
    assert (claim.claim, claim.status, claim.message) == ("long run", Status.TIMEOUT, "no answer")
    assert [str(each) for each in announced] == ["long run, T = 2.26919"]


def test_announced_temperatures_are_exact():
    critical = 2 / math.log(1 + 2**0.5)
    announced = []
    standings(langevin(), replace(gaussian(), temperatures=(critical,)), CPU, 0, announced.append)
    assert {each.temperature for each in announced} == {critical}
    assert announced[-1].claim == "efficiency"
