"""Several judges share the work, speeds are measured when they have ended, and nothing comes after an interruption."""

import io
import threading
import time
from dataclasses import replace

import pytest
import torch
from boltzbench.harness import Experiment, Status
from boltzbench.harness.api.records import Claim, Efficiency, Outcome
from boltzbench.harness.cli import validate
from boltzbench.harness.cli.progress import ValidationProgress
from boltzbench.harness.discovery.registry import Registry
from boltzbench.harness.execution.child import Died
from boltzbench.harness.execution.parallel import judges
from boltzbench.harness.execution.parallel.judges import ask_all
from boltzbench.harness.validation.progress import CurrentClaim
from boltzbench.harness.validation.standing import make_standing
from rich.console import Console
from support.fakes import CPU
from support.wrong_samplers import four_states, metropolis


class FakeWorkers:
    """Answers in this process; `standings` waits until another judge asks, too."""

    made: list["FakeWorkers"]

    def __init__(self, device, announce, time_limit, registry, worker_threads):
        self.announce, self.threads, self.asked, self.closed = announce, worker_threads, [], False
        self.device, self.deaths = device, 0
        self.made.append(self)

    def standings(self, sampler, target, seed):
        self._ask("standings", sampler)
        self.both.wait(20)
        claim = Claim(sampler.name, target.name, 1.0, "form", Status.PASSED)
        found = Efficiency(None, None, 1.0, 2.0, None, 0.0)
        return [make_standing(sampler, target, t, (replace(claim, temperature=t),), found) for t in target.temperatures]

    def outcome(self, experiment, seed):
        self._ask("outcome", experiment)
        return Outcome(experiment.name, "", "", "", Status.PASSED)

    def timed(self, found, sampler, target, seed):
        assert all(each.closed for each in self.made if each is not self), "another judge is still at work"
        self._ask("timed", sampler)
        if sampler.name == "lost":
            self.announce(CurrentClaim("efficiency", found[1].temperature))
            raise Died(Status.TIMEOUT, "no answer")
        return [replace(row, efficiency=replace(row.efficiency, steps_per_second=8.0)) for row in found]

    def _ask(self, question, of):
        self.asked.append((question, of.name))

    def kill(self):
        pass

    def close(self):
        self.closed = True


def test_judges_share_the_work_and_speeds_are_measured_when_they_have_ended(monkeypatch):
    class Here(FakeWorkers):
        made, both = [], threading.Barrier(2)

    monkeypatch.setattr(judges, "Workers", Here)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    pairs = [(metropolis(name), four_states()) for name in ("one", "two", "three", "lost")]
    progress = ValidationProgress(Console(file=io.StringIO()), 4, 1)
    found, outcomes = {}, {}
    experiment = Experiment("question", "", "", None)
    validate._judge(Registry({}, (), ()), [CPU], 1.0, progress, pairs, [experiment], 0, found, outcomes, [])
    assert [each.threads for each in Here.made] == [1, 1, 0]
    first, second, timing = (each.asked for each in Here.made)
    assert {question for question, _ in first + second} == {"standings", "outcome"}
    assert sorted(name for _, name in first + second) == ["lost", "one", "question", "three", "two"]
    assert timing == [("timed", sampler.name) for sampler, _ in pairs]
    assert list(outcomes) == ["question"]
    assert [row.efficiency.steps_per_second for row in found["two", "four"]] == [8.0, 8.0]
    other, lost = found["lost", "four"]
    assert other.failed == []
    assert [(each.claim, each.status, each.message) for each in lost.failed] == [
        ("efficiency", Status.TIMEOUT, "no answer")
    ]


@pytest.mark.parametrize("broken", [False, True])
def test_several_devices_share_the_pairs_and_one_that_works_times_all(monkeypatch, broken):
    class Here(FakeWorkers):
        made, both = [], threading.Barrier(2)

        def standings(self, sampler, target, seed):
            if broken and self.device.index == 0:
                self.both.wait(20)
                self.deaths += 1
                raise Died(Status.ERROR, "no such device")
            if broken and self.asked:  # the other device has left
                self.both = threading.Barrier(1)
            return super().standings(sampler, target, seed)

        def answers(self):
            return not broken

    monkeypatch.setattr(judges, "Workers", Here)
    devices = [torch.device("cpu", 0), torch.device("cpu", 1)]
    pairs = [(metropolis(name), four_states()) for name in ("one", "two")]
    shown, found, lost = io.StringIO(), {}, []
    progress = ValidationProgress(Console(file=shown), 2, 0)
    validate._judge(Registry({}, (), ()), devices, 1.0, progress, pairs, [], 0, found, {}, lost)
    rows = [row for own in found.values() for row in own]
    assert len(found) == 2
    assert [row.failed for row in rows] == [[]] * len(rows)
    assert {row.device for row in rows} == ({"cpu:1"} if broken else {"cpu:0", "cpu:1"})
    assert {row.efficiency.device for row in rows} == {"cpu:1" if broken else "cpu:0"}
    assert lost == (["cpu:0 stopped working: the other devices did its work"] if broken else [])
    assert {line.partition(" (")[2] for line in shown.getvalue().splitlines()} == {"1 of 2)", "2 of 2)"}


def fake_judges(count):
    made = []
    for _ in range(count):
        workers = FakeWorkers.__new__(FakeWorkers)
        workers.dead, workers.closed = threading.Event(), False
        workers.kill = workers.dead.set
        judge = judges.Judge.__new__(judges.Judge)
        judge.workers, judge.device = workers, CPU
        made.append(judge)
    return made


@pytest.mark.parametrize("error", [KeyError("harness"), KeyboardInterrupt()])
def test_an_error_ends_the_work_and_later_answers_are_not_kept(error):
    kept, first = [], threading.Event()

    def sound(judge):
        return lambda: (kept.append("sound"), first.set())

    def broken(judge):
        first.wait(20)
        raise error

    def slow(judge):
        assert judge.workers.dead.wait(20), "its worker is killed"
        return lambda: kept.append("slow")

    both = fake_judges(2)
    since = time.perf_counter()
    with pytest.raises(type(error)):
        ask_all(both, [[sound, slow, sound], [broken, sound]])
    assert time.perf_counter() - since < 10
    assert kept == ["sound"]
    assert all(judge.workers.closed for judge in both)


def test_on_a_gpu_one_judge_works_at_a_time():
    assert judges.judges_at_once(torch.device("cuda", 0)) == 1
    assert judges.judges_at_once(CPU) == min(torch.get_num_threads(), judges.MOST_ON_A_CPU)
