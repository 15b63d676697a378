"""Steps in the times of many runs with known changes, and what is kept apart, left out and named."""

import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from boltzbench.harness.results.compare import Timing
from boltzbench.harness.results.file import ResultsError
from boltzbench.harness.results.history import HistoricRun, Point, as_json, find_steps, read_history
from support.timed_runs import timed_run, write

LEVEL = 0.05 / 20
"""The significance level of each of 20 cases."""


def points(logs, error=0.004):
    return [Point(i, Timing(math.exp(log), log_median=log, variance=error**2)) for i, log in enumerate(logs)]


def runs(count, floor=None):
    return [HistoricRun(Path(f"{i}.json"), datetime.now(UTC), f"c{i}", floor) for i in range(count)]


def scattered(generator, count, scatter):
    return scatter * generator.standard_normal(count) + 0.004 * generator.standard_normal(count)


@pytest.mark.parametrize(("count", "scatter"), [(2, 0.0), (8, 0.004), (30, 0.03)])
def test_a_history_without_a_change_has_no_step(count, scatter):
    """In at most 5 % of 60 machines, each of 20 cases."""
    generator = np.random.default_rng(1)
    usual = (math.hypot(scatter, 0.004), 20 * count)
    with_a_step = 0
    for _ in range(60):
        found = (find_steps(points(scattered(generator, count, scatter)), runs(count), LEVEL, usual) for _ in range(20))
        with_a_step += any(found)
    assert with_a_step <= 3


@pytest.mark.parametrize(("place", "size"), [(15, 0.05), (15, -0.05), (25, 0.1), (29, 0.15)])
def test_a_step_is_found_where_it_is(place, size):
    """In 95 of 100 histories of 30 runs that scatter by 1 %; at the newest run only if it is large."""
    generator = np.random.default_rng(2)
    right = 0
    for _ in range(100):
        logs = scattered(generator, 30, 0.01)
        logs[place:] += math.log1p(size)
        steps = find_steps(points(logs), runs(30), LEVEL)
        right += len(steps) == 1 and abs(steps[0].at - place) <= 1 and (steps[0].ratio > 1) is (size > 0)
    assert right >= 95


def test_two_steps_and_what_lies_between():
    generator = np.random.default_rng(3)
    logs = scattered(generator, 40, 0.003)
    logs[10:25] += math.log(1.2)
    steps = find_steps(points(logs), runs(40), LEVEL)
    assert [(step.at, step.length) for step in steps] == [(10, 15), (25, 15)]
    assert [step.ratio for step in steps] == pytest.approx([1.2, 1 / 1.2], rel=0.01)
    assert all(step.low < step.ratio < step.high < 1.02 * step.low for step in steps)


def test_a_run_that_alone_deviates_is_a_step_only_as_the_newest():
    generator = np.random.default_rng(4)
    logs = scattered(generator, 21, 0.003)
    logs[12] += math.log(1.5)
    assert find_steps(points(logs), runs(21), LEVEL) == []
    (step,) = find_steps(points(logs[:13]), runs(13), LEVEL, (0.005, 100.0))
    assert (step.at, step.length) == (12, 1)


def test_a_step_within_the_noise_floor_is_none():
    logs = [0.0] * 10 + [math.log(1.1)] * 10
    assert len(find_steps(points(logs), runs(20), LEVEL)) == 1
    assert len(find_steps(points(logs), runs(20, floor=0.09), LEVEL)) == 1
    assert find_steps(points(logs), runs(20, floor=0.11), LEVEL) == []


NAMES = ("softmax torch n=3", "softmax triton n=3", "softmax triton n=4")


def history_of(folder, count=12, change=lambda day, times: times, **environment):
    """Write runs whose cases take 1, 2 and 3 ms, but for ``change(day, times)``."""
    generator = np.random.default_rng(5)
    for day in range(count):
        times = {
            name: 1e-3 * (1 + place) * (1 + 0.003 * generator.standard_normal()) for place, name in enumerate(NAMES)
        }
        write(folder / f"week {day // 7}", timed_run(change(day, times), day, generator, **environment))


def slower_from(first, factor=1.2):
    return lambda day, times: {**times, NAMES[1]: times[NAMES[1]] * (factor if day >= first else 1.0)}


def test_a_slowdown_at_the_newest_end_is_a_regression_and_an_older_one_is_not(tmp_path):
    history_of(tmp_path / "new", change=slower_from(10))
    found = read_history(tmp_path / "new")
    ((machine, series, step),) = found.regressions()
    assert (series.operation, series.implementation, series.case, series.mode) == ("softmax", "triton", "n=3", "cold")
    assert (machine.runs[series.points[step.at].run].commit, step.length) == ("000000000a", 2)
    assert step.ratio == pytest.approx(1.2, rel=0.02)
    assert found.failed
    assert not read_history(tmp_path / "new", bound=0.25).failed, "25 % are allowed"
    history_of(tmp_path / "old", change=slower_from(5))
    found = read_history(tmp_path / "old")
    assert [len(series.steps) for series in found.machines[0].series] == [0, 1, 0]
    assert not found.failed
    history_of(tmp_path / "better", change=slower_from(10, 0.8))
    found = read_history(tmp_path / "better")
    assert [len(series.steps) for series in found.machines[0].series] == [0, 1, 0]
    assert not found.failed


