"""`compare`, `sweep` and `save`: ratios with honest intervals, tables of 80 columns, plots, results files."""

import re

import numpy as np
import pytest
import torch
from boltzbench.harness import bound, compare, measure, save, sweep
from boltzbench.harness.callables.compare import FEWEST_ROUNDS, Compared, Ratio, ratio_of
from boltzbench.harness.results.compare import Verdict, summary
from boltzbench.harness.results.compare import compare as compare_runs
from boltzbench.harness.results.file import read_run
from boltzbench.harness.timing import stopwatch
from support.attacks import FakeTime

X = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))


def twice(x):
    return 2 * x


def added(x):
    return x + x


def wrong(x):
    return 2.1 * x


# Ratios ------------------------------------------------------------------------------------------------------------


def rounds(rng, kind, number, factor):
    """Two callables that take turns, on a clock that drifts, has two modes or spikes; the second is slower."""
    clock = np.ones((number, 2, 4))
    if kind == "drift":
        clock *= 1 + 0.3 * np.sin(np.arange(clock.size).reshape(clock.shape) / clock.size * 3)
    elif kind == "two modes":
        clock *= np.where(rng.random(clock.shape) < 0.4, 1.2, 1.0)
    else:
        clock += np.where(rng.random(clock.shape) < 0.1, rng.exponential(2, clock.shape), 0.0)
    samples = clock * np.exp(rng.normal(0, 0.02, clock.shape)) * np.array([1.0, factor])[:, None]
    return samples[:, 0].tolist(), samples[:, 1].tolist()


@pytest.mark.parametrize("kind", ["drift", "two modes", "spikes"])
def test_the_interval_covers_the_true_ratio(kind):
    rng, covered, found = np.random.default_rng(3), 0, 0
    for _ in range(30):
        ratio = ratio_of(*rounds(rng, kind, 25, 1.0))
        covered += ratio.low <= 1 <= ratio.high
        slower = ratio_of(*reversed(rounds(rng, kind, 25, 1.05)))
        found += slower.low > 1
    assert covered >= 25  # of 30, at a level of 95 %: fewer with a probability of 1 %
    assert found >= (30 if kind != "two modes" else 10)


def test_few_rounds_have_no_interval():
    few = [[1.0, 1.1]] * (FEWEST_ROUNDS - 1)
    assert (ratio_of(few, few).value, ratio_of(few, few).low) == (1.0, None)
    assert str(ratio_of(few, few)) == "1.00"
    many = [[2.0]] * FEWEST_ROUNDS, [[1.0]] * FEWEST_ROUNDS
    assert str(ratio_of(*many)) == "2.00 2.00..2.00"


def test_drift_between_turns_cancels(monkeypatch):
    """End to end, on a clock that only the callables advance, and that slows down by half meanwhile."""
    host = FakeTime()
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: host.clock())
    noise = np.random.default_rng(0)

    def lasting(seconds):
        def fn(x):
            drift = 1 + host.nanoseconds * 1e-9 / 4
            host.spend(seconds * drift * (1 + 0.01 * noise.standard_normal()))
            return 2 * x

        return fn

    found = compare({"a": lasting(1e-3), "same": lasting(1e-3), "slower": lasting(1.05e-3)}, X, reference=twice)
    same, slower = found.ratios["same"], found.ratios["slower"]
    assert same.low <= 1 <= same.high
    assert same.high - same.low < 0.03
    assert slower.low <= 1.05 <= slower.high
    assert slower.low > 1
    assert found.ratios["a"].value == 1
    assert found["a"].timing.p90 / found["a"].timing.p10 > 1.2  # it did drift


# Tables ------------------------------------------------------------------------------------------------------------


def test_a_table_of_80_columns_with_what_failed():
    def fails(x):
        raise RuntimeError("no such luck")

    callables = {"torch": twice, "added": added, "wrong": wrong, "fails": fails}
    found = compare(callables, X, reference=twice, baseline="added", seconds=0.05)
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "x 64x32 float32, cold, cpu"
    assert lines[1].split() == ["verdict", "median", "p10..p90", "of", "limit", "time/added"]
    assert re.match(r"  torch +passed +[\d.]+ .s .*% copy +\d", lines[2])
    text = " ".join(str(found).split())
    assert "wrong: wrong values: result: 2048 of 2048 elements are off" in text
    assert "fails: error: RuntimeError: no such luck; raised by call 1 of fails" in text
    assert (found.baseline, found["added"].passed, list(found.ratios)) == ("added", True, ["torch", "added"])
    html = found._repr_html_()
    assert html.count("<tr>") == 5
    assert "no such luck" in html


def test_arguments_have_the_names_that_one_of_the_callables_gives():
    calls = {"add": torch.add, "added": lambda x, y: x + y}
    assert compare(calls, X, X.clone(), seconds=0.02).title == "x 64x32 float32, y 64x32 float32, cold, cpu"
    assert compare({"exp": torch.exp}, X, seconds=0.02).title == "args[0] 64x32 float32, cold, cpu"


def test_a_ratio_without_an_interval_says_why():
    one, few = measure(twice, X, seconds=0.02), Ratio(2.0)
    words = "no interval of a ratio: fewer than 5 rounds; more seconds= give more"
    assert words in Compared({"a": one, "b": one}, "a", {"a": Ratio(1.0), "b": few}).explained()
    enough = Compared({"a": one, "b": one}, "a", {"a": Ratio(1.0), "b": Ratio(2.0, 1.9, 2.1)})
    assert words not in enough.explained()


