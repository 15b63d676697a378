"""What reaches a terminal or a file of another program: control characters, formulas, narrow windows."""

import csv
import io
import re
from dataclasses import replace

import pytest
from boltzbench.harness.api.messages import printable
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Claim, Measurement, Outcome, Record, Run, Standing
from boltzbench.harness.report import page, tables
from boltzbench.harness.report.compare_tables import comparison_tables
from boltzbench.harness.report.markdown import markdown
from boltzbench.harness.report.standing_tables import experiments_summary, standings_summary
from boltzbench.harness.report.terminal import plain_console
from boltzbench.harness.results.compare import compare, summary
from boltzbench.harness.results.file import SCHEMA
from rich.table import Table
from rich.text import Text

FORGED = "x\x1b[2K\x1b]0;title\x07\rall agree\x9b31m\u202e\x7f\ny"
CONTROL = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\u202e]")
CPU = {"device": "cpu", "cpu": "EPYC", "cores": 4, "threads": 4, "gpu": None}


def measurement(factor=1.0, **fields):
    samples = tuple(factor * (1 + 0.001 * (i % 7)) for i in range(30))
    return Measurement("EPYC", "cold", samples, factor, factor, factor, 1.0, "rows", 1.0, 1.0, **fields)


def record(*measurements, **fields):
    given = {
        "operation": "double", "implementation": "torch", "backend": "torch", "plugin": "p", "case": "n=3",
        "purpose": "bench", "status": Status.PASSED, **fields,
    }  # fmt: skip
    return Record(**given, measurements=measurements)


def shown(*renderables, width=80):
    """What a console prints, without the styles of a terminal."""
    console = plain_console()
    console.width, console.file = width, io.StringIO()
    for each in renderables:
        console.print(each)
    return console.file.getvalue()


def hostile():
    """A run whose names and messages are all forged, and one of another time."""
    texts = dict.fromkeys(("operation", "implementation", "backend", "plugin", "case", "message"), FORGED)
    doubted = measurement(suspicions=(FORGED,), limit=FORGED, roofline_share=0.5)
    bad = record(**texts | {"case": FORGED + "2"}, status=Status.ERROR)
    records = (record(doubted, **texts), bad, record(**texts | {"case": "c"}, untimed=FORGED))
    standing = Standing(FORGED, FORGED, 1.0, "torch", FORGED, (Claim(FORGED, FORGED, 1.0, FORGED, Status.PASSED),))
    outcome = Outcome(FORGED, FORGED, FORGED, FORGED, Status.ERROR, FORGED)
    run = Run(
        SCHEMA, "complete", {**CPU, FORGED: FORGED}, records, (FORGED,), standings=(standing,), outcomes=(outcome,)
    )
    return run, replace(run, records=(record(measurement(2.0), **texts), *records[1:]))


def test_control_characters_are_shown_and_not_sent():
    run, other = hostile()
    table = Table(FORGED)
    table.add_row(FORGED)
    text = shown(
        FORGED, Text(FORGED), table,
        tables.bench_tables(run.records), tables.check_summary(run.records), tables.failure_details(run.records),
        tables.problem_lines(run.problems), standings_summary(run.standings), experiments_summary(run.outcomes),
        comparison_tables(compare(summary(run), summary(other), bound=0.05)),
        comparison_tables(compare(summary(other), summary(run), bound=0.05)),
    )  # fmt: skip
    assert CONTROL.findall(text) == []
    assert "x\u241b[2K\u241b]0;title\u2407\u240dall agree\ufffd31m\ufffd\ufffd" in text


def test_printable_keeps_lines_tabs_and_all_letters():
    assert printable("a\n\tβ ≤ 漢字 🙂 µs") == "a\n\tβ ≤ 漢字 🙂 µs"
    assert printable("\0\x1b\x85") == "\u2400\u241b\ufffd"


def test_reports_hold_no_control_characters():
    run, other = hostile()
    labelled = [(FORGED, run), ("b", other)]
    texts = [write(labelled, against=(FORGED, other), problems=[FORGED]) for write in (markdown, page.csv_text)]
    body = page.html(labelled, against=(FORGED, other), problems=[FORGED])
    texts.append(re.sub(r"<script>.*?</script>", "", body, flags=re.DOTALL))
    for text in texts:
        assert CONTROL.findall(text) == []
        assert "all agree" in text


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("x")'])
def test_a_cell_of_the_csv_is_no_formula(formula):
    """And numbers stay numbers."""
    run = Run(SCHEMA, "complete", CPU, (record(measurement(), case=formula, error=-1.5, message=formula),))
    (line,) = csv.DictReader(io.StringIO(page.csv_text([(formula, run)])))
    for name in ("case", "message", "run"):
        assert line[name] == "'" + printable(formula)
    assert float(line["error"]) == -1.5


@pytest.mark.parametrize("width", [40, 53, 71, 72, 80, 200])
def test_tables_fit_any_width_and_lose_no_word(width):
    label = "digits log Z rows=1048576 columns=134217728 bfloat16"
    timed = measurement(roofline_share=0.5, limit="read")
    given = (record(timed, case=label, error=1e-7, bound=1e-6), record(case=label, status=Status.ERROR, message="why"))
    runs = [Run(SCHEMA, "complete", CPU, (record(measurement(factor), case=label),)) for factor in (1.0, 1.25)]
    compared = comparison_tables(compare(*map(summary, runs), bound=0.05))
    for renderable, words in (
        (tables.bench_tables(given), (*label.split(), "torch", "passed", "1.00", "50%", "read")),
        (tables.check_summary(given), (*label.split(), "double", "torch", "1/2")),
        (compared, (*label.split(), "+25.0", "1.00", "1.25", "double", "torch", "cold")),
    ):
        lines = shown(renderable, width=width).splitlines()
        assert max(map(len, lines)) <= width
        assert [word for word in words if word not in "\n".join(lines)] == []
