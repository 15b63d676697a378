"""A plugin that replaces what decides in its own process is judged all the same; what it breaks costs one status."""

import os
import sys
import time
from pathlib import Path

import pytest
from boltzbench.harness import Status
from boltzbench.harness.discovery.registry import PLUGINS_VARIABLE
from boltzbench.harness.execution.catalogue import read_catalogue
from boltzbench.harness.execution.plan import Step, find_subject
from boltzbench.harness.execution.trial import TrialFailed
from boltzbench.harness.execution.worker import Workers
from support.fakes import CPU, install, timed
from support.processes import alive

OPERATIONS = """
    @hookimpl
    def register_operations(register):
        register(fakes.operation("double", laws=(fakes.law(),)))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("sound"))
    """

ATTACKS = """
    import ctypes, os, subprocess, sys, threading, time
    from dataclasses import replace
    import numpy, torch

    def writing(factor, act=lambda: None, timed=lambda: None):
        def prepare(inputs, outputs):
            launches = 0
            def launch():
                nonlocal launches
                launches += 1
                if launches == 1:
                    act()
                if launches == 3:
                    timed()
                torch.mul(inputs["x"], factor(launches) if callable(factor) else factor, out=outputs["y"])
                return outputs
            return launch
        return prepare

    def everything_passes():
        from boltzbench.harness import Agreement, Status
        from boltzbench.harness.agreement import agreement, guarded_memory
        from boltzbench.harness.execution import serving, trial
        from boltzbench.harness.timing import launch_audit
        passed = lambda *arguments, **named: Agreement(Status.PASSED, error=0.0, bound=1.0)
        agreement.GuardedCall.judge = agreement.judge_results = agreement.compare = passed
        trial.check_case = trial.check_law = passed
        trial.Trial.verdict = passed
        guarded_memory.Guarded.spill = guarded_memory.Guarded.change = lambda self: None

    def beyond_the_end(inputs, outputs):
        everything_passes()
        def launch():
            torch.mul(inputs["x"], 2, out=outputs["y"])
            y = outputs["y"]
            y.as_strided((1,), (1,), y.storage_offset() + y.numel()).fill_(1.0)
            return outputs
        return launch

    def into_an_input(inputs, outputs):
        everything_passes()
        def launch():
            torch.mul(inputs["x"], 2, out=outputs["y"])
            inputs["x"][0] = 5.0
            return outputs
        return launch

    def a_thousand_times_faster():
        from boltzbench.harness.timing import stopwatch
        numpy.percentile = lambda samples, of: [1e-9 for _ in of]
        stopwatch.median_noise = lambda samples: 0.0
        finish = stopwatch.Stopwatch.finish
        def finish_well(self):
            return replace(finish(self), median=1e-9, p10=1e-9, p90=1e-9, noise=0.0, items_per_second=1e20)
        stopwatch.Stopwatch.finish = finish_well

    def with_other_samples():
        from boltzbench.harness.timing import stopwatch
        finish = stopwatch.Stopwatch.finish
        def finish_well(self):
            self.samples = [each / 1000 for each in self.samples]
            return finish(self)
        stopwatch.Stopwatch.finish = finish_well

    def unjudged():
        from boltzbench.harness.timing import launch_audit
        launch_audit.LaunchAudit._judge = lambda self, k: None
        def compare(self):
            places = [False] * len(self._on_new)
            self.discard()
            return places
        launch_audit.LaunchAudit.compare, launch_audit.LaunchAudit.judge_last = compare, lambda self: None

    def stopped_early():
        from boltzbench.harness.timing import stopwatch
        stopwatch.Stopwatch._stop_reason = lambda self: "noise"

    class Code:
        def __reduce__(self):
            return os.system, ("touch executed",)

    def send_code():
        import gc
        from multiprocessing.connection import Connection
        for each in gc.get_objects():
            if isinstance(each, Connection):
                each.send(("answer", Code()))

    def daemon():
        code = "import os, time; os.setsid(); open('daemon', 'w').write(str(os.getpid())); time.sleep(1000)"
        if os.fork() == 0:
            os.setsid()
            subprocess.Popen([sys.executable, "-c", code])
            os._exit(0)
        wait_for("daemon")

    def count(name):
        while True:
            with open(name, "a") as file:
                file.write(".")
            time.sleep(0.001)

    def wait_for(name):
        while not (os.path.exists(name) and os.path.getsize(name)):
            time.sleep(0.001)

    def count_in_a_thread():
        threading.Thread(target=count, args=("in_a_thread",), daemon=True).start()
        wait_for("in_a_thread")

    def count_in_a_session():
        if os.fork() == 0:
            os.setsid()
            count("in_a_session")
        wait_for("in_a_session")

    def leave_a_thread():
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()

    def with_a_table(inputs, outputs):
        known = {}
        def launch():
            x = inputs["x"]
            if known.get("version") != x._version:
                known.update(version=x._version, table=2 * x)
            outputs["y"].copy_(known["table"])
            return outputs
        return launch

    ACTS = {
        "dtype": lambda: torch.set_default_dtype(torch.float64),
        "device": lambda: torch.set_default_device("meta"),
        "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 3),
        "gradients": lambda: torch.set_grad_enabled(False),
    }

    @hookimpl
    def register_implementations(register):
        add = lambda name, prepare: register(fakes.implementation(name, prepare=prepare))
        for name, act in ACTS.items():
            add(name, writing(2, act))
        add("fine", writing(2))
        add("table", with_a_table)
        add("all_passes", writing(2.1, everything_passes))
        add("beyond", beyond_the_end)
        add("input", into_an_input)
        add("late", writing(lambda launches: 2 if launches < 3 else 2.1, everything_passes))
        add("percentile", writing(2, a_thousand_times_faster))
        add("samples", writing(2, with_other_samples))
        add("unjudged", writing(2, unjudged))
        add("early", writing(2, stopped_early))
        add("code", writing(2, send_code))
        add("daemon", writing(2, daemon))
        add("in_a_thread", writing(2, timed=count_in_a_thread))
        add("in_a_session", writing(2, timed=count_in_a_session))
        add("thread", writing(2, leave_a_thread))
    """


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    install(folder, {"defines": OPERATIONS, "attacks": ATTACKS})
    before = Path.cwd(), os.environ.get(PLUGINS_VARIABLE)
    sys.path.insert(0, str(folder))
    os.chdir(folder)
    os.environ[PLUGINS_VARIABLE] = "defines,attacks"
    yield folder
    os.chdir(before[0])
    sys.path.remove(str(folder))
    del os.environ[PLUGINS_VARIABLE]
    if before[1] is not None:
        os.environ[PLUGINS_VARIABLE] = before[1]


