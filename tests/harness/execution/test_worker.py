"""A crash, hang or exit in a worker becomes the status of its implementation, and the others continue."""

import functools
import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from boltzbench.harness import Agreement, Status
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE, Plugin, Registry
from boltzbench.harness.execution import serving, worker
from boltzbench.harness.execution.catalogue import read_catalogue
from boltzbench.harness.execution.parallel import devices
from boltzbench.harness.execution.plan import Step
from boltzbench.harness.execution.trial import TrialFailed
from boltzbench.harness.execution.worker import Workers
from support import TESTS
from support.fakes import CPU, install, timed
from support.processes import alive

PLUGIN = """
    import ctypes, os, signal, subprocess, sys, time

    def prepared(act, only_when_timed=False):
        def prepare(inputs, outputs):
            launches = 0
            def launch():
                nonlocal launches
                launches += 1
                if not only_when_timed or launches > 2:
                    act()
                outputs["y"].copy_(2 * inputs["x"])
                return outputs
            return launch
        return prepare

    def leave_a_child():
        child = subprocess.Popen(["sleep", "1000"])
        with open("child", "w") as file:
            file.write(str(child.pid))
        time.sleep(1000)

    def run_out_of_memory():
        raise MemoryError("no room")

    def run_out_of_gpu_memory():
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    ACTS = {
        "crash": lambda: ctypes.string_at(0),
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "leave": lambda: os._exit(3),
        "leave_well": lambda: os._exit(0),
        "exit": lambda: sys.exit("enough"),
        "memory": run_out_of_memory,
        "hang": leave_a_child,
        "gpu_memory": run_out_of_gpu_memory,
        "print": lambda: print("noise"),
    }

    @hookimpl
    def register_operations(register):
        register(fakes.operation("double"))
        register(fakes.operation("other"))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("sound"))
        register(fakes.implementation("sound", of="other"))
        for name, act in ACTS.items():
            register(fakes.implementation(name, prepare=prepared(act)))
            register(fakes.implementation(f"{name}_later", prepare=prepared(act, only_when_timed=True)))
    """


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    install(tmp_path, {"misbehaving": PLUGIN})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PLUGINS_VARIABLE, "misbehaving")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("fake_samplers_")]:
        del sys.modules[name]


@functools.cache
def registry():
    """What the plugin registers, read by a child process."""
    return read_catalogue("cpu")


@pytest.fixture
def workers():
    workers = Workers(CPU, lambda phase: None, 20, registry())
    yield workers
    workers.close()


SILENT = type("Silent", (), {name: staticmethod(lambda *given: None) for name in ("step", "block", "done")})()


def step(name, *, of="double", label="n=64 float32"):
    ((operation, (implementation,)),) = registry().select([of], [name])
    (case,) = (case for case in operation.cases if case.label == label)
    return Step(operation, implementation, case, 0)


def test_a_sound_implementation_is_judged_and_timed(workers):
    phases = []
    workers._announce = phases.append
    trial = workers.trial(step("sound"))
    record = trial.judge(draws=1)
    assert record.status is Status.PASSED
    assert record.plugin == "misbehaving (fake-samplers 1.2)"
    trial.start("hot")
    block = trial.take_block()
    assert block.samples > 0
    again = workers.trial(replace(trial.step, again=True))  # of an A/A control
    again.start("hot")
    assert again.take_block().samples > 0
    while block.more:
        block = trial.take_block()
    measurement = trial.finish()
    assert len(measurement.samples) == block.samples
    assert measurement.mode == "hot"
    assert set(phases) == {"start", "compile", "check", "warm-up", "sampling", "harness"}
    assert phases[-1] == "harness"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crash", "its process crashed: SIGSEGV, Segmentation fault"),
        ("killed", "its process crashed: SIGKILL, Killed (out of memory?)"),
        ("leave", "its process exited with status 3"),
        ("leave_well", "its process exited with status 0"),
        ("exit", "SystemExit: enough"),
        ("memory", "MemoryError: no room"),
    ],
)
def test_the_end_of_a_process_is_the_status_of_its_implementation(workers, name, words):
    record = workers.trial(step(name)).judge(draws=1)
    assert record.status is Status.ERROR
    assert words in record.message
    assert workers.trial(step("sound")).judge(draws=1).status is Status.PASSED
    assert workers.trial(step(name)).judge(draws=1).status is Status.ERROR, "it has a new worker"


