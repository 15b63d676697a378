"""Which steps an earlier run has timed already."""

from dataclasses import replace

import pytest
from boltzbench.harness.api.operations import Status
from boltzbench.harness.api.records import Measurement, Record, Run
from boltzbench.harness.results.earlier import timed_before
from boltzbench.harness.results.file import SCHEMA, record_key, run_to_json

H200 = {
    "device": "cuda:0",
    "gpu": {"name": "NVIDIA H200", "uuid": "1", "driver": "580"},
    "torch": "2.13",
    "harness": "a",
}
MEASUREMENT = Measurement("cuda:0", "cold", (1.0,), 1.0, 1.0, 1.0, 5.0, "rows", 8.0, 9.0)
TIMED = Record(
    "double", "triton", "triton", "p (d 1)", "n=3", "bench", Status.PASSED,
    sizes={"n": 3}, dtype="float32", source_hash="1234", measurements=(MEASUREMENT,),
)  # fmt: skip


def with_gpu(**fields):
    return {**H200, "gpu": {**H200["gpu"], **fields}}


@pytest.fixture
def found(tmp_path):
    """Whether a step counts as timed in ``now``, after a run of ``record`` in ``then``."""

    def found(record, then=H200, now=H200):
        folder = tmp_path / "nvidia-h200" / "2026-11-29"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(run_to_json(Run(SCHEMA, "incomplete", then, (record,))))
        (folder / "notes.json").write_text("no run")
        steps = timed_before(tmp_path, now)
        assert set(steps.values()) <= {folder / "run.json"}
        return record_key(TIMED) in steps

    return found


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"measurements": (), "untimed": "interpreted"}, True),
        ({"measurements": ()}, False),
        ({"measurements": (), "status": Status.TIMEOUT}, False),
        ({"measurements": (), "status": Status.WRONG_VALUES}, False),
        ({"source_hash": "5678"}, False),
        ({"case": "n=4"}, False),
        ({"implementation": "cupy"}, False),
        ({"seed": 1}, False),
    ],
)
def test_a_step_is_known_if_it_has_a_result_of_the_same_source(found, change, known):
    assert found(replace(TIMED, **change)) == known


@pytest.mark.parametrize(
    ("now", "known"),
    [
        (with_gpu(uuid="2"), True),
        (with_gpu(driver="590"), True),
        ({**H200, "device": "cuda:1", "harness": "b"}, True),
        (with_gpu(name="NVIDIA B200"), False),
        ({"device": "cpu", "gpu": None, "cpu": "EPYC", "cores": 2, "threads": 2}, False),
    ],
)
def test_only_runs_on_the_same_kind_of_device_count(found, now, known):
    assert found(TIMED, now=now) == known


@pytest.mark.parametrize(("now", "known"), [(with_gpu(uuid="2"), True), ({**H200, "cupy": "14.2"}, False)])
def test_what_was_unavailable_counts_until_other_software_is_installed(found, now, known):
    assert found(replace(TIMED, status=Status.UNAVAILABLE, measurements=()), now=now) == known


def test_no_folder(tmp_path):
    assert timed_before(tmp_path / "none", H200) == {}