@pytest.fixture(scope="module")
def workers(folder):
    registry = read_catalogue("cpu")
    assert registry.problems == ()
    workers = Workers(CPU, lambda phase: None, 20, registry)
    yield workers
    workers.close()


@pytest.fixture
def trial(workers):
    def trial(name, label="n=64 float32"):
        ((operation, (implementation,)),) = workers._registry.select(["double"], [name])
        subject = find_subject(operation, label, label.startswith("law"))
        return workers.trial(Step(operation, implementation, subject, 0))

    return trial


@pytest.mark.parametrize(
    ("name", "label", "status"),
    [
        ("all_passes", "n=64 float32", Status.WRONG_VALUES),
        ("all_passes", "law: doubles one", Status.WRONG_LAW),
        ("beyond", "n=64 float32", Status.OUT_OF_BOUNDS),
        ("input", "n=64 float32", Status.MODIFIED_INPUT),
    ],
)
def test_the_verdict_is_not_computed_where_the_plugin_is(trial, name, label, status):
    assert trial(name, label).judge(draws=1).status is status
    assert trial("fine").judge(draws=1).status is Status.PASSED


def test_who_keeps_a_table_as_long_as_an_input_has_its_version_passes(trial):
    record = trial("table").judge(draws=2)
    assert (record.status, record.message) == (Status.PASSED, "")


def test_results_of_timed_launches_are_judged_elsewhere(trial):
    late = trial("late")
    assert late.judge(draws=1).status is Status.PASSED
    with pytest.raises(TrialFailed) as caught:
        timed(late)
    assert caught.value.record.status is Status.WRONG_VALUES
    assert "wrong_values while timed: y: 64 of 64 elements are off" in caught.value.record.message


