"""The outputs of `report`, read back with parsers: they contain everything in a run, with all texts escaped."""

import csv
import html.parser
import io
import json
import math
import re
import sys
from dataclasses import replace

import plotly.graph_objects
import pytest
from boltzbench.harness import Status
from boltzbench.harness.api.records import Claim, DeviceState, Measurement, Record, Run, Standing, UsedDevice
from boltzbench.harness.report import overview, plot_parts, roofline_plot, timing_plots
from boltzbench.harness.report import page as report
from boltzbench.harness.report import rows as report_rows

HOSTILE = "<script>alert(1)</script> \"quotes\" 'and' & </script><!-- `|` *x*"


def measurement(median=2e-3, mode="cold", **fields):
    fields = {
        "samples": (0.9 * median, median, 1.5 * median),
        "p10": 0.9 * median,
        "p90": 1.5 * median,
        "items_per_second": 1000 / median,
        "unit": "rows",
        "bytes_per_second": 8e6 / median,
        "flops_per_second": 4e6 / median,
        **fields,
    }
    return Measurement("Synthetic", mode, median=median, **fields)


def record(name="torch", *measurements, n=1000, operation="double", **fields):
    case = fields.pop("case", f"n={n} float32")
    fields = {"status": Status.PASSED, "purpose": "bench", "sizes": {"n": n}, "dtype": "float32", **fields}
    return Record(operation, name, "torch", "p (d 1)", case, measurements=measurements, **fields)


def run(*records, device="cuda:0", **fields):
    environment = {"device": device, "commit": "abc123", "dirty": False, "torch": "2.13"}
    environment |= {"gpu": None, "cpu": "Abacus"} if device == "cpu" else {"gpu": {"name": "Synthetic GPU"}}
    environment |= fields.pop("environment", {})
    return Run(2, fields.pop("status", "complete"), environment, tuple(records), **fields)


TIMED = run(
    record("torch", measurement(4e-3), measurement(3.5e-3, "hot")),
    record("triton", measurement(1e-3, roofline_share=0.875, limit="read")),
    record("torch", measurement(40e-3), n=10000),
    record("triton", measurement(8e-3, roofline_share=0.5, limit="copy"), n=10000),
    ceilings={"read": 4e12, "copy": 3.9e12, "fma": 6e13, "bfloat16 matrix": 8e14, "philox": 1.6e12},
    overheads={"event": 1.5e-6},
    seconds={"compile": 12.5},
)