@pytest.mark.parametrize("name", ["crash_later", "exit_later"])
def test_the_end_of_a_process_during_timing(workers, name):
    trial = workers.trial(step(name))
    assert trial.judge(draws=1).status is Status.PASSED
    with pytest.raises(TrialFailed) as caught:
        timed(trial)
    assert caught.value.record.status is Status.ERROR
    assert ("SIGSEGV" if name == "crash_later" else "enough") in caught.value.record.message


def test_a_hanging_worker_is_killed_with_its_children(workers, folder):
    workers._shared = True
    assert workers.trial(step("sound")).judge(draws=1).status is Status.PASSED  # its worker has started, and can hang
    workers._time_limit = 5.0
    record = workers.trial(step("hang")).judge(draws=1)
    assert (record.status, record.message) == (Status.TIMEOUT, "no answer within 5 s: stopped (seed 0, first launch)")
    child = int((folder / "child").read_text())
    deadline = time.monotonic() + 20
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(child)


def test_a_trial_alone_has_a_new_worker_and_no_neighbour(workers):
    trial, neighbour = workers.trial(step("sound")), workers.trial(step("print"))
    assert trial.judge(draws=1).status is neighbour.judge(draws=1).status is Status.PASSED
    assert len(workers._workers) == 2
    trial.be_alone()
    assert workers._workers == {}
    assert timed(trial).mode == "hot", "though another process judged it"
    assert list(workers._workers) == [("double", "sound")]


def test_on_a_device_for_one_process_at_a_time_there_is_one_worker(workers, monkeypatch):
    monkeypatch.setattr(worker, "is_exclusive", lambda device: True)
    first, second = workers.trial(step("sound")), workers.trial(step("print"))
    assert first.judge(draws=1).status is second.judge(draws=1).status is Status.PASSED
    assert list(workers._workers) == [("double", "print")]
    assert timed(first).mode == "hot"
    assert list(workers._workers) == [("double", "sound")]


def test_workers_of_another_operation_end(workers):
    workers.trial(step("sound")).judge(draws=1)
    (first,) = workers._workers.values()
    workers.trial(step("sound", of="other")).judge(draws=1)
    assert list(workers._workers) == [("other", "sound")]
    with pytest.raises(ValueError, match="closed"):
        _ = first._process.exitcode


@pytest.mark.parametrize("name", ["memory", "gpu_memory"])
def test_an_error_on_a_gpu_ends_the_worker(workers, name):
    trial = workers.trial(step(name))
    record = trial.judge(draws=1)
    assert len(workers._workers) == 1
    workers._device = type("Device", (), {"type": "cuda"})()
    workers.distrust_after(trial.step, Agreement(record.status))
    assert workers._workers == {}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a usable GPU")
def test_an_unusable_device_is_the_status_of_every_step():
    workers = Workers(torch.device("cuda", 0), lambda phase: None, 20, registry())
    for _ in range(2):
        record = workers.trial(step("sound")).judge(draws=1)
        assert record.status is Status.ERROR
        assert record.message.startswith("its process broke down: RuntimeError: cuda:0 cannot be used: ")
    _, ceilings, (problem,) = workers.limits()
    assert ceilings == {}
    assert "the limits of cuda:0 could not be measured: its process broke down" in problem
    workers.close()


def test_the_limits_of_the_device_are_measured_in_a_worker(workers):
    overheads, ceilings, problems = workers.limits()
    assert overheads["timer"] > 0
    assert (ceilings, problems) == ({}, ()), "the plugin registers none"
    assert workers._workers == {}


