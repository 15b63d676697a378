import dataclasses
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from boltzbench.harness import results
from boltzbench.harness.results import (
    SCHEMA,
    ResultsError,
    ResultsFile,
    read_run,
    require_writable,
    run_to_json,
    write_text,
)
from boltzbench.harness.types import Measurement, Record, Run, Status

MEASUREMENT = Measurement("cpu", "hot", (1.0, math.inf), 1.0, 0.5, math.inf, 5.0, "rows", 8.0, 9.0)
PASSED = Record(
    "double", "sum", "torch", "p (d 1)", "n=3 float32", "bench", Status.PASSED,
    error=0.25, bound=1.0, sizes={"n": 3}, dtype="float32", seed=4, measurements=(MEASUREMENT,),
)  # fmt: skip
FAILED = Record("double", "bad", "cupy", "p (d 1)", "n=3", "check", Status.WRONG_VALUES, "off", math.inf, math.nan)
RUN = Run(SCHEMA, "complete", {"device": "cuda:0", "gpu": {"name": "H200"}, "dirty": None}, (PASSED, FAILED), ("oh",))
TEXT = run_to_json(RUN)


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_is_strict_and_names_what_is_not_finite():
    content = strict(run_to_json(RUN))
    assert list(content) == [
        *("schema", "status", "environment", "records", "problems", "ceilings", "overheads", "seconds")
    ]
    assert content["schema"] == 1
    assert content["records"][0]["measurements"][0]["samples"] == [1.0, "Infinity"]
    assert content["records"][1]["error"] == "Infinity"
    assert content["records"][1]["bound"] == "NaN"


def test_each_record_has_a_line_of_its_own():
    lines = run_to_json(RUN).splitlines()
    assert [json.loads(line.rstrip(","))["implementation"] for line in lines if '"implementation"' in line] == [
        "sum",
        "bad",
    ]


def test_what_was_written_is_read_back(tmp_path):
    path = tmp_path / "run.json"
    write_text(path, run_to_json(RUN))
    back = read_run(path)
    assert math.isnan(back.records[1].bound)
    nan_free = dataclasses.replace(FAILED, bound=None)
    assert dataclasses.replace(back.records[1], bound=None) == nan_free
    assert dataclasses.replace(back, records=()) == dataclasses.replace(RUN, records=())
    assert back.records[0] == PASSED
    assert back.records[0].status is Status.PASSED


def test_the_file_is_whole_after_each_record(tmp_path):
    file = ResultsFile(tmp_path, {"device": "cuda:0"}, ("a problem",))
    assert read_run(file.path) == Run(SCHEMA, "incomplete", {"device": "cuda:0"}, (), ("a problem",))
    file.add(PASSED)
    assert read_run(file.path).records == (PASSED,)
    file.add(PASSED)
    assert read_run(file.path).status == "incomplete"
    file.finish()
    assert (
        read_run(file.path) == file.run == Run(SCHEMA, "complete", {"device": "cuda:0"}, (PASSED,) * 2, ("a problem",))
    )
    assert [path.name for path in tmp_path.iterdir()] == [file.path.name], "no temporary file is left"


def test_the_name_tells_time_and_device(tmp_path):
    name = ResultsFile(tmp_path / "new" / "folder", {"device": "cuda:0"}).path.name
    assert name[8] == "T"
    assert name[15:22] == "Z-cuda0"
    assert name.endswith(".json")


def test_runs_at_once_never_share_a_name(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: ResultsFile(tmp_path, {"device": "cpu"}).path, range(40)))
    assert len(set(paths)) == 40


def test_a_name_that_is_taken_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(results.secrets, "token_hex", lambda count: "00")
    made = []
    with pytest.raises(ResultsError, match="File exists"):
        made.extend(ResultsFile(tmp_path, {"device": "cpu"}) for _ in range(100))  # more than fit in one second
    assert made


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ResultsError, match=rf"cannot write results to the folder {folder}: "):
            ResultsFile(folder, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResultsError, match="Permission denied"):
        ResultsFile(tmp_path, {})
    with pytest.raises(ResultsError, match="Permission denied"):
        require_writable(tmp_path / "out.json")


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path, {"device": "cpu"})
    file.add(PASSED)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(results.os, "fsync", full)
    with pytest.raises(ResultsError, match=r"cannot write .*\.json: No space left on device"):
        file.add(FAILED)
    assert read_run(file.path).records == (PASSED,)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is damaged or not a results file: EOF while parsing"),
        (TEXT[:-40], "is damaged or not a results file: EOF while parsing"),
        ("\udcff", "is damaged or not a results file"),
        ('{"schema": NaN}', "is damaged or not a results file"),
        ("[]", 'states no "schema" version'),
        ('{"schema": "1"}', 'states no "schema" version'),
        ('{"schema": true}', 'states no "schema" version'),
        ('{"schema": 0}', 'states no "schema" version'),
        ('{"schema": 2}', "has schema 2, written by a newer boltzbench; this one reads up to 1: upgrade"),
        ('{"schema": 1}', "is not a valid results file: status: Field required"),
        (
            run_to_json(RUN).replace('"status": "passed"', '"status": "fine"'),
            "records.0.status: Input should be 'passed'",
        ),
        (
            run_to_json(RUN).replace('"status": "passed"', '"status": "error"'),
            "records.0: Value error, a measurement of sum",
        ),
        (TEXT.replace('"complete"', '"done"'), "status: Input should be 'complete' or 'incomplete'"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "run.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(ResultsError) as caught:
        read_run(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(ResultsError, match=r"cannot read .*none\.json: No such file"):
        read_run(tmp_path / "none.json")
    with pytest.raises(ResultsError, match="Is a directory"):
        read_run(tmp_path)


def test_require_writable(tmp_path):
    require_writable(tmp_path / "out.json")
    require_writable(Path(os.devnull))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "out.json", tmp_path / "none" / "out.json"):
        with pytest.raises(ResultsError, match=f"cannot write {path}: "):
            require_writable(path)


def test_writing_goes_through_a_link_and_into_a_pipe(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"
    write_text(Path(os.devnull), "gone")
    assert not Path(os.devnull).is_file(), "a device is never replaced by a file"