def test_figures_are_computed_from_the_samples(trial):
    found = timed(trial("percentile"))
    ordered = sorted(found.samples)
    assert ordered[0] <= found.p10 <= found.median <= found.p90 <= ordered[-1]
    assert found.median == pytest.approx(ordered[len(ordered) // 2], rel=0.2)
    assert found.items_per_second == pytest.approx(64 / found.median)
    assert found.noise > 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("samples", "the samples of the measurement are not those of its blocks"),
        ("unjudged", "no result of a timed launch was judged"),
    ],
)
def test_a_measurement_without_evidence_is_none(trial, name, words):
    with pytest.raises(TrialFailed) as caught:
        timed(trial(name))
    assert (caught.value.record.status, caught.value.record.message) == (Status.ERROR, words)


def test_a_sampling_that_ends_early_is_suspicious(trial):
    suspicions = timed(trial("early")).suspicions
    assert any(each.startswith("the sampling ended early, after ") for each in suspicions)


COSTS = """
    from boltzbench.harness import Cost
    from dataclasses import replace
    made = fakes.operation
    fakes.operation = lambda *given, **named: replace(made(*given, **named), cost=lambda case: Cost(10**12, "elements"))

    @hookimpl
    def register_implementations(register):
        register(fakes.implementation("dear"))
    """


def test_what_a_plugin_says_of_the_operation_of_another_is_noticed(folder, monkeypatch):
    install(folder, {"costs": COSTS}, "fake-costs")
    monkeypatch.setenv(PLUGINS_VARIABLE, "defines,costs")
    registry = read_catalogue("cpu")
    ((operation, (implementation,)),) = registry.select(["double"], ["dear"])
    assert operation.cost(operation.cases[0]).items == 10**12
    workers = Workers(CPU, lambda phase: None, 20, registry)
    try:
        record = workers.trial(Step(operation, implementation, operation.cases[0], 0)).judge(draws=1)
    finally:
        workers.close()
    assert record.status is Status.ERROR
    assert record.message == "a plugin that was read with defines has changed its operation double"


def test_what_a_plugin_sends_is_not_executed(trial, folder):
    record = trial("code").judge(draws=1)
    assert record.status is Status.ERROR
    assert "its process sent what the harness does not read: posix.system" in record.message
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("dtype", "torch's default dtype from torch.float32 to torch.float64"),
        ("device", "torch's default device from cpu to meta"),
        ("threads", "torch's number of threads from"),
        ("gradients", "torch's gradient mode from True to False"),
    ],
)
def test_changed_defaults_cost_one_status(trial, name, what):
    record = trial(name).judge(draws=1)
    assert record.status is Status.ERROR
    assert f"it changed {what}" in record.message
    assert trial("fine").judge(draws=1).status is Status.PASSED


def test_a_leaked_thread_costs_its_process(trial, workers):
    assert trial("fine").judge(draws=1).status is Status.PASSED
    before = workers._workers["double", "fine"]
    assert trial("fine").judge(draws=1).status is Status.PASSED
    assert workers._workers["double", "fine"] is before
    assert trial("thread").judge(draws=1).status is Status.PASSED
    assert ("double", "thread") not in workers._workers


def test_daemons_end_with_the_worker(trial, workers, folder):
    trial("daemon").judge(draws=1)
    daemon = int((folder / "daemon").read_text())
    workers.close()
    assert not alive(daemon)


@pytest.mark.parametrize("name", ["in_a_thread", "in_a_session"])
def test_a_worker_that_is_not_asked_stands_still(trial, workers, folder, name):
    one, ticks = trial(name), folder / name
    assert one.judge(draws=1).status is Status.PASSED
    one.start("hot")
    one.take_block()
    time.sleep(0.05)  # until the signal has arrived
    before = ticks.stat().st_size
    time.sleep(0.2)
    assert 0 < ticks.stat().st_size == before
    while ticks.stat().st_size == before:
        assert one.take_block().more, "it goes on with its process"
    workers.close()