def test_no_worker_outlives_a_killed_parent(folder):
    code = textwrap.dedent("""
        from boltzbench.harness.execution.worker import Workers
        from harness.execution.test_worker import CPU, registry, step
        if __name__ == "__main__":
            workers = Workers(CPU, lambda phase: None, 100, registry())
            workers.trial(step("sound")).judge(1)
            (worker,) = workers._workers.values()
            print(worker._pid, flush=True)
            workers.trial(step("hang")).judge(1)
        """)
    (folder / "parent.py").write_text(code)
    paths = os.pathsep.join([str(folder), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    with subprocess.Popen(
        [sys.executable, "parent.py"], cwd=folder, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE
    ) as parent:
        worker = int(parent.stdout.readline())
        assert alive(worker)
        deadline = time.monotonic() + 60
        while not ((folder / "child").exists() and (folder / "child").read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        child = int((folder / "child").read_text())
        hanging = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
        assert alive(hanging)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(alive, (worker, hanging, child))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [alive(each) for each in (worker, hanging, child)] == [False] * 3


def test_a_shared_worker_judges_all_and_is_replaced_when_it_dies():
    workers = Workers(CPU, lambda phase: None, 20, registry(), shared=True)
    try:
        assert workers.trial(step("sound")).judge(draws=1).status is Status.PASSED
        (first,) = workers._workers.values()
        assert workers.trial(step("sound", of="other")).judge(draws=1).status is Status.PASSED
        assert list(workers._workers.values()) == [first]
        assert workers.trial(step("crash")).judge(draws=1).status is Status.ERROR
        assert workers.trial(step("sound")).judge(draws=1).status is Status.PASSED
        assert len(workers._workers) == len(workers._referees) == 1
        workers.release([step("sound", of="other")])
        assert len(workers._workers) == len(workers._referees) == 1, "the same plugin"
        workers.release([])
        assert workers._workers == workers._referees == {}
    finally:
        workers.close()


@pytest.mark.parametrize(("name", "modes"), [("killed", ()), ("killed_later", ("hot",))])
def test_no_case_is_lost_when_workers_of_several_devices_are_killed(monkeypatch, name, modes):
    asked = []
    monkeypatch.setattr(Workers, "answers", lambda self: asked.append(self) or True)
    steps = [step(each, label=f"n={n} float32") for n in (64, 128) for each in ([name] if modes else [name, "sound"])]
    records = []
    with ExitStack() as stack:
        lanes = []
        for place in range(2):
            workers = Workers(torch.device("cpu", place), lambda phase: None, 20, registry())
            stack.callback(workers.close)
            lanes.append(devices.DeviceLane(torch.device("cpu", place), workers, SILENT))
        devices.carry_out(
            lanes, steps, draws=1, modes=modes, shares=dict.fromkeys(("cpu:0", "cpu:1"), lambda found, cost: found),
            keep=records.append, keep_control=lambda control: None, controlled=["double"], lost=pytest.fail,
        )  # fmt: skip
    found = {(each.implementation, each.case): each for each in records}
    assert len(found) == len(records) == len(steps)
    for record in records:
        killed = record.implementation == name
        assert record.status is (Status.ERROR if killed else Status.PASSED)
        assert ("its process crashed: SIGKILL" in record.message) is killed
    assert {lane.device for lane in lanes} == {torch.device(each.device) for each in records}
    assert len(asked) == 2, "whether the device works: after each death"


def test_a_device_is_asked_to_work_in_a_process_without_plugins(workers, monkeypatch):
    trial = workers.trial(step("sound"))
    assert trial.judge(draws=1).status is Status.PASSED
    assert workers.reference().keys() == {"copy", "product"}
    assert workers._workers == {}, "they would disturb it"
    monkeypatch.setattr(serving, "time_reference", leave)
    assert not workers.answers()
    assert workers.deaths == 0


def leave(connection, device):
    os._exit(3)


def test_a_worker_that_lacks_an_operation_says_which_plugin_failed_there(monkeypatch):
    """As on a busy machine, where the import took longer than its time limit."""
    late = Plugin("sgld", "m", "boltzbench", "0.1.0", ("sgld (boltzbench 0.1.0): not imported in 60 s",), loaded=False)
    monkeypatch.setattr(serving, "load_registry", lambda: Registry({}, (), (late,)))
    lacking = serving._Worker(None, CPU)
    with pytest.raises(LookupError, match=r"^sgld: missing in the worker's plugins; sgld \(boltz.*: not import"):
        lacking._find(("sgld", "torch", "n=3", False, 0))
    with pytest.raises(LookupError, match=r"^torch of sgld: missing in the worker's plugins; sgld \(boltzbench 0.1.0"):
        lacking._implementation("sgld", "torch")
