"""Experiments: estimates are compared with exact values, errors are reported, and reports show plots and estimates."""

import math
import re
from dataclasses import replace

import pytest
import torch
import typer
from boltzbench.harness import Curve, Estimate, Experiment, Findings, Picture, Plot, Status
from boltzbench.harness.api.messages import UnknownName
from boltzbench.harness.cli import validate as cli_validate
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE, Registry, load_registry
from boltzbench.harness.execution.parallel.judges import Judge
from boltzbench.harness.report.page import html, markdown
from boltzbench.harness.results.file import read_run
from boltzbench.harness.validation.experiments import conduct
from support.fakes import CPU, experiment, install
from typer.testing import CliRunner

GOOD = Estimate("one", 1.0, 0.1, exact=1.05)


def returning(*estimates, **more):
    return Experiment("given", "", "", lambda device, seed: Findings(estimates, **more))


def test_correct_estimates_pass_and_those_without_an_exact_value_have_no_status():
    outcome = conduct(experiment(), CPU, 0)
    assert outcome.status is Status.PASSED
    mean, faces, most = outcome.findings.estimates
    assert abs(mean.z) < 4
    assert mean.p_value > 1e-4
    assert mean.false_alarm == 1e-6
    assert (faces.status, faces.z) == (Status.PASSED, None)
    assert (most.status, most.message) == (None, "")
    assert outcome.tried == [mean, faces]
    assert conduct(experiment(), CPU, 0).findings == outcome.findings


def test_dice_with_seven_faces_fail():
    outcome = conduct(experiment(faces=7), CPU, 0)
    assert outcome.status is Status.WRONG_LAW
    assert [(each.claim, each.status) for each in outcome.failed] == [
        ("mean of a die", Status.WRONG_LAW),
        ("faces", Status.WRONG_VALUES),
    ]
    assert "exact 3.5" in outcome.failed[0].message


def test_a_p_value_of_the_experiment_replaces_the_normal_tail():
    far = Estimate("few draws", 2.0, 0.1, exact=1.0, p_value=0.01)
    near = Estimate("skewed", 1.0, 0.1, exact=1.05, p_value=1e-9)
    passed, failed = conduct(returning(far, near), CPU, 0).findings.estimates
    assert (passed.status, passed.p_value, passed.z) == (Status.PASSED, 0.01, pytest.approx(10))
    assert (failed.status, failed.p_value) == (Status.WRONG_LAW, 1e-9)
    assert failed.message == "measured 1 ± 0.1, exact 1.05, p = 1e-09"


def test_only_tests_share_the_significance_level():
    estimates = (GOOD, replace(GOOD, claim="two"), Estimate("told", 3.0), Estimate("bound", 1.0, exact=1.0, bound=0.0))
    outcome = conduct(returning(*estimates), CPU, 0)
    assert [each.false_alarm for each in outcome.findings.estimates] == [5e-7, 5e-7, None, None]


@pytest.mark.parametrize(
    "wrong",
    [
        Estimate("z", 2.0, 0.1, exact=1.0),
        Estimate("nan", math.nan, 0.1, exact=1.0),
        Estimate("nan within", math.nan, exact=1.0, bound=1.0),
        Estimate("no error", 1.0 + 1e-12, 0.0, exact=1.0),
        Estimate("bound", 1.2, exact=1.0, bound=0.1),
    ],
)
def test_wrong_estimates_fail(wrong):
    outcome = conduct(returning(wrong, GOOD), CPU, 0)
    assert [each.claim for each in outcome.failed] == [wrong.claim]
    assert outcome.status is Status.WRONG_LAW


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (None, "run must return Findings, got None"),
        (Findings(()), "Findings need at least one estimate"),
        (Findings([GOOD]), "estimates should be a valid tuple"),
        (Findings((GOOD, GOOD)), "two estimates claim 'one'"),
        (Findings((Estimate("a", torch.tensor(1.0)),)), "estimate 'a': should hold Python's numbers, got tensor(1.)"),
        (Findings((Estimate("a", 1.0, exact=1.0),)), "neither stderr nor bound to judge it by"),
        (Findings((Estimate("a", 1.0, 0.1, exact=math.inf),)), "exact should be finite"),
        (Findings((Estimate("a", 1.0, -0.1, exact=1.0),)), "should not be negative"),
        (Findings((replace(GOOD, p_value=math.nan),)), "p_value should be in [0, 1]"),
        (Findings((Estimate("a", 1.0, 0.1, p_value=0.5),)), "beside an exact value and no bound"),
        (Findings((replace(GOOD, status=Status.PASSED),)), "status is for the harness to say"),
        (Findings((GOOD,), (Plot("t", "x", "y", (Curve("c", (1.0,), ()),)),)), "x, y and stderr should be of one"),
        (Findings((GOOD,), pictures=(Picture("p", ((0.0,), (0.0, 1.0))),)), "its rows should be of one length"),
    ],
)
def test_findings_that_cannot_be_judged_or_drawn_are_an_error(given, words):
    outcome = conduct(Experiment("given", "", "", lambda device, seed: given), CPU, 0)
    assert (outcome.status, outcome.findings) == (Status.ERROR, None)
    assert words in outcome.message