class Page(html.parser.HTMLParser):
    """The page as a browser parses it: elements with attributes, text outside scripts, scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.words = [], [], []
        self.tables, self.open = {}, []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())
        (data,) = (body for attributes, body in self.scripts if attributes.get("id") == "data")
        self.data = json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "script":
            self.scripts.append((attributes, ""))
        elif tag == "table":
            self.rows = self.tables.setdefault(attributes.get("id", len(self.tables)), [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            attributes, body = self.scripts[-1]
            self.scripts[-1] = (attributes, body + data)
        elif self.open[-1:] != ["style"]:
            self.words.append(data)
            if "td" in self.open or "th" in self.open:
                self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())

    def records(self):
        """The rows of the table of records, each by heading."""
        header, *rows = self.tables["table"]
        return [dict(zip(header, row, strict=True)) for row in rows]

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def page(*runs, **more):
    return Page(report.html([(f"run {place}", each) for place, each in enumerate(runs, 1)], **more))


def test_rows_have_the_ratios_to_the_baseline_and_to_the_earlier_run():
    earlier = run(record("triton", measurement(0.5e-3)), record("triton", measurement(8e-3), n=10000))
    rows = report_rows.rows([("now", TIMED)], earlier)
    found = [(row.record.implementation, row.mode, row.over_torch, row.time_ratio) for row in rows]
    assert found == [
        ("torch", "cold", 1.0, None),
        ("torch", "hot", 1.0, None),
        ("triton", "cold", 4.0, 2.0),
        ("torch", "cold", 1.0, None),
        ("triton", "cold", 5.0, 1.0),
    ]


def test_a_mode_is_compared_with_the_same_mode():
    (_, row) = report_rows.rows(
        [("now", run(record("torch", measurement(1.0, "hot")), record("triton", measurement(1.0))))]
    )
    assert row.over_torch is None


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, None])
def test_meaningless_ratios_are_none(bad):
    assert report_rows.ratio(bad, 1.0) is None
    assert report_rows.ratio(1.0, bad) is None
    assert report_rows.ratio(3.0, 2.0) == 1.5


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.875, "87.5 %"), (0.000312, "0.0312 %"), (1.234, "123 %"), (12.0, "1200 %"), (0.0, "0 %"), (math.nan, "nan")],
)
def test_percent(share, words):
    assert report_rows.percent(share) == words


def test_html_has_every_number():
    found = page(TIMED).records()
    assert [row["median"] for row in found] == ["4.00 ms", "3.50 ms", "1.00 ms", "40.0 ms", "8.00 ms"]
    row = found[2]
    assert row["mode"] == "cold"
    assert row["p10 to p90"] == "900 µs to 1.50 ms"
    assert row["throughput"] == "1.00 M rows/s"
    assert row["B/s"] == "8.00 GB/s"
    assert row["flop/s"] == "4.00 Gflop/s"
    assert row["share of limit"] == "87.5 % read"
    assert row["speedup over torch"] == "4.00"
    assert "time / earlier" not in row


def test_html_describes_the_environment():
    words = page(TIMED).text
    for each in ("Synthetic GPU (cuda:0)", "abc123", "read 4.00 TB/s", "philox 1.60 Twords/s", "12.5 s", "1.50 µs"):
        assert each in words
    assert "uncommitted" not in words
    assert "Incomplete" not in words
    assert "CPU" not in words


def test_a_dirty_source_an_incomplete_run_and_problems_are_marked():
    words = page(
        run(environment={"dirty": True}, status="incomplete", problems=("plugin x: boom",)),
        problems=["b.json is damaged"],
    ).text
    assert "abc123 with uncommitted changes" in words
    assert "Incomplete" in words
    assert "Plugin problem: plugin x: boom" in words
    assert words.index("b.json is damaged") < words.index("Uncommitted changes")


def test_a_cpu_run_is_marked_and_explains_why_kernels_are_not_timed():
    cpu = run(record("torch", measurement(mode="hot")), record("triton", untimed="interpreted on a CPU"), device="cpu")
    for words in (page(cpu).text, report.markdown([("here", cpu)])):
        assert "Abacus (cpu)" in words
        assert "these times say nothing about a GPU" in words
    found = page(cpu)
    assert "Not timed: triton: interpreted on a CPU" in found.text
    assert [(row["implementation"], row["median"]) for row in found.records()] == [
        ("torch", "2.00 ms"),
        ("triton torch", ""),
    ]


FAILED = run(
    record("torch"),
    record("triton"),
    record("triton", status=Status.WRONG_VALUES, message="y[3] is 7", error=2.5, bound=1e-6, n=7),
    record("cupy", status=Status.UNAVAILABLE, message="no cupy here"),
)


def test_the_matrix_of_agreement_counts_and_failures_are_in_full():
    found = page(FAILED)
    (matrix,) = [table for table in found.tables.values() if table[0][0] == "operation"][:1]
    assert matrix == [["operation", "torch", "triton", "cupy"], ["double", "✓ 1/1", "✗ 1/2", "unavailable"]]
    assert "y[3] is 7" in found.text
    assert "error 2.5, bound 1e-06" in found.text
    assert "Unavailable: cupy (double): no cupy here" in found.text
    assert "No case of this operation was timed" in found.text
    assert found.data == {"figures": [], "samples": []}


def test_failures_of_one_message_are_shown_together():
    failed = [
        record("triton", status=Status.ERROR, message="no such thing", n=n, case=f"n={n} float32") for n in range(12)
    ]
    found = page(run(*failed))
    assert "double triton, 12 times error" in found.text
    assert found.text.count("no such thing") == 1 + 12  # once, and in the table of records
    assert "n=9 float32, and 2 more" in found.text


VERDICTS = {
    "Nothing was checked": run(record(status=Status.UNAVAILABLE, message="no GPU")),
    "All 2 checks agree": run(record(), record("triton")),
    "1 of 2 checks failed": run(record(), record("triton", status=Status.WRONG_VALUES)),
}


@pytest.mark.parametrize("words", VERDICTS)
def test_the_page_begins_with_the_verdict(words):
    found = page(VERDICTS[words])
    begin = found.text.index(words)
    assert begin < found.text.index("Agreement Checks passed")
    (card,) = (each["class"] for each in found.of("div") if "verdict-card" in each.get("class", ""))
    kinds = {"Nothing was checked": "idle", "All 2 checks agree": "good", "1 of 2 checks failed": "bad"}
    assert card.split()[1] == kinds[words]


def test_the_verdict_of_samplers_begins_with_those_that_did_not_mix():
    claim = Claim("walk", "well", 1.0, "form", Status.PASSED)
    sound = Standing("walk", "well", 1.0, "torch", "p", (claim, claim))
    stuck = replace(sound, unmixed="R-hat is 99, above 1.05")
    colder = replace(stuck, temperature=0.5)  # of the same pair
    wrong = replace(sound, claims=(claim, replace(claim, status=Status.WRONG_LAW)))
    found = {
        (each.kind, each.words)
        for each in (overview.verdict(run(standings=own), 0, 0) for own in ((sound,), (stuck, colder), (wrong,)))
    }
    assert found == {
        ("good", "All 2 claims about samplers hold"),
        ("idle", "1 pair of sampler and target did not mix; all 4 claims about samplers hold"),
        ("bad", "1 of 2 claims about samplers failed"),
    }


@pytest.mark.parametrize(("device", "precise"), [("cuda:0", 0.005), ("cpu", 0.01)])
def test_what_is_as_precise_as_the_stop_rule_demands_is_not_called_noisy(device, precise):
    each = (measurement(stopped="limit", noise=precise * factor) for factor in (0.9, 1.1))
    less, more = report_rows.rows([("now", run(record("torch", *each), device=device))])
    assert (less.warnings, "still noisy at the time limit" in str(more.warnings)) == ([], True)


def test_the_verdict_counts_figures_and_those_to_distrust():
    noisy = measurement(stopped="limit", noise=0.02)
    found = page(
        run(record("torch", noisy), record("triton", measurement(suspicions=("too fast",)), measurement(mode="hot")))
    )
    assert "Synthetic GPU (cuda:0) · 3 figures · 2 to distrust" in found.text
    assert found.text.index("double triton , n=1000 float32, cold: suspect: too fast") < found.text.index("still noisy")
    assert "none to distrust" in page(TIMED).text


def test_the_map_compares_speeds_in_the_cases_that_all_have():
    def timed(name, case, seconds):
        return record(name, measurement(seconds), case=case)

    of_both = [timed("torch", "small", 1.0), timed("torch", "large", 1.0)]
    found = run(*of_both, timed("native", "small", 0.5), timed("native", "large", 0.1), timed("compiled", "large", 0.2))
    cells = overview.speed_map(labelled := [("a", found)], report_rows.rows(labelled)).cells["double"]
    assert {name: own[0].speed for name, own in cells.items()} == pytest.approx(
        {"torch": 1.0, "native": 10.0, "compiled": 5.0}
    )
    apart = run(*of_both, timed("native", "small", 0.5), timed("compiled", "large", 0.2))
    cells = overview.speed_map(labelled := [("a", apart)], report_rows.rows(labelled)).cells["double"]
    assert (cells["native"][0].speed, cells["compiled"][0].speed) == pytest.approx((2.0, 5.0))  # of none: their own


def test_the_map_has_speeds_and_shares_for_each_run():
    slow = replace(TIMED.records[1], measurements=(measurement(8e-3), measurement(1e-3, "hot")))
    failed = record("cupy", status=Status.ERROR, message="boom")
    absent = record("quack", status=Status.UNAVAILABLE, message="not installed")
    untimed = record("native")
    lone = record("torch", operation="other")
    found = overview.speed_map(
        labelled := [("a", TIMED), ("b", run(TIMED.records[0], slow, failed, absent, untimed, lone))],
        report_rows.rows(labelled),
    )
    assert found.implementations == ("torch", "triton", "cupy", "native")
    assert found.absent == ("quack",)
    first, second = found.cells["double"]["triton"]
    assert first.speed == pytest.approx(20**0.5)  # of 4 and 5, cold
    assert (first.share, first.kind, second.share) == (0.875, "timed", None)
    assert "2 cases: 4.00 to 5.00 times as fast as torch" in first.words
    assert "at most 87.5 % of read, in n=1000 float32" in first.words
    assert (second.speed, second.depth) == (0.5, -0.25)  # cold: hot it is faster than torch
    kinds = {name: [cell.kind for cell in own] for name, own in found.cells["double"].items()}
    assert kinds == {
        "torch": ["timed", "timed"], "triton": ["timed", "timed"], "cupy": ["failed"], "quack": ["unavailable"],
        "native": ["agrees"],
    }  # fmt: skip
    assert [cell.run for cell in found.cells["other"]["torch"]] == [1]
    assert overview.Cell(0, report_rows.Score(), 1e9, None, "").depth == 1.0
    words = page(*[each for _, each in labelled]).text
    assert "1 4.47\u00d7 87.5 % 2 0.500\u00d7" in words


def test_facts_that_differ_between_runs_stand_side_by_side_and_the_rest_is_folded():
    other = replace(TIMED, environment={**TIMED.environment, "torch": "2.11"}, seconds={"compile": 1.0})
    apart, alike = overview.facts([("a", TIMED), ("b", other)])
    assert apart == [("torch", ["2.13", "2.11"])]
    assert ("commit", ["abc123", "abc123"]) in alike
    assert ("time in compile", ["12.5 s", "1.00 s"]) in alike
    assert overview.facts([("a", TIMED)])[0] == []
    assert "Where the runs differ" in page(TIMED, other).text
    assert "Where the runs differ" not in page(TIMED).text
    assert all("open" not in each for each in page(TIMED, other).of("details"))


def test_suspicions_throttling_and_noise_are_shown():
    states = (DeviceState(0), DeviceState(1, throttled=("power cap",)), DeviceState(2, throttled=("power cap", "heat")))
    each = measurement(suspicions=("faster than memory",), states=states, stopped="limit", noise=0.02)
    found = page(run(record("torch", each), record("triton", measurement())))
    suspect, fine = found.records()
    for words in ("suspect: faster than memory", "throttled: power cap, heat", "±2.00 %"):
        assert words in suspect["status"]
    assert fine["status"] == "passed"
    assert [("data-warned" in each) for each in found.of("tr") if "data-run" in each] == [True, False]
    assert found.data["samples"][0]["throttled"] == [[1, 2], [2, 3]]


def test_samples_are_in_the_page_with_their_percentiles():
    found = page(TIMED)
    assert len(found.data["samples"]) == 5
    samples = found.data["samples"][2]
    assert samples["samples"] == [0.9e-3, 1e-3, 1.5e-3]
    assert samples["lines"] == pytest.approx({"p10": 0.9e-3, "median": 1e-3, "p90": 1.5e-3})
    buttons = [each for each in found.of("button") if "data-samples" in each]
    assert [each["data-samples"] for each in buttons] == ["0", "1", "2", "3", "4"]


def test_nothing_is_loaded():
    text = report.html([("now", TIMED)], against=("then", TIMED))
    found = Page(text)
    for _, attributes in found.elements:
        assert not attributes.keys() & {"src", "srcset", "data-src", "background", "ping"}
        assert attributes.get("href", "#").startswith("#")
    assert not found.of("link")
    own = re.sub(r"<script>.*?</script>", "", text.replace(found.scripts[1][1], ""), flags=re.DOTALL)
    assert not re.search(r"https?://|@import|url\(", own)
    (policy,) = (each["content"] for each in found.of("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_texts_of_plugins_are_escaped():
    hostile = record(HOSTILE, measurement(unit=HOSTILE, suspicions=(HOSTILE,)), case=HOSTILE, operation=HOSTILE)
    failed = record("bad", status=Status.ERROR, message=HOSTILE, case=HOSTILE)
    whole = run(hostile, failed, problems=(HOSTILE,), environment={HOSTILE: HOSTILE, "gpu": {"name": HOSTILE}})
    text = report.html([(HOSTILE, whole)], against=(HOSTILE, whole), problems=[HOSTILE])
    found = Page(text)
    assert "alert(1)</script>" not in text
    assert len(found.scripts) == 3
    assert found.records()[0]["case"] == " ".join(HOSTILE.split())
    assert any(each.get("data-operation") == HOSTILE for each in found.of("tr"))
    assert found.data["samples"][0]["case"] == HOSTILE
    assert "<script>" not in found.data["figures"][0]["data"][0]["hovertext"][0]  # plotly.js reads tags in it


def test_every_figure_is_valid_for_plotly():
    earlier = run(record("triton", measurement(0.9e-3)))
    figures = page(TIMED, replace(TIMED, ceilings={}), against=("then", earlier)).data["figures"]
    assert len(figures) == 4
    figures += page(run(*TIMED.records[:2])).data["figures"]
    assert figures[4]["data"][0]["type"] == "bar"
    for each in figures:
        plotly.graph_objects.Figure({"data": each["data"], "layout": each["layout"]})


def throughput(*records, several=False):
    rows = report_rows.rows([("now", run(*records))])
    return timing_plots.throughput(rows, plot_parts.styles(row.record.implementation for row in rows), several)


def test_throughput_against_size_has_a_line_for_each_implementation():
    (figure,) = throughput(*reversed(TIMED.records))
    lines = [(each["name"], each["x"], each["y"]) for each in figure["data"]]
    assert lines == [
        ("triton", [1000, 10000], [1e6, 1.25e5]),
        ("torch", [1000, 10000], [2.5e5, 2.5e4]),
        ("torch", [1000], [1000 / 3.5e-3]),
    ]
    assert [each["showlegend"] for each in figure["data"]] == [True, True, False]
    cold, hot = figure["data"][1:]
    assert hot["marker"]["symbol"] == f"{cold['marker']['symbol']}-open"
    assert figure["layout"]["xaxis"]["type"] == figure["layout"]["yaxis"]["type"] == "log"
    assert "n=1000 float32" in cold["hovertext"][0]


def test_sizes_of_a_constant_product_are_shown_by_one_size_in_bytes():
    shapes = [{"rows": 1024 // columns, "columns": columns} for columns in (1, 32, 1024)]
    labels = [f"rows={sizes['rows']} columns={sizes['columns']} float32" for sizes in shapes]
    (figure,) = throughput(
        *(record("torch", measurement(), case=label, sizes=sizes) for label, sizes in zip(labels, shapes, strict=True))
    )
    assert figure["data"][0]["x"] == [1, 32, 1024]
    assert figure["layout"]["xaxis"]["title"]["text"] == "columns"
    assert figure["layout"]["yaxis"]["title"]["text"] == "B/s"
    assert figure["data"][0]["y"] == [4e9] * 3
    assert figure["data"][0]["meta"]["items"] == [5e5] * 3


def test_variants_and_dtypes_have_figures_of_their_own_and_single_sizes_share_one():
    figures = throughput(
        *(record("torch", measurement(), n=n) for n in (10, 20)),
        *(record("torch", measurement(), n=n, case=f"backward n={n} float32") for n in (10, 20)),
        *(record("torch", measurement(), n=n, case=f"n={n} float16", dtype="float16") for n in (10, 20)),
        record("torch", measurement(), n=30, case="digits n=30 float32"),
    )
    assert [each["title"] for each in figures] == ["float32", "backward float32", "float16", "single sizes"]
    assert figures[-1]["data"][0]["type"] == "bar"


def test_a_case_of_one_size_has_bars_relative_to_its_fastest():
    (figure,) = throughput(
        *(record(name, measurement(median, mode), case="digits n=30 float32", n=30)
          for name, median, mode in (("torch", 4e-3, "cold"), ("torch", 3e-3, "hot"), ("triton", 1e-3, "cold"))),
        record("triton", measurement(8e-3), case="a_case_of_a_long_name n=7 float32", n=7),
        several=True,
    )  # fmt: skip
    torch, hot, triton = figure["data"]
    assert (torch["x"], hot["x"], triton["x"]) == ([0.25], [pytest.approx(1 / 3, abs=1e-6)], [1.0, 1.0])
    assert triton["y"] == ["digits n=30 float32", "a_case_of_a_long_name<br>n=7 float32"]
    assert triton["text"] == triton["meta"]["items"] == ["1.00 M", "125 k"]
    assert triton["meta"]["bytes"] == ["8.00 G", "1.00 G"]
    assert figure["layout"]["xaxis"]["title"]["text"] == figure["layout"]["meta"]["items"] == "rows/s"
    assert torch["name"] == "torch, run 1"
    assert torch["marker"]["color"] == hot["marker"]["color"] != triton["marker"]["color"]
    assert hot["marker"]["opacity"] < torch["marker"]["opacity"]


def test_no_two_implementations_differ_by_colour_alone():
    styles = plot_parts.styles(map(str, range(60)))
    looks = {(each["symbol"], each["colour"]) for each in styles.values()}
    assert len(looks) == 60
    first = list(styles.values())[:7]
    for cue in ("symbol", "colour"):
        assert len({each[cue] for each in first}) == 7
    assert len({each["dash"] for each in first[:6]}) == 6


def test_the_roofline_has_the_kernels_and_only_measured_ceilings():
    rows = report_rows.rows([("now", TIMED)])
    styles = plot_parts.styles(["torch", "triton"])
    span = roofline_plot.intensity_span(rows, TIMED.ceilings)
    assert span[0] < 0.5 < 8e14 / 3.9e12 < span[1]
    figure = roofline_plot.roofline(rows, TIMED.ceilings, styles, span)
    roofs = {each["name"]: each for each in figure["data"] if each["mode"] == "lines+text"}
    assert sorted(roofs) == ["bfloat16 matrix", "copy", "fma", "read"]
    assert roofs["read"]["y"][0] == pytest.approx(span[0] * 4e12)
    assert roofs["read"]["y"][-1] == pytest.approx(8e14)
    assert [roofs["read"]["text"][1], roofs["copy"]["text"][1]] == ["read, copy", ""]
    points = [each for each in figure["data"] if each["mode"] == "markers"]
    assert [(each["name"], each["x"][0], each["y"][0]) for each in points][2] == ("triton", 0.5, 4e9)
    bare = roofline_plot.roofline(rows, {}, styles, roofline_plot.intensity_span(rows, {}))
    assert [each["mode"] for each in bare["data"]] == ["markers"] * 3


def test_without_operations_or_bytes_there_is_no_roofline():
    found = page(run(record("torch", measurement(flops_per_second=0.0))))
    assert "A roofline needs measurements with both operations/s and bytes/s" in found.text
    assert len(found.data["figures"]) == 1


def test_the_earlier_run_is_compared_and_another_device_named():
    earlier = run(record("triton", measurement(0.5e-3)), environment={"gpu": {"name": "Other GPU"}})
    found = page(TIMED, against=("last week", earlier))
    assert [row["time / earlier"] for row in found.records()] == ["", "", "2.000", "", ""]
    (compared,) = [table for table in found.tables.values() if table[0][-1] == "ratio"]
    assert compared[1:] == [["double", "triton", "n=1000 float32", "cold", "500 µs", "1.00 ms", "2.000"]]
    assert "run 1 was measured on another device: Synthetic GPU (cuda:0)" in found.text
    assert "geometric mean of the ratios 2.000." in found.text


def test_an_earlier_run_without_common_cases():
    found = page(TIMED, against=("last week", run()))
    assert "No case was timed in both runs" in found.text
    assert "No case was timed in both runs" in report.markdown([("now", TIMED)], against=("last week", run()))


def test_several_runs_are_distinguished():
    found = page(TIMED, replace(TIMED, ceilings={}))
    assert [row["run"] for row in found.records()] == ["run 1"] * 5 + ["run 2"] * 5
    lines = found.data["figures"][0]["data"]
    assert [each["name"] for each in lines if each["showlegend"]] == [
        "torch, run 1", "triton, run 1", "torch, run 2", "triton, run 2",
    ]  # fmt: skip
    assert lines[0]["line"]["dash"] != lines[3]["line"]["dash"]
    assert "The run measured no ceilings of this device" in found.text


def test_an_empty_run_and_no_run_at_all():
    assert "This run has no records" in page(run()).text
    assert page(run()).tables["table"][1:] == []
    assert "No run could be read" in page(problems=["a.json is damaged"]).text
    assert "No run could be read" in report.markdown([], problems=["a.json is damaged"])
    assert "This run has no records" in report.markdown([("now", run())])


def test_non_finite_values_are_shown_but_not_drawn():
    odd = measurement(
        samples=(math.nan, math.inf, 1.0),
        p90=math.inf,
        items_per_second=math.nan,
        bytes_per_second=math.inf,
        roofline_share=math.nan,
        limit="read",
    )
    found = page(run(record("torch", odd, error=math.inf, bound=1.0), ceilings={"read": math.inf}))
    (row,) = found.records()
    assert row["p10 to p90"] == "1.80 ms to inf s"
    assert row["throughput"] == "nan rows/s"
    assert row["error"] == "inf"
    assert found.data["samples"][0]["samples"] == [None, None, 1.0]
    assert found.data["figures"] == []
    report.markdown([("now", run(record("torch", odd)))])


def test_csv_has_a_line_for_each_measurement_and_each_record_without():
    odd = record(HOSTILE, measurement(mode="hot", bytes_per_second=math.inf), case='a,b "c"\nd')
    whole = run(*TIMED.records, *FAILED.records, odd)
    lines = list(csv.DictReader(io.StringIO(report.csv_text([("now", whole)], against=("then", TIMED)))))
    assert len(lines) == 5 + 4 + 1
    assert lines[2] == {
        **dict.fromkeys(report.COLUMNS, ""),
        "run": "now", "operation": "double", "implementation": "triton", "backend": "torch", "plugin": "p (d 1)",
        "case": "n=1000 float32", "purpose": "bench", "sizes": "n=1000", "dtype": "float32", "seed": "0",
        "status": "passed", "device": "Synthetic", "mode": "cold", "method": "host", "samples": "3",
        "launches_per_sample": "1", "median_s": "0.001", "p10_s": "0.0009000000000000001", "p90_s": "0.0015",
        "noise": "0.0", "items_per_second": "1000000.0", "unit": "rows", "bytes_per_second": "8000000000.0",
        "flops_per_second": "4000000000.0", "roofline_share": "0.875", "limit": "read", "over_torch": "4.0",
        "time_ratio": "1.0",
    }  # fmt: skip
    assert [line["median_s"] for line in lines[5:9]] == [""] * 4
    assert lines[7]["message"] == "y[3] is 7"
    assert (lines[-1]["implementation"], lines[-1]["case"]) == (HOSTILE, 'a,b "c"\nd')
    assert float(lines[-1]["bytes_per_second"]) == math.inf


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_tables_are_whole():
    odd = record("a|b", measurement(unit="x|y"), case="a\n| b | <i>")
    text = report.markdown([("now", run(*TIMED.records, odd)), ("again", TIMED)], against=("then", TIMED))
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 2 + 3 + 1
    for table in tables:
        header, rule, *lines = table.splitlines()
        assert set(cells(rule)) == {"---"}
        assert lines
        assert {len(cells(line)) for line in (header, rule, *lines)} == {len(cells(header))}
    assert "<i>" not in text
    figures = [cells(line) for line in tables[-1].splitlines()]
    assert dict(zip(figures[0], figures[4], strict=True)) == {
        "run": "now", "case": "n=1000 float32", "implementation": "triton", "mode": "cold", "median": "1.00 ms",
        "p10 to p90": "900 µs to 1.50 ms", "throughput": "1.00 M rows/s", "B/s": "8.00 GB/s",
        "speedup over torch": "4.00", "share of limit": "87.5 % read", "time / earlier": "1.00", "warnings": "",
    }  # fmt: skip


def test_markdown_shows_failures_and_incomplete_runs():
    text = report.markdown([("now", replace(FAILED, status="incomplete"))], problems=["b.json is damaged"])
    assert "**Incomplete:**" in text
    assert "**Not in this report:** b.json is damaged" in text
    assert "**wrong values**: double triton, n=7 float32: y\\[3\\] is 7 (error 2.5, bound 1e-06)" in text
    assert "✗ 1/2" in text
    assert "double cupy unavailable: no cupy here" in text


@pytest.mark.parametrize("missing", ["jinja2", "plotly.offline"])
def test_without_its_packages_only_html_is_refused(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(report.ReportUnavailable, match=r"pip install 'boltzbench\[report\]'"):
        report.html([("now", TIMED)])
    assert "1.00 ms" in report.markdown([("now", TIMED)])
    assert "0.001" in report.csv_text([("now", TIMED)])


SLOW = "8% slower than the median of the others (copy)"
BY_TWO = run(
    record("torch", measurement(4e-3), device="cuda:0"),
    record("triton", measurement(1e-3), device="cuda:0"),
    record("torch", measurement(8e-3), device="cuda:1", n=10000),
    record("triton", measurement(4e-3), device="cuda:1", n=10000),
    device="cuda:0,cuda:1",
    devices=(UsedDevice("cuda:0"), UsedDevice("cuda:1", slow=SLOW)),
)


def test_a_run_on_several_devices_says_where_each_figure_is_from_and_which_device_is_slow():
    found = Page(report.html([("two.json", BY_TWO)]))
    assert f"cuda:1 is {SLOW}" in found.text
    assert found.text.count(f"slow device: {SLOW}") == 6, "two figures, at three places"
    assert "n=1000 float32 on cuda:0" in found.text
    assert "n=10000 float32 on cuda:1" in found.text
    text = report.markdown([("two.json", BY_TWO)])
    assert f"**Slow device:** cuda:1 is {SLOW}" in text
    assert "| n=10000 float32 on cuda:1 | triton |" in text
    lines = [*csv.DictReader(io.StringIO(report.csv_text([("two.json", BY_TWO)])))]
    assert [line["ran_on"] for line in lines] == ["cuda:0"] * 2 + ["cuda:1"] * 2


def test_a_case_on_two_devices_is_compared_with_the_baseline_and_the_earlier_time_of_its_device():
    both = run(
        record("torch", measurement(4e-3), device="cuda:0"),
        record("triton", measurement(1e-3), device="cuda:0"),
        record("torch", measurement(8e-3), device="cuda:1"),
        record("triton", measurement(4e-3), device="cuda:1"),
    )
    found = report_rows.rows([("", both)], both)
    assert [(row.case, row.over_torch, row.time_ratio) for row in found] == [
        ("n=1000 float32 on cuda:0", 1.0, 1.0),
        ("n=1000 float32 on cuda:0", 4.0, 1.0),
        ("n=1000 float32 on cuda:1", 1.0, 1.0),
        ("n=1000 float32 on cuda:1", 2.0, 1.0),
    ]
    moved = run(record("torch", measurement(2e-3), device="cuda:1"))
    (row,) = report_rows.rows([("", moved)], run(record("torch", measurement(4e-3), device="cuda:0")))
    assert (row.case, row.time_ratio) == ("n=1000 float32", 0.5), "on another device of the same kind"
