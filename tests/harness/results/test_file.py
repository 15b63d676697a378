import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from boltzbench.harness.api.experiments import Curve, Estimate, Findings, Picture, Plot
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import (
    BenchOptions,
    Claim,
    Control,
    DeviceState,
    Efficiency,
    Measurement,
    Outcome,
    Record,
    Run,
    Standing,
    UsedDevice,
)
from boltzbench.harness.results import file as results
from boltzbench.harness.results.environment import describe
from boltzbench.harness.results.file import (
    SCHEMA,
    ResultsError,
    ResultsFile,
    read_run,
    read_runs,
    record_key,
    require_writable,
    run_to_json,
    write_text,
)
from support import ROOT

ASKED = BenchOptions((), ("torch",), "quick", "both", None)
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


def test_json_is_strict_and_writes_non_finite_numbers_as_strings():
    content = strict(run_to_json(RUN))
    assert list(content) == [
        *("schema", "status", "environment", "problems", "ceilings", "overheads", "seconds", "command"),
        *("standings", "outcomes", "left_out", "controls", "started", "devices", "shard", "parts", "records"),
    ]
    assert content["schema"] == 2
    assert content["records"][0]["measurements"][0]["samples"] == [1.0, "Infinity"]
    assert content["records"][1]["error"] == "Infinity"
    assert content["records"][1]["bound"] == "NaN"


def test_each_record_has_a_line_of_its_own():
    lines = run_to_json(RUN).splitlines()
    assert [json.loads(line.rstrip(","))["implementation"] for line in lines if '"implementation"' in line] == [
        "sum",
        "bad",
    ]


def test_a_written_run_is_read_back(tmp_path):
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
    assert read_run(file.path) == Run(
        SCHEMA, "incomplete", {"device": "cuda:0"}, (), ("a problem",), started=file.run.started
    )
    assert abs(datetime.now(UTC) - datetime.fromisoformat(file.run.started)) < timedelta(minutes=1)
    file.add(PASSED)
    assert read_run(file.path).records == (PASSED,)
    file.add(PASSED)
    assert read_run(file.path).status == "incomplete"
    file.finish()
    whole = Run(SCHEMA, "complete", {"device": "cuda:0"}, (PASSED,) * 2, ("a problem",), started=file.run.started)
    assert read_run(file.path) == file.run == whole
    assert [path.name for path in tmp_path.iterdir()] == [file.path.name], "no temporary file is left"


def test_a_record_that_is_written_at_ctrl_c_is_kept(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path, {"device": "cuda:0"})
    file.add(PASSED)

    def interrupted(descriptor, place, data, write=results._write_at):
        write(descriptor, place, data)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(results, "_write_at", interrupted)
        with pytest.raises(KeyboardInterrupt):
            file.add(dataclasses.replace(PASSED, seed=5))
    file.update(seconds={"check": 1.0})
    assert [each.seed for each in read_run(file.path).records] == [4, 5]


def test_the_name_contains_time_and_device(tmp_path):
    name = ResultsFile(tmp_path / "new" / "folder", {"device": "cuda:0"}).path.name
    assert name[8] == "T"
    assert name[15:22] == "Z-cuda0"
    assert name.endswith(".json")


def test_simultaneous_runs_never_share_a_name(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: ResultsFile(tmp_path, {"device": "cpu"}).path, range(40)))
    assert len(set(paths)) == 40


def test_an_existing_file_is_never_overwritten(tmp_path, monkeypatch):
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


def test_a_record_written_in_part_is_left_out_and_repeated(tmp_path):
    """A process is killed in the middle of the one write that adds a record, after any number of its bytes."""
    file = ResultsFile(tmp_path, HERE)
    texts = [file.path.read_bytes()]
    for record in (TIMED, TIMED):
        file.add(record)
        texts.append(file.path.read_bytes())
    file.close()
    for count, (old, new) in enumerate(pairwise(texts)):
        place = next(k for k, (one, other) in enumerate(zip(old, new, strict=False)) if one != other)
        for written in (0, 1, 2, 3, 4, 5, 100, len(new) - place - 5, len(new) - place - 1):
            file.path.write_bytes(new[: place + written] + old[place + written :])
            found = read_run(file.path)
            assert found.status == "incomplete"
            whole = place + written >= len(new) - len(results.END) - 1
            assert found.records == (TIMED,) * (count + whole), written
    resumed = ResultsFile.resume(file.path, HERE, SOURCES)
    resumed.add(TIMED)
    assert json.loads(file.path.read_bytes())["records"] == [json.loads(results._line(TIMED))] * 3


