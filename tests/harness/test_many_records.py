"""Runs of many records: the cost of reading, comparing and reporting them grows no faster than their number."""

import gc
import io
import time
import tracemalloc

import numpy as np
import pytest
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Measurement, Record, Run
from boltzbench.harness.report import page
from boltzbench.harness.report.compare_tables import comparison_tables
from boltzbench.harness.report.markdown import markdown
from boltzbench.harness.results.compare import compare, read_summary
from boltzbench.harness.results.file import SCHEMA, ResultsFile, read_run, run_to_json
from rich.console import Console

CPU = {"device": "cpu", "cpu": "EPYC", "cores": 4, "threads": 4}
FEW, MANY = 1200, 4800
"""Both fill more than the caches of a CPU, or the ratio of their times would depend on its other cores."""


def run(count, samples=5):
    """A run of ``count`` records: five operations, four implementations, and as many cases as that takes."""
    generator = np.random.default_rng(count)
    records = []
    for i in range(count):
        times = (1 + i // 20) * 1e-5 * np.exp(0.02 * generator.standard_normal(samples))
        median = float(np.median(times))
        measurement = Measurement(
            "EPYC", "cold", tuple(times.tolist()), median, median, median, 1 / median, "rows", 8 / median, 2 / median
        )
        name = ("torch", "triton", "cupy", "native")[i // 5 % 4]
        case = {"case": f"n={i // 20} float32", "purpose": "bench", "sizes": {"n": 1 + i // 20}, "dtype": "float32"}
        records.append(Record(f"op{i % 5}", name, name, "p", status=Status.PASSED, measurements=(measurement,), **case))
    return Run(SCHEMA, "complete", CPU, tuple(records))


def compared(folder, count):
    path = folder / f"{count}.json"
    path.write_text(run_to_json(run(count)))

    def act():
        comparison = compare(read_summary(path), read_summary(path), bound=0.05)
        assert len(comparison.pairs) == count
        Console(file=io.StringIO(), width=80).print(comparison_tables(comparison))

    return act


def written(folder, count):
    records = run(count).records

    def act():
        file = ResultsFile(folder, CPU)
        for record in records:
            file.add(record)
        file.finish()
        assert len(file.run.records) == count

    return act


def reported(write):
    def prepared(folder, count):
        labelled = [("now", run(count))]
        return lambda: write(labelled, against=("then", labelled[0][1]))

    return prepared


@pytest.mark.parametrize(
    "what",
    [written, compared, reported(page.html), reported(page.csv_text), reported(markdown)],
    ids=["write", "compare", "html", "csv", "markdown"],
)
def test_the_cost_grows_no_faster_than_the_number_of_records(tmp_path, monkeypatch, what):
    """Beyond the cost of one record. One that grows with the square would be 16 times as high."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # minutes on a slow disk
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "")

    one, few, many = (what(tmp_path, count) for count in (1, FEW, MANY))

    def seconds(act):
        begin = time.process_time()
        act()
        return time.process_time() - begin

    def ratio():
        least = seconds(one)
        return (seconds(many) - least) / (min(seconds(few), seconds(few)) - least)

    seconds(one)  # imports modules
    gc.collect()
    gc.freeze()  # what other tests have left would be visited again and again
    found = []
    while len(found) < 3 and not (found and min(found) < 1.5 * MANY / FEW):  # a busy machine may spoil a ratio
        found.append(ratio())
    gc.unfreeze()
    assert min(found) < 1.5 * MANY / FEW


def test_a_comparison_keeps_no_samples(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(run_to_json(run(200, samples=500)))
    peaks = []
    for read in (read_run, read_summary):
        tracemalloc.start()
        kept = read(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(kept.records if read is read_run else kept.cases) == 200
    assert peaks[1] < peaks[0] / 3
    assert peaks[1] < path.stat().st_size / 2


def test_a_large_page_is_compressed_and_thins_samples(monkeypatch):
    """What a browser makes of such a page is tested in report/test_page_in_a_browser.py."""
    labelled = [("now", run(500, samples=40))]
    monkeypatch.setattr(page, "MOST_SAMPLES", 40 * 500 // 3)
    plain = page.html(labelled)
    assert plain.count("; one of 4 is shown") == 500
    monkeypatch.setattr(page, "LARGE", 100_000)
    packed = page.html(labelled)
    from plotly.offline import get_plotlyjs

    rest = len(get_plotlyjs())
    assert len(packed) - rest < (len(plain) - rest) / 5
    assert packed.count('data-packed="gzip"') == 2
    assert "which need JavaScript" in packed
