"""Predicted against measured in `report`: which measurements are compared, and what the page and the Markdown show."""

import json
from dataclasses import replace

import pytest
from boltzbench.harness import Status
from boltzbench.harness.api.records import Measurement, Record, Run
from boltzbench.harness.cli import app as cli
from boltzbench.harness.report import page as report
from boltzbench.harness.report import rows as report_rows
from boltzbench.harness.results.file import ResultsError, run_to_json
from boltzbench.harness.results.predictions import read_predictions

GPU = "NVIDIA H200"


def record(implementation, case, *measurements, **fields):
    fields = {"status": Status.PASSED, "purpose": "bench", "source_hash": "5ce", **fields}
    return Record("lse", implementation, implementation, "p", case, measurements=measurements, **fields)


def measurement(rate, median=1e-3, mode="cold", unit="elements", flops=0.0):
    return Measurement("cuda:0", mode, (median,), median, median, median, rate, unit, 4 * rate, flops)


RUN = Run(
    2,
    "complete",
    {"device": "cuda:0", "gpu": {"name": GPU}},
    (
        record("cupy", "n=8", measurement(0.9e12), measurement(3e12, mode="hot")),
        record("cupy", "n=9", measurement(0.5e12)),
        record("triton", "n=8", measurement(1e9, unit="chains", flops=2.4e12)),
        record("triton", "short", measurement(0.9e12, median=1e-6)),
        record("triton", "two", measurement(0.9e12)),
        record("triton", "old", measurement(0.9e12), source_hash="01d"),
        record("triton", "links", measurement(0.9e12, unit="unit updates")),
        record("triton", "unread", measurement(0.9e12)),
        record("torch", "n=8", measurement(0.2e12)),
    ),
)  # a made-up run
EXPECTED = {
    "kernel": "forward <x>", "device": "H200 SXM", "unit": "elements", "rate": 1e12, "low": 0.8e12, "high": 1.2e12,
    "decides": "memory",
}  # fmt: skip


def kernel(seconds=1e-3, **changes):
    return {"name": "forward", "launches": 10, "seconds": seconds, "expected": {**EXPECTED, **changes}}


def profiled(implementation, case, *kernels, message=""):
    return {
        "operation": "lse", "implementation": implementation, "case": case, "source_hash": "5ce", "message": message,
        "kernels": kernels,
    }  # fmt: skip


PROFILE = {
    "environment": {"gpu": {"name": GPU}},
    "records": [
        profiled("cupy", "n=8", kernel(), {"name": "fill", "launches": 10, "seconds": 1e-5, "expected": None}),
        profiled("cupy", "n=9", kernel()),
        profiled("triton", "n=8", kernel(unit="multiply-adds")),
        profiled("triton", "short", kernel()),
        profiled("triton", "two", kernel(), kernel(2e-4)),
        profiled("triton", "old", kernel()),
        profiled("triton", "links", kernel(unit="links")),
        profiled("triton", "unread", message="ncu reported no kernel"),
    ],
}


@pytest.fixture
def profile(tmp_path):
    def write(whole=PROFILE):
        path = tmp_path / "profile.json"
        path.write_text(json.dumps(whole))
        return path

    return write


def test_a_measurement_is_compared_with_the_kernel_that_ran(profile):
    runs = [("now", RUN)]
    compared, left = report_rows.foretold(runs, report_rows.rows(runs), read_predictions(profile()))
    assert [(each.row.record.implementation, each.row.record.case, each.position) for each in compared] == [
        ("cupy", "n=8", "inside"), ("cupy", "n=9", "below"), ("triton", "n=8", "inside"),
    ]  # fmt: skip
    assert [each.ratio for each in compared] == pytest.approx([0.9, 0.5, 1.2]), "of multiply-adds half the operations"
    assert left == {
        "shorter than 50 µs": 1,
        "its launch runs several kernels": 1,
        "its source is not that of the profile": 1,
        "the kernel is predicted in links, which the case does not count": 1,
        "ncu reported no kernel": 1,
    }
    assert report_rows.foretold_line(compared) == (
        "2 of 3 measured rates lie in the interval that holds nine of ten published ones. Measured over expected: "
        "geometric mean 0.814, rms log error 0.42."
    )


def test_a_run_on_another_device_is_not_compared(profile):
    other = replace(RUN, environment={"device": "cuda:0", "gpu": {"name": "NVIDIA L4"}})
    runs = [("now", other), ("on a cpu", replace(RUN, environment={"device": "cpu"}))]
    compared, left = report_rows.foretold(runs, report_rows.rows(runs), read_predictions(profile()))
    assert (compared, left) == ([], {f"predicted for another device, {GPU}": 16})
    assert "No measurement has a prediction." in report.markdown(runs, predictions=read_predictions(profile()))


def test_page_and_markdown_show_both(profile, tmp_path, capsys):
    (tmp_path / "run.json").write_text(run_to_json(RUN))
    files = [str(tmp_path / name) for name in ("run.json", "page.html", "report.md")]
    command = ["report", files[0], "--html", files[1], "--markdown", files[2], "--predictions", str(profile())]
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 0
    assert "2 of 3 measured rates lie in the interval" in capsys.readouterr().err
    markdown = (tmp_path / "report.md").read_text()
    line = "| lse | n=9 | cupy | below | 0.500 | 500 G | 1.00 T (800 G to 1.20 T) elements/s | memory |"
    assert line in markdown
    assert "- 1 measurement not compared: shorter than 50 µs" in markdown
    page = (tmp_path / "page.html").read_text()
    section = page.partition('<section id="predicted">')[2].partition("</section>")[0]
    assert section.count("<tr>") == 1 + 3 + 2, "a line for each, a heading for each case"
    assert ("forward &lt;x&gt;" in section, "✗ below" in section, "✓ inside" in section) == (True, True, True)
    assert 'href="#predicted"' in page
    assert 'id="predicted"' not in report.html([("now", RUN)]), "not without predictions"


@pytest.mark.parametrize(
    ("whole", "words"),
    [
        ([], "this is no JSON that `bench --profile` wrote"),
        ({**PROFILE, "environment": {"gpu": None}}, "it is of a CPU, and `inspect` predicts kernels on GPUs"),
        ({**PROFILE, "environment": {"gpu": {"name": 3}}}, "this is no JSON that `bench --profile` wrote"),
        ({**PROFILE, "records": [profiled("cupy", "n=8", {})]}, "wrote (there is no 'seconds')"),
        ({**PROFILE, "records": [profiled("cupy", "n=8", kernel(low=2e12))]}, "a prediction is incomplete"),
        ({**PROFILE, "records": [profiled("cupy", "n=8", kernel(rate=None))]}, "a prediction is incomplete"),
    ],
)
def test_another_file_is_one_sentence(profile, whole, words):
    with pytest.raises(ResultsError) as caught:
        read_predictions(profile(whole))
    assert str(caught.value).startswith(f"--predictions {profile(whole)}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(ResultsError, match="No such file or directory"):
        read_predictions(tmp_path / "none.json")