def test_damage_before_the_last_record_of_a_run_in_progress_is_not_overlooked(tmp_path):
    path = interrupted(tmp_path, TIMED, TIMED, TIMED)
    lines = path.read_text().splitlines(keepends=True)
    (second,) = [place for place, line in enumerate(lines) if line.startswith('{"operation"')][1:2]
    lines[second] = lines[second][:100] + "\n"
    path.write_text("".join(lines))
    with pytest.raises(ResultsError, match=r"is damaged .* it holds 2 whole records"):
        read_run(path)


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
        ("", "; it holds no whole record"),
        (TEXT[:-4], "is damaged or not a results file: EOF while parsing"),
        (TEXT[:-4], "; it holds 2 whole records"),
        (TEXT[: TEXT.index('"off"')], "; it holds 1 whole record"),
        (TEXT.replace('"seed": 4', '"seed": 4\x00'), "; it holds 1 whole record"),
        ("\udcff", "is damaged or not a results file"),
        ('{"schema": NaN}', "is damaged or not a results file"),
        ("[]", 'states no "schema" version'),
        ('{"schema": "1"}', 'states no "schema" version'),
        ('{"schema": true}', 'states no "schema" version'),
        ('{"schema": 0}', 'states no "schema" version'),
        ('{"schema": 3}', "has schema 3, written by a newer boltzbench; this one reads 2: upgrade"),
        ('{"schema": 2}', "is not a valid results file: status: Field required"),
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
    with pytest.raises(ResultsError, match="it is a folder; name a results file in it"):
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


def test_a_file_from_before_the_first_release_is_refused(tmp_path):
    (tmp_path / "old.json").write_text('{"schema": 1}')
    with pytest.raises(ResultsError, match=r"old\.json has schema 1, from before the first release"):
        read_run(tmp_path / "old.json")


KINDS = (
    Run,
    Record,
    Measurement,
    DeviceState,
    Standing,
    Claim,
    Efficiency,
    Outcome,
    Findings,
    Estimate,
    Plot,
    Curve,
    Picture,
)


def test_every_field_is_explained():
    text = (ROOT / "results" / "README.md").read_text()
    fields = [field.name for kind in KINDS for field in dataclasses.fields(kind)]
    missing = [name for name in (*fields, *describe(torch.device("cpu"))) if f"`{name}`" not in text]
    assert missing == []
    assert f"now {SCHEMA};" in text


def test_controls_are_kept_and_read_back(tmp_path):
    file = ResultsFile(tmp_path, HERE)
    controls = (
        Control("double", "sum", "n=3", "cold", (1.0, 2.0), 1.02, 0.01),
        Control("other", "sum", "n", "hot", message="hung"),
    )
    for each in controls:
        file.add_control(each)
    file.finish()
    assert read_run(file.path).controls == controls
    for damage in ('"ratio": -1.02', '"ratio": 0', '"ratio": "x"'):
        file.path.write_text(run_to_json(file.run).replace('"ratio": 1.02', damage))
        with pytest.raises(ResultsError, match=r"not a valid results file: controls\.0"):
            read_run(file.path)


def test_bad_files_do_not_hide_good_ones(tmp_path):
    good, bad, newer = (tmp_path / name for name in ("good.json", "bad.json", "newer.json"))
    good.write_text(TEXT)
    bad.write_text(TEXT[:-40])
    newer.write_text('{"schema": 99}')
    runs, errors = read_runs([bad, good, newer, good])
    assert [path for path, _ in runs] == [good, good]
    assert [str(error).split(" ")[0] for error in errors] == [str(bad), str(newer)]


GPU = {"uuid": "1234", "driver": "580", "cuda": "13.0"}
HERE = {"device": "cuda:0", "gpu": GPU, "cpu": "EPYC", "torch": "2.11", "harness": "abc", "commit": "1", "dirty": True}
SOURCES = {("double", "sum"): "s1", ("double", "other"): "s2"}
TIMED = dataclasses.replace(PASSED, source_hash="s1")


def interrupted(folder, *records):
    file = ResultsFile(folder, HERE, ("a problem",))
    for record in records:
        file.add(record)
    file.close()
    return file.path