def test_without_a_baseline_there_are_no_ratios():
    found = compare({"wrong": wrong, "torch": twice}, X, reference=twice, seconds=0.02)
    assert found.ratios == {}
    assert "no ratios: the baseline wrong has no time" in str(found)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: compare({}, X), TypeError, "expected a dict of callables by name"),
        (lambda: compare(twice, X), TypeError, "expected a dict of callables by name"),
        (lambda: compare({"a": twice}, X, baseline="b"), ValueError, "unknown baseline 'b': choose from a"),
        (lambda: sweep(twice, torch.randn), ValueError, r"sweep needs sizes, such as n=\[1024, 2048\]"),
        (lambda: sweep(twice, torch.randn, n=[0]), ValueError, r"n must be a list of positive whole.* got \[0\]$"),
        (lambda: sweep(twice, torch.randn, n=7), ValueError, r"n must be a list of positive whole numbers.* got 7$"),
        (lambda: sweep(twice, X, n=[1]), TypeError, r"make_args must be callable.*: got tensor\(.{,30}$"),
        (lambda: sweep(twice, lambda n: [n], n=[1]), TypeError, "must return a tuple, a dict or a tensor: got a list"),
        (lambda: save("x.json"), ValueError, "nothing to save"),
        (lambda: save("x.json", 3), TypeError, "save takes results of measure, compare and sweep: got 3"),
    ],
)
def test_bad_arguments(call, kind, words):
    with pytest.raises(kind, match=words):
        call()


# Sweeps and results files ------------------------------------------------------------------------------------------


def test_a_sweep_prints_and_draws_itself():
    found = sweep(
        {"torch": twice, "added": added},
        lambda n, m: {"x": torch.randn(n, m)},
        reference=twice, seconds=0.02, flops=lambda n, m: n * m, bound=lambda n, m: bound(torch.float32),
        n=[4, 16], m=[3],
    )  # fmt: skip
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "cold, cpu"
    assert lines[1].split()[-1] == "time/torch"
    assert re.match(r"  n=4 m=3 +torch +passed ", lines[2])
    figure = found.figure()
    assert [trace["name"] for trace in figure["data"]] == ["torch m=3", "added m=3"]
    assert figure["data"][0]["x"] == [4, 16]
    assert figure["data"][0]["y"][0] == found.results[0].median
    assert figure["layout"]["xaxis"]["title"]["text"] == "n"
    html = found._repr_html_()
    assert "Plotly.newPlot" in html
    assert html.count("<tr>") == 5


def test_a_size_that_fails_leaves_the_others():
    def make(n):
        if n == 8:
            raise torch.OutOfMemoryError("too large")
        return torch.randn(n, n)

    found = sweep(twice, make, reference=twice, seconds=0.02, n=[4, 8])
    assert [each.verdict for each in found.results] == ["passed", "out of memory"]
    assert "n=8: twice: out of memory: OutOfMemoryError: too large" in str(found)


CRASHING = """
import os


def crash_at_8(x):
    if len(x) == 8:
        os.abort()
    return 2 * x


def twice(x):
    return 2 * x


def added(x):
    return x + x
"""


def test_isolated_a_crash_leaves_the_others(tmp_path, monkeypatch):
    """The process that begins after the crash has neither the callable nor, for its ratios, the baseline."""
    (tmp_path / "crashing_at_8.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    it = __import__("crashing_at_8")
    callables = {"crash": it.crash_at_8, "twice": it.twice, "added": it.added}
    found = sweep(callables, lambda n: torch.ones(n), reference=it.twice, bytes=0, seconds=0.02, isolated=True, n=[8])
    ((_, point),) = found.points
    assert [(each.name, each.verdict) for each in found.results] == [
        ("crash", "error"), ("twice", "passed"), ("added", "passed"),
    ]  # fmt: skip
    assert point["crash"].agreement.message == "its process was ended by SIGABRT"
    assert point["added"].median > 0
    assert (point.baseline, point.ratios) == ("crash", {})
    with pytest.raises(ValueError, match="isolated=True needs functions"):
        compare({"a": lambda x: x}, X, isolated=True)


def test_results_are_written_as_a_run(tmp_path):
    found = compare({"torch": twice, "added": added, "wrong": wrong}, X, reference=twice, seconds=0.05)
    save(tmp_path / "base.json", found)
    run = read_run(tmp_path / "base.json")
    assert [(each.implementation, str(each.status), len(each.measurements)) for each in run.records] == [
        ("torch", "passed", 1), ("added", "passed", 1), ("wrong", "wrong_values", 0),
    ]  # fmt: skip
    assert run.records[0].measurements[0].samples == found["torch"].samples
    assert run.records[0].case == "x 64x32 float32"
    assert run.ceilings
    pairs = compare_runs(summary(run), summary(run), bound=0.05).pairs
    assert {each.verdict for each in pairs} == {Verdict.SAME}
    with pytest.raises(ValueError, match="two results are named twice torch x 64x32 float32"):
        save(tmp_path / "base.json", found, found)
    with pytest.raises(ValueError, match="twice is unchecked, and a results file holds checked figures only"):
        save(tmp_path / "base.json", measure(twice, X, seconds=0.02))
    sizes = sweep(twice, lambda n: torch.randn(n), reference=twice, seconds=0.02, n=[4, 8])
    save(tmp_path / "sizes.json", sizes)
    assert [each.sizes for each in read_run(tmp_path / "sizes.json").records] == [{"n": 4}, {"n": 8}]
