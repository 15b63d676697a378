"""The commands that compare runs: what they print, write and refuse. They import no torch."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from boltzbench.harness.cli import app
from support.timed_runs import timed_run, write

TIMES = {"softmax torch n=3": 1e-3, "softmax triton n=3": 2e-3, "sgld triton a|b <b>": 3e-3}


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a command in an empty folder: its status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            app.main(arguments)
        return ended.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def pair(command):
    """Two runs; in the second, one case is 30 % slower and one 4.5 %."""
    generator = np.random.default_rng(1)
    changed = {**TIMES, "softmax triton n=3": 2.6e-3, "softmax torch n=3": 1.045e-3}
    for name, times in (("base.json", TIMES), ("new.json", changed)):
        write(Path(), timed_run(times, 1, generator), name)
    return "base.json", "new.json"


def test_compare_in_the_terminal(command, pair):
    status, out, err = command("compare", *pair)
    assert (status, err) == (1, "")
    words = " ".join(out.split())
    for each in (
        *("slower, beyond noise and 5 %", "slower within the bound", "no difference beyond noise"),
        "Noise floor: base 0.39 %, new 0.39 %. If the code is the same, at most 5 % of comparisons call a case slower.",
        "Regression beyond noise and 5 %. 3 timings compared: 1 slower, 0 faster, 1 changed within the bound, 1 with",
    ):
        assert each in words
    assert max(map(len, out.splitlines())) <= 80


def test_compare_writes_json_and_markdown(command, pair):
    status, out, err = command("compare", *pair, "--json", "c.json", "--markdown", "-")
    assert status == 1
    assert out.startswith("### ❌ boltzbench: Regression")
    assert "slower, beyond noise" in err, "what is for people"
    assert json.loads(Path("c.json").read_text())["regression"] is True
    status, out, _ = command("compare", *pair, "--json", "-", "--fail-over", "50%")
    assert (status, json.loads(out)["regression"]) == (0, False)


def test_compare_with_bounds_of_cases(command, pair):
    lenient = ("compare", *pair, "--fail-over", "softmax triton=40%")
    assert command(*lenient)[0] == 0
    assert command(*lenient, "--fail-over", "softmax torch * n=3=1%")[0] == 1
    status, out, err = command(*lenient, "--fail-over", "sofmax=40%")
    assert (status, out) == (2, "")
    assert "no case matches the pattern 'sofmax' of --fail-over; a case is 'sgld triton cold a|b <b>'" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--markdown", "new.json"), "new.json is an input and would be overwritten"),
        (("--markdown", "-", "--json", "-"), "two outputs have the same name"),
        (("--json", "nowhere/c.json"), "cannot write nowhere/c.json"),
        (("--fail-over", "=3%"), "--fail-over has no pattern before the = in '=3%'"),
    ],
)
def test_what_compare_refuses(command, pair, arguments, words):
    before = Path("new.json").read_text()
    status, out, err = command("compare", *pair, *arguments)
    assert (status, out, Path("new.json").read_text()) == (2, "", before)
    assert words in err


@pytest.fixture
def many(command):
    """Runs of twelve days; in the last two, one case is 30 % slower."""
    generator = np.random.default_rng(2)
    for day in range(12):
        write(Path("runs"), timed_run({**TIMES, "softmax triton n=3": 2e-3 * (1.3 if day > 9 else 1)}, day, generator))
    return "runs"


@pytest.mark.parametrize("columns", [40, 80])
def test_history_in_the_terminal(command, many, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    status, out, err = command("history", many)
    assert (status, err) == (1, "")
    assert max(map(len, out.splitlines())) <= columns
    words = " ".join(out.split())
    assert "12 runs, 2026-11-01 to 2026-11-12, of 3 timings: 1 step; noise floor 0.39 %" in words
    assert re.search(
        r"\+(29|30|31)\.\d % \(.*\) since 2026-11-11 04:05, commit 000000000a \(before: 0000000009\), 2 runs softmax "
        r"triton cold, n=3",
        words,
    )
    assert words.endswith("Regression: 1 of 3 timings is slower by more than 5 % in the newest runs.")
    assert command("history", many, "--fail-over", "40%")[0] == 0


def test_history_writes_a_page_json_and_markdown(command, many):
    assert command("history", many, "--html", "h.html", "--json", "h.json", "--markdown", "h.md")[0] == 1
    assert json.loads(Path("h.json").read_text())["regression"] is True
    assert "| softmax triton cold, n=3 | 2026-11-11 04:05 | 000000000a | 0000000009 | 2 |" in Path("h.md").read_text()
    page = Path("h.html").read_text()
    assert "a|b &lt;b&gt;" in page
    assert not re.search(r'(src|href)="http', page.partition("<script>")[0]), "it loads nothing"
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])
    (changed,) = (figure for figure in data["figures"] if figure["layout"]["shapes"])
    assert changed["layout"]["shapes"][0]["x0"] == 10.5, "between the tenth and the eleventh run"
    assert len(changed["data"]) == 2, "a trace for each implementation"
    assert "commit 000000000a" in changed["data"][1]["hovertext"][10]
    assert changed["data"][1]["y"][0] == pytest.approx(2.0, rel=0.02), "in ms"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("missing",), "cannot read missing: it does not exist"),
        (("runs", "--fail-over", "5"), "--fail-over takes a percentage"),
        (("runs", "--html", "-", "--markdown", "-"), "two outputs have the same name"),
    ],
)
def test_what_history_refuses(command, many, arguments, words):
    status, out, err = command("history", *arguments)
    assert (status, out) == (2, "")
    assert words in err


def test_json_that_is_no_results_file_is_passed_over(command, many):
    """Such as what this command wrote there."""
    for _ in range(2):
        status, _, err = command("history", many, "--fail-over", "50%", "--json", "runs/h.json")
        assert (status, err) == (0, "Written: runs/h.json\n")
    assert json.loads(Path("runs/h.json").read_text())["problems"] == []


def test_a_damaged_file_is_named_and_the_rest_shown(command, many):
    Path("runs/cut.json").write_text(next(Path("runs").glob("*.json")).read_text()[:-100])
    status, out, _ = command("history", many, "--fail-over", "50%")
    assert status == 1
    assert "left out: runs/cut.json is damaged" in out
    assert "No regression" in out