def test_a_resumed_run_keeps_valid_records_in_the_same_file(tmp_path):
    changed = dataclasses.replace(TIMED, implementation="other", source_hash="before")
    gone = dataclasses.replace(TIMED, implementation="uninstalled")
    wrong = dataclasses.replace(FAILED, implementation="sum", source_hash="s1", bound=1.0)
    tried = [dataclasses.replace(wrong, status=status) for status in (Status.ERROR, Status.TIMEOUT)]
    path = interrupted(tmp_path, TIMED, changed, gone, wrong, *tried)
    now = {**HERE, "commit": "2", "dirty": False}
    file = ResultsFile.resume(path, now, SOURCES)
    assert file.run == Run(SCHEMA, "incomplete", now, (TIMED, gone, wrong), started=file.run.started)
    assert file.run.started, "that of the interrupted run"
    assert file.kept == {record_key(TIMED), record_key(gone), record_key(wrong)}
    assert file.dropped == {"the source has changed": 1, "ended in error or timeout": 2}
    file.add(dataclasses.replace(changed, source_hash="s2"))
    file.finish()
    assert read_run(path) == file.run
    assert [record.source_hash for record in file.run.records] == ["s1", "s1", "s1", "s2"], (
        "and what is not installed now is not lost"
    )
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("record", "modes", "stands"),
    [
        (TIMED, ["hot"], True),
        (TIMED, ["hot", "cold"], False),
        (dataclasses.replace(TIMED, measurements=()), ["hot"], False),
        (dataclasses.replace(TIMED, measurements=(), untimed="interpreted"), ["hot", "cold"], True),
        (dataclasses.replace(TIMED, measurements=(), status=Status.WRONG_LAW), ["hot"], True),
        (dataclasses.replace(TIMED, measurements=(), purpose="check"), ["hot"], True),
    ],
)
def test_a_case_timed_in_fewer_modes_is_timed_again(tmp_path, record, modes, stands):
    file = ResultsFile.resume(interrupted(tmp_path, record), HERE, SOURCES, modes=modes)
    assert file.dropped == ({} if stands else {"timed in other modes": 1})
    assert (record_key(record) in file.kept) is stands


def test_the_key_depends_on_the_step_and_not_on_its_result():
    found = dataclasses.replace(TIMED, status=Status.ERROR, message="m", measurements=(), error=2.0)
    assert record_key(found) == record_key(TIMED)
    for field, other in [("operation", "o"), ("implementation", "i"), ("case", "c"), ("purpose", "real"),
                         ("sizes", {"n": 4}), ("dtype", "float64"), ("seed", 5), ("source_hash", "s2")]:  # fmt: skip
        assert record_key(dataclasses.replace(TIMED, **{field: other})) != record_key(TIMED), field


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": "cpu", "gpu": None}, "device was cuda:0, is cpu; gpu uuid was 1234, is None"),
        ({"gpu": {**GPU, "uuid": "99"}}, "the environment differs: gpu uuid was 1234, is 99"),
        ({"gpu": {**GPU, "driver": "581"}}, "gpu driver was 580, is 581"),
        ({"torch": "2.12"}, "torch was 2.11, is 2.12"),
        ({"harness": "abd"}, "harness was abc, is abd"),
    ],
)
def test_a_run_in_another_environment_is_not_resumed(tmp_path, change, words):
    path = interrupted(tmp_path, TIMED)
    before = path.read_bytes()
    with pytest.raises(ResultsError) as caught:
        ResultsFile.resume(path, {**HERE, **change}, SOURCES)
    assert f"cannot resume {path}: the environment differs: " in str(caught.value)
    assert words in str(caught.value)
    assert path.read_bytes() == before
    ResultsFile.resume(path, HERE, SOURCES).close()


def test_a_run_on_several_devices_is_resumed_on_the_same_cards(tmp_path):
    def devices(uuid):
        return UsedDevice("cuda:0", GPU), UsedDevice("cuda:1", {**GPU, "uuid": uuid})

    environment = {**HERE, "device": "cuda:0,cuda:1"}
    file = ResultsFile(tmp_path, environment)
    assert "-cuda0-cuda1-" in file.path.name
    file.update(devices=devices("5678"))
    file.close()
    for given, is_now in ((devices("9"), "9"), ((), "None")):
        with pytest.raises(ResultsError, match=f"the environment differs: gpu uuid of cuda:1 was 5678, is {is_now}"):
            ResultsFile.resume(file.path, environment, SOURCES, devices=given)
    ResultsFile.resume(file.path, environment, SOURCES, devices=devices("5678")).close()


def test_a_file_that_cannot_be_resumed_is_named(tmp_path):
    file = ResultsFile(tmp_path, HERE)
    file.finish()
    with pytest.raises(ResultsError, match=rf"cannot resume {file.path}: the run is complete"):
        ResultsFile.resume(file.path, HERE, SOURCES)
    with pytest.raises(ResultsError, match=r"cannot resume .*none\.json: No such file"):
        ResultsFile.resume(tmp_path / "none.json", HERE, SOURCES)
    file.path.write_text(TEXT[:-4])
    with pytest.raises(ResultsError, match=r"is damaged .* it holds 2 whole records"):
        ResultsFile.resume(file.path, HERE, SOURCES)