def test_an_error_names_its_place():
    def run(device, seed):
        raise RuntimeError("no luck")

    outcome = conduct(Experiment("unlucky", "s", "o", run, "p"), CPU, 0)
    assert outcome.status is Status.ERROR
    assert re.fullmatch(r"RuntimeError: no luck \(test_experiments.py:\d+\)", outcome.message)
    assert (outcome.experiment, outcome.summary, outcome.source, outcome.plugin) == ("unlucky", "s", "o", "p")


def command(monkeypatch, arguments, *experiments):
    registry = Registry({}, (), (), experiments={each.name: each for each in experiments})
    monkeypatch.setattr(cli_validate, "read_catalogue", lambda *given, **named: registry)

    def judged_here(registry, devices, time_limit, progress, pairs, experiments, seed, found, outcomes, lost):
        outcomes.update({each.name: conduct(each, devices[0], seed) for each in experiments})

    monkeypatch.setattr(cli_validate, "_judge", judged_here)
    app = typer.Typer()
    app.command()(cli_validate.validate)
    return CliRunner().invoke(app, ["--device", "cpu", *arguments])


def test_the_command_and_its_reports(monkeypatch, tmp_path):
    file = tmp_path / "found.json"
    result = command(monkeypatch, ["--json", str(file)], experiment(), experiment("more"))
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert (
        "All 4 claims hold. (2 experiments: if all are correct, a test fails with probability of about 2e-06.)" in words
    )
    assert max(map(len, result.output.splitlines())) <= 80
    line = next(line for line in result.output.splitlines() if "mean of a die" in line)
    assert re.search(r"mean of a die +3\.5 +3\.\d+ ± 0\.022 +[+-]\d\.\d\d +passed", line)
    run = read_run(file)
    assert [each.experiment for each in run.outcomes] == ["dice", "more"]
    page, text = html([("a", run)]), markdown([("a", run)])
    for words in (
        "<h2>Experiments</h2>",
        "Do dice show",
        "A three",
        "All estimates of 2 experiments agree",
        "frequency, exact",
    ):
        assert words in page
    assert '<section id="agreement">' not in page
    assert "### Experiment dice" in text
    assert "| mean of a die | 3.5 |" in text


def test_the_command_shows_failures_in_full(monkeypatch, tmp_path):
    file = tmp_path / "found.json"
    failing = Experiment("unlucky", "", "", lambda device, seed: 1 / 0)
    result = command(monkeypatch, ["--json", str(file)], experiment(faces=7), failing)
    assert result.exit_code == 1
    assert "wrong_law: experiment dice: mean of a die: measured" in " ".join(result.output.split())
    assert "error: experiment unlucky: ZeroDivisionError: division by zero" in result.output
    assert "3 of 3 claims failed." in result.output
    run = read_run(file)
    for report in (html([("a", run)]), markdown([("a", run)])):
        assert "ZeroDivisionError" in report


def test_experiments_are_chosen_by_name(monkeypatch):
    both = experiment(), experiment("more")
    assert "(1 experiment:" in command(monkeypatch, ["-e", "more"], *both).output
    result = command(monkeypatch, ["-e", "mor"], *both)
    assert isinstance(result.exception, UnknownName)
    assert str(result.exception) == "unknown experiment 'mor': did you mean more?"


def test_an_experiment_that_ends_its_process_fails_and_the_next_one_runs(tmp_path, monkeypatch):
    source = """
        import os
        from boltzbench.harness import Estimate, Experiment, Findings, hookimpl

        BOLTZBENCH_API = 1

        @hookimpl
        def register_experiments(register):
            register(Experiment("ends", "", "", lambda device, seed: os._exit(3)))
            register(Experiment("goes_on", "", "", lambda device, seed: Findings((Estimate("one", 1.0),))))
        """
    points = install(tmp_path, {"ending": source})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv(PLUGINS_VARIABLE, "ending")
    registry = load_registry(points)
    judge = Judge(CPU, lambda claim: None, 60.0, registry)
    ended, went_on = (judge.outcome(each, 0) for each in registry.experiments.values())
    judge.workers.close()
    assert (ended.status, ended.message) == (Status.ERROR, "its process exited with status 3")
    assert went_on.status is Status.PASSED