def test_a_case_that_passed_before_and_fails_in_the_newest_run_is_named(tmp_path):
    history_of(tmp_path, change=lambda day, times: {**times, NAMES[2]: "it hung"} if day == 11 else times)
    found = read_history(tmp_path)
    (failure,) = found.machines[0].failures
    assert (failure.implementation, failure.case, failure.run, failure.message) == (
        "triton",
        "n=4",
        11,
        "error: it hung",
    )
    assert found.failed


def test_machines_are_kept_apart(tmp_path):
    history_of(tmp_path / "a")
    history_of(tmp_path / "b", cpu="Xeon", change=lambda day, times: {name: 2 * each for name, each in times.items()})
    gpu = {"name": "H200", "uuid": "1"}
    history_of(tmp_path / "c", count=2, gpu=gpu, device="cuda:0")
    found = read_history(tmp_path)
    assert sorted((machine.device, len(machine.runs)) for machine in found.machines) == [
        ("H200", 2),
        ("the CPU EPYC (cores: 4, threads: 4)", 12),
        ("the CPU Xeon (cores: 4, threads: 4)", 12),
    ]
    assert not any(series.steps for machine in found.machines for series in machine.series)


def test_files_that_cannot_be_used_are_left_out_and_named(tmp_path):
    history_of(tmp_path, count=3)
    whole = next(tmp_path.rglob("*.json")).read_text()
    (tmp_path / "cut.json").write_text(whole[:-200])
    (tmp_path / "other.json").write_text('{"name": "no run"}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "no schema.json").write_text(re.sub('"schema": [0-9]+,', "", whole))
    (tmp_path / "no records.json").write_text('{"schema": 2}')
    undated = timed_run({NAMES[0]: 1e-3}, 3, np.random.default_rng(6))
    write(tmp_path, undated, "undated.json").write_text(whole.replace('"started": "2026', '"started": "no date 2026'))
    found = read_history(tmp_path)
    assert len(found.machines[0].runs) == 3
    problems = "\n".join(found.problems)
    for words in (
        "cut.json is damaged",
        "no schema.json is not a results file",
        "no records.json is not a valid results file",
        "undated.json does not say when it started",
    ):
        assert words in problems
    assert len(found.problems) == 4, "other JSON is passed over"


def test_older_files_have_their_start_in_the_name(tmp_path):
    history_of(tmp_path, count=1)
    path = next(tmp_path.rglob("*.json"))
    path.write_text(path.read_text().replace('"started": "2026', '"begun": "2026').replace('"begun"', '"x"'))
    text = json.loads(path.read_text())
    del text["x"]
    path.write_text(json.dumps(text))
    assert read_history(tmp_path).machines[0].runs[0].started == datetime(2026, 11, 1, 4, 5, tzinfo=UTC)


def test_a_folder_without_a_history(tmp_path):
    for folder, words in (("missing", "does not exist"), ("empty", "has no results file with times")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(ResultsError, match=words):
            read_history(tmp_path / folder)
    (tmp_path / "empty" / "cut.json").write_text("{")
    with pytest.raises(ResultsError, match=r"left out: .*cut\.json is damaged"):
        read_history(tmp_path / "empty")
    with pytest.raises(ResultsError, match="it is no folder"):
        read_history(tmp_path / "empty" / "cut.json")


def test_a_machine_without_a_time_that_can_be_judged_is_left_out_and_named(tmp_path):
    run = timed_run({NAMES[0]: 1e-3}, 0, np.random.default_rng(7), cpu="Xeon")
    (record,) = run.records
    one = replace(record.measurements[0], samples=(1e-3,))
    path = write(tmp_path, replace(run, records=(replace(record, measurements=(one,)),)))
    words = f"{path.name} has no time that can be judged: too few samples to judge: 1"
    with pytest.raises(ResultsError, match=f"has no results file with times.*left out: .*{words}"):
        read_history(tmp_path)
    history_of(tmp_path, count=2)
    found = read_history(tmp_path)
    assert [len(machine.runs) for machine in found.machines] == [2]
    assert words in found.problems[0]


def test_json(tmp_path):
    history_of(tmp_path, change=slower_from(10))
    found = json.loads(json.dumps(as_json(read_history(tmp_path)), allow_nan=False))
    (machine,) = found["machines"]
    assert (found["regression"], found["problems"], len(machine["runs"])) == (True, [], 12)
    assert machine["runs"][0]["started"] == "2026-11-01T04:05:00Z"
    series = machine["series"][1]
    assert (len(series["medians"]), series["steps"][0]["run"], series["steps"][0]["regression"]) == (12, 10, True)
    assert series["medians"][0] == pytest.approx(2e-3, rel=0.03)
