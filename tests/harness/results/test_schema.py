import json
import math

import pytest
from boltzbench.harness.api.experiments import Curve, Estimate, Findings, Picture, Plot
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Claim, Control, DeviceState, Measurement, Outcome, Record, Run, Standing
from boltzbench.harness.results.file import SCHEMA, run_to_json
from boltzbench.harness.results.schema import json_schema
from jsonschema import Draft202012Validator
from support import ROOT
from support.results_schema import PUBLISHED, text

KEPT = [path for path in sorted(ROOT.glob("results/**/*.json")) if "records" in json.loads(path.read_text())]
NAN, INF = math.nan, math.inf
TIMED = Measurement(
    "cpu",
    "hot",
    (1.0, INF),
    1.0,
    NAN,
    INF,
    5.0,
    "rows",
    8.0,
    9.0,
    states=(DeviceState(0, others=NAN, throttled=("heat",)),),
)
PASSED = Record(
    "double", "sum", "torch", "p (d 1)", "n=3", "bench", Status.PASSED, sizes={"n": 3}, measurements=(TIMED,)
)
FAILED = Record("double", "bad", "cupy", "p (d 1)", "n=3", "check", Status.WRONG_VALUES, "off", INF, NAN)
CLAIM = Claim("walk", "normal", 1.0, "law", Status.PASSED, "", NAN, INF)
PLOT = Plot("energy", "T", "E", (Curve("law", (0.0, INF), (NAN, 1.0)),))
FOUND = Findings((Estimate("energy", NAN, INF),), (PLOT,), (Picture("digit", ((0.0, 1.0),)),))
RUN = Run(
    SCHEMA, "complete", {"device": "cpu", "gpu": None}, (PASSED, FAILED), ceilings={"read": INF},
    standings=(Standing("walk", "normal", 1.0, "torch", "p (d 1)", (CLAIM,)),),
    outcomes=(Outcome("cooling", "heat", "Kaufman", "p (d 1)", Status.PASSED, findings=FOUND),),
    controls=(Control("double", "sum", "n=3", "hot", (1.0, NAN)),),
)  # fmt: skip


def faults(content: object) -> list[str]:
    return [error.json_path for error in Draft202012Validator(json_schema()).iter_errors(content)]


def test_the_published_schema_is_that_of_the_code():
    Draft202012Validator.check_schema(json_schema())
    assert PUBLISHED.read_text() == text(), "`make goldens` writes it again"


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_the_runs_kept_here_have_the_schema(path):
    assert faults(json.loads(path.read_text())) == []


def test_runs_are_kept_here():
    assert KEPT


def test_what_is_written_has_the_schema():
    assert faults(json.loads(run_to_json(RUN))) == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda run: run.pop("status"), "$"),
        (lambda run: run.update(schema=1), "$.schema"),
        (lambda run: run.update(status="done"), "$.status"),
        (lambda run: run["ceilings"].update(read="fast"), "$.ceilings.read"),
        (lambda run: run["records"][0].update(status="fine"), "$.records[0].status"),
        (lambda run: run["records"][0]["sizes"].update(n=1.5), "$.records[0].sizes.n"),
        (lambda run: run["records"][1].pop("operation"), "$.records[1]"),
        (
            lambda run: run["records"][0]["measurements"][0]["samples"].append("1.0"),
            "$.records[0].measurements[0].samples[2]",
        ),
        (lambda run: run["standings"][0]["claims"][0].update(p_value="none"), "$.standings[0].claims[0].p_value"),
        (lambda run: run["outcomes"][0]["findings"].pop("estimates"), "$.outcomes[0].findings"),
    ],
)
def test_what_is_no_results_file_has_a_fault_with_its_place(change, place):
    content = json.loads(run_to_json(RUN))
    change(content)
    assert faults(content) == [place]
