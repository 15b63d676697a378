"""Right samplers are rejected about as often as stated, and a test that lies is noticed."""

import pytest
from boltzbench.harness.cli import validate as cli_validate
from boltzbench.harness.discovery.registry import Registry
from boltzbench.harness.validation import calibration, claims
from boltzbench.harness.validation.calibration import Rate, computed_rates, measured_rates
from support.wrong_samplers import four_states, gaussian, metropolis, normal_on_a_line
from typer.testing import CliRunner


@pytest.fixture
def few_chains(monkeypatch):
    monkeypatch.setattr(calibration, "CHAINS", 500)


def test_no_test_rejects_right_samplers_too_often(few_chains):
    rates = {each.kind: each for each in measured_rates([normal_on_a_line(), four_states()], range(4))}
    assert {"mean", "Kolmogorov-Smirnov", "counts of cells", "independent streams", "moves"} <= set(rates)
    assert rates["mean"].tests > 60
    assert not [each for each in rates.values() if each.too_often]


def test_a_p_value_that_is_too_small_is_noticed(few_chains, monkeypatch):
    right = claims.mean_test

    def overconfident(*given):
        z, stderr, p_value = right(*given)
        return z, stderr, p_value**2

    monkeypatch.setattr(claims, "mean_test", overconfident)
    rates = measured_rates([gaussian()], range(6))
    assert [each.kind for each in rates if each.too_often] == ["mean"]


def test_the_tails_hold_at_the_level_in_use():
    assert all(0.5 < ratio < 1.2 for _, ratio in computed_rates())


def test_a_target_without_an_exact_law_is_not_counted():
    assert measured_rates([gaussian()], ()) == []
    assert Rate("mean", 1000, (12, 1)).ratios() == [1.2, 1.0]
    assert not Rate("mean", 1000, (12, 1)).too_often
    assert Rate("mean", 1000, (12, 12)).too_often


def test_the_command_prints_both_tables(few_chains, monkeypatch):
    import typer

    found = Registry({}, (), (), (), {"four": four_states()}, {"metropolis": metropolis()})
    monkeypatch.setattr(cli_validate, "load_registry", lambda: found)
    app = typer.Typer()
    app.command()(cli_validate.validate)
    result = CliRunner().invoke(app, ["--calibrate", "1"])
    assert result.exit_code == 0, result.output
    assert "counts of cells" in result.output
    assert "at 1e-08" in result.output
    assert "No test rejects right samplers twice as often as stated." in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    assert CliRunner().invoke(app, ["--calibrate", "1", "-s", "metropolis"]).exit_code == 2