def test_a_run_that_is_being_written_is_not_resumed(tmp_path):
    file = ResultsFile(tmp_path, HERE)
    for _ in range(2):
        with pytest.raises(ResultsError, match=rf"cannot resume {file.path}: another process is writing it now"):
            ResultsFile.resume(file.path, HERE, SOURCES)
        file.add(TIMED)
    file.close()
    resumed = ResultsFile.resume(file.path, HERE, SOURCES)
    with pytest.raises(ResultsError, match="another process is writing it now"):
        ResultsFile.resume(file.path, HERE, SOURCES)
    assert resumed.run.records == (TIMED, TIMED)


def test_a_lock_on_a_replaced_file_is_ignored(tmp_path, monkeypatch):
    file = ResultsFile(tmp_path, HERE)
    lock = results._lock
    calls = []

    def late(opened):
        calls.append(opened)
        if len(calls) == 1:
            file.update(problems=("new",))  # a new file, which is locked: calls 2
        lock(opened)

    monkeypatch.setattr(results, "_lock", late)
    with pytest.raises(ResultsError, match="another process is writing it now"):
        ResultsFile.resume(file.path, HERE, SOURCES)
    assert len(calls) == 3


def test_a_file_system_without_locks_works(tmp_path, monkeypatch):
    def none(file, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(results.fcntl, "flock", none)
    ResultsFile(tmp_path, HERE).add(TIMED)
    assert len(list(tmp_path.iterdir())) == 1


def test_values_of_the_whole_run_are_merged(tmp_path):
    file = ResultsFile(tmp_path, HERE)
    file.update(ceilings={"read": 3.0, "fma": math.inf}, seconds={"checking": 1.0}, problems=("one", "two"))
    file.update(overheads={"event": 1e-6}, seconds={"checking": 2.0, "timing": 4.0}, command=ASKED)
    run = read_run(file.path)
    assert run.ceilings == {"read": 3.0, "fma": math.inf}
    assert run.overheads == {"event": 1e-6}
    assert run.seconds == {"checking": 2.0, "timing": 4.0}
    assert run.command == ASKED
    assert run.problems == ("one", "two")


def asked(count):
    return [dataclasses.replace(TIMED, seed=seed) for seed in range(count)]


def go_on(path, count, parent=None):
    """Add the missing records, each when a byte comes from ``parent``, and send one back after it."""
    file = ResultsFile.resume(path, HERE, SOURCES)
    for record in asked(count):
        if record_key(record) not in file.kept:
            if parent:
                parent.recv(1)
            file.add(record)
            if parent:
                parent.send(b".")
    file.finish()


def test_a_run_killed_at_any_point_is_valid_and_can_resume(tmp_path):
    """Kill with -9 and resume ten times, each time within about the time that a record takes.

    The processes are forked, because importing torch takes seconds.
    """
    count, chance = 50, random.Random(3)
    path = interrupted(tmp_path)
    finished, lasting = 0, 0
    for _ in range(10):
        ours, theirs = socket.socketpair()
        child = multiprocessing.get_context("fork").Process(target=go_on, args=(path, count, theirs), daemon=True)
        child.start()
        theirs.close()
        with ours:
            for _ in range(3):
                begin = time.monotonic()
                ours.send(b".")
                finished += len(ours.recv(1))
                took = time.monotonic() - begin
            ours.send(b".")
            time.sleep(chance.uniform(0, took))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            with suppress(ConnectionResetError):  # it was killed before it read the byte
                finished += len(ours.recv(1))
        run = read_run(path)
        assert run.status == "incomplete"
        assert run.records == tuple(asked(len(run.records)))
        assert finished <= len(run.records) <= finished + 1, "at most the record then being written is unreported"
        assert len(run.records) >= lasting + 3
        finished = lasting = len(run.records)
    go_on(path, count)
    assert read_run(path).records == tuple(asked(count))
    assert read_run(path).status == "complete"
    assert list(tmp_path.iterdir()) == [path], "what the killed processes left is gone"


def write_one(folder):
    file = ResultsFile(folder, HERE)
    for record in asked(20):
        file.add(record)
    file.finish()


def test_eight_processes_at_once_write_eight_whole_files(tmp_path):
    children = [multiprocessing.get_context("fork").Process(target=write_one, args=(tmp_path,)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * 8
    runs, errors = read_runs(tmp_path.iterdir())
    assert (len(runs), errors) == (8, [])
    assert all(run.records == tuple(asked(20)) and run.status == "complete" for _, run in runs)
