"""Right samplers are rejected about as often as stated, and a test that lies is noticed."""

import re
from dataclasses import replace

import pytest
import typer
from boltzbench.harness import Estimate, Experiment, Findings
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Claim, Standing
from boltzbench.harness.cli import calibrate as cli_calibrate
from boltzbench.harness.cli import validate as cli_validate
from boltzbench.harness.cli.validate import closing_line
from boltzbench.harness.discovery.registry import Registry
from boltzbench.harness.validation import claims
from boltzbench.harness.validation.calibration import planted_errors, rates, seeds
from boltzbench.harness.validation.calibration.rates import ANY, Rate, computed_rates, measured_rates
from boltzbench.harness.validation.calibration.seeds import z_scores
from support import ROOT
from support.fakes import CPU, experiment
from support.wrong_samplers import four_states, gaussian, metropolis, normal_on_a_line
from typer.testing import CliRunner

CALIBRATION = ROOT / "results" / "calibration"


@pytest.fixture
def few_chains(monkeypatch):
    monkeypatch.setattr(rates, "CHAINS", 500)
    monkeypatch.setattr(seeds, "CHAINS", 500)


def test_no_test_rejects_right_samplers_too_often(few_chains):
    found = {each.kind: each for each in measured_rates([normal_on_a_line(), four_states()], range(4))}
    assert {"mean", "Kolmogorov-Smirnov", "counts of cells", "independent streams", "moves", ANY} <= set(found)
    assert found["mean"].tests > 60
    assert found[ANY].tests == 8
    assert not [each for each in found.values() if each.too_often]


def test_a_p_value_that_is_too_small_is_noticed(few_chains, monkeypatch):
    right = claims.mean_test

    def overconfident(*given):
        z, stderr, p_value = right(*given)
        return z, stderr, p_value**2

    monkeypatch.setattr(claims, "mean_test", overconfident)
    found = measured_rates([gaussian()], range(6))
    assert {each.kind for each in found if each.too_often} == {"mean", ANY}


def test_the_tails_hold_at_the_level_in_use():
    assert all(0.5 < ratio < 1.2 for _, ratio in computed_rates())


def test_a_target_without_an_exact_law_is_not_counted():
    assert measured_rates([gaussian()], ()) == []
    assert Rate("mean", 1000, (90, 12, 1)).ratios() == [0.9, 1.2, 1.0]
    assert not Rate("mean", 1000, (90, 12, 1)).too_often
    assert Rate("mean", 1000, (90, 12, 12)).too_often


@pytest.fixture
def command(few_chains, monkeypatch):
    registry = Registry({}, (), (), (), {"four": four_states()}, {"metropolis": metropolis()}, {"dice": experiment()})
    monkeypatch.setattr(cli_calibrate, "load_registry", lambda: registry)
    app = typer.Typer()
    app.command()(cli_validate.validate)
    return lambda *arguments: CliRunner().invoke(app, ["--calibrate", *arguments])


def test_rates_of_exact_samplers(command):
    result = command("1", "--of", "tests")
    assert result.exit_code == 0, result.output
    assert "counts of cells" in result.output
    assert "at 1e-08" in result.output
    assert "No test rejects right samplers twice as often as stated." in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_planted_errors(command, monkeypatch):
    named, library = (getattr(planted_errors, name)() for name in ("named_errors", "power_library"))
    monkeypatch.setattr(planted_errors, "named_errors", lambda: named[:1])
    monkeypatch.setattr(planted_errors, "power_library", lambda: library[:1])
    result = command("1", "--of", "errors", "--of", "causes")
    assert result.exit_code == 0, result.output
    assert "Langevin: chain % 65536" in result.output
    assert "step 2 draws the same random numbers as step 1" in " ".join(result.output.split())
    assert "1 of 1 cause named" in result.output
    monkeypatch.setattr(planted_errors, "named_errors", lambda: [replace(named[0], cause="something else")])
    result = command("1", "--of", "causes")
    assert result.exit_code == 1
    assert "Not named: Langevin: one noise for all steps" in result.output


def test_alarms_of_samplers(command, monkeypatch):
    result = command("2", "--of", "samplers", "--seed", "5")
    assert result.exit_code == 0, result.output
    assert "seeds 5 to 6" in result.output
    assert "No right sampler raised an alarm." in result.output
    wrong = metropolis(accept=lambda u, ratio, state: u < 2)
    monkeypatch.setattr(cli_calibrate, "chosen_pairs", lambda *given: ([(wrong, four_states())], []))
    result = command("1", "--of", "samplers")
    assert result.exit_code == 1
    assert "wrong_law: metropolis on four" in result.output


def test_z_scores_of_experiments(command):
    result = command("60", "--of", "experiments")
    assert result.exit_code == 0, result.output
    assert "dice: mean of a die" in result.output
    biased = Experiment(
        "dice", "", "", lambda device, seed: Findings((Estimate("one", 1.5 + seed % 2, 1.0, exact=1.0),))
    )
    scores = next(z_scores([biased], range(60), CPU))
    assert (scores.seeds, scores.mean, scores.spread) == (60, 1.0, pytest.approx(0.504, abs=1e-3))
    assert scores.off
    assert not scores._replace(mean=0.3, spread=1.0).off
    with pytest.raises(RuntimeError, match="experiment dice, seed 0: ZeroDivisionError"):
        next(z_scores([replace(biased, run=lambda device, seed: 1 / 0)], range(2), CPU))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("1", "-s", "metropolis"), "-s goes with --of samplers"),
        (("1", "-e", "dice"), "-e goes with --of experiments"),
        (("1", "--of", "errors", "-t", "four"), "-t goes with --of samplers or tests"),
        (("1", "--of", "all"), "--of takes tests, errors, causes, samplers, experiments, not 'all'"),
        (("1", "--thorough"), "--calibrate takes neither --thorough nor --json nor --shard"),
    ],
)
def test_options_that_do_not_fit(command, arguments, words):
    result = command(*arguments)
    assert result.exit_code == 2
    assert words in re.sub(r"[\s│]+", " ", result.output)


def test_the_closing_line_is_as_calibrated():
    """The committed table: how often any test of a target fails, over the rate that the closing line states."""
    line = next(line for line in (CALIBRATION / "tests.txt").read_text().splitlines() if ANY in line)
    tests, at_a_tenth = line.split()[-4:-2]
    assert int(tests) >= 100
    assert 0.5 <= float(at_a_tenth) <= 2
    levels = [Claim("s", "t", 1.0, str(n), Status.PASSED, p_value=0.5, false_alarm=1e-8, steps=n) for n in range(1, 91)]
    noise = replace(levels[0], claim="moves", steps=None, false_alarm=5e-7)
    rows = [Standing("s", "t", 1.0, "torch", "", (*levels, noise))]
    assert "(1 pair: if all are correct, a test fails with probability of about 9e-07.)" in closing_line(
        rows, [], [], []
    )
    rows = [Standing("s", "t", 1.0, "torch", "", (noise,))]
    assert "a test fails with probability of at most 5e-07.)" in closing_line(rows, [], [], [])
