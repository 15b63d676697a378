"""A case stays on one device, each record names its device, and a device that differs from its peers is found."""

import threading

import pytest
import torch
from boltzbench.harness import Agreement, Status
from boltzbench.harness.api.records import Measurement
from boltzbench.harness.execution.child import Died
from boltzbench.harness.execution.parallel.devices import DeviceLane, carry_out, examine
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.trial import Block, record_of
from boltzbench.harness.timing.peers import reference_seconds
from support.fakes import CPU, case, implementation, operation

MEASUREMENT = Measurement("cpu", "cold", (1.0, 1.1), 1.0, 1.0, 1.1, 5.0, "elements", 8.0, 9.0)


class Display:
    """Counts the steps of all devices."""

    count = 0

    def step(self, step):
        pass

    def block(self, block):
        pass

    def done(self):
        self.count += 1


class Trial:
    def __init__(self, step, workers):
        self.step, self.workers = step, workers

    def be_alone(self):
        pass

    def judge(self, draws):
        self.workers.judged.append(self.step)
        self.workers.meet()
        if self.workers.broken == "judge":
            self.workers.deaths += 1
            return record_of(self.step, Agreement(Status.ERROR, "its process broke down"))
        if self.step.label == self.workers.wrong:
            return record_of(self.step, Agreement(Status.WRONG_VALUES, "y[0] is 3"))
        return record_of(self.step, Agreement(Status.PASSED))

    def start(self, mode):
        self.left = 3

    def take_block(self):
        self.left -= 1
        return Block(self.left > 0, 3 - self.left, 0.1)

    def finish(self):
        self.workers.deaths += self.workers.broken == "finish"
        return MEASUREMENT


class Workers:
    """Of a device that times its reference in ``seconds``; None if it does not work. It breaks in the method ``broken``
    of a trial. In the case ``wrong`` nothing agrees. The first judgements of two devices wait for each other."""

    def __init__(self, seconds=1.0, broken="", both=None, wrong=""):
        self.seconds, self.broken, self.both, self.wrong = seconds, broken, both, wrong
        self.judged, self.deaths = [], 0

    def meet(self):
        if self.both and len(self.judged) == 1:
            self.both.wait(20)

    def trial(self, step):
        return Trial(step, self)

    def reference(self):
        if self.seconds is None:
            raise Died(Status.ERROR, "its process broke down: no such device")
        return {"copy": self.seconds}

    def limits(self):
        return {"timer": 1e-9}, {"copy": 1 / self.seconds}, ()

    def answers(self):
        return not self.broken

    def kill(self):
        pass


def lanes_of(*workers):
    display = Display()
    return [DeviceLane(torch.device("cpu", place), each, display) for place, each in enumerate(workers)]


def timed(lanes, steps, controlled=()):
    """The records, the controls and the lost devices of a run on these lanes."""
    records, controls, lost = [], [], []
    carry_out(
        lanes, steps, draws=1, modes=("cold",), shares={str(each.device): lambda found, cost: found for each in lanes},
        keep=records.append, keep_control=controls.append, controlled=controlled, lost=lost.append,
    )  # fmt: skip
    return records, controls, lost


def steps_of(*operations):
    selection = []
    for name in operations:
        sizes = [case(n, name, purpose="bench") for n in (8, 16, 32, 64)]
        selection.append((operation(name, cases=sizes), [implementation(each, of=name) for each in ("a", "b", "c")]))
    return plan(selection, ("bench",))


def test_all_implementations_of_a_case_are_timed_on_one_device_and_each_record_names_it():
    both = threading.Barrier(2)
    lanes, steps = lanes_of(Workers(both=both), Workers(both=both)), steps_of("double", "triple")
    records, controls, lost = timed(lanes, steps)
    on = {}
    for record in records:
        on.setdefault((record.operation, record.case), []).append(record.device)
    assert sorted(map(len, on.values())) == [3] * 8
    assert all(len(set(devices)) == 1 for devices in on.values())
    assert {devices[0] for devices in on.values()} == {"cpu:0", "cpu:1"}
    judged = {(step.operation.name, step.label): str(lane.device) for lane in lanes for step in lane.workers.judged}
    assert judged == {key: devices[0] for key, devices in on.items()}, "a record names the device that it was timed on"
    assert all(len(record.measurements) == 1 for record in records)
    assert sorted(each.operation for each in controls) == ["double", "triple"], "one for each operation"
    assert lost == []
    assert timed(lanes_of(Workers(), Workers()), steps, ("double", "triple"))[1] == [], "a resumed run has them"


@pytest.mark.parametrize("broken", ["judge", "finish"])
def test_no_case_is_lost_with_a_device(broken):
    both = threading.Barrier(2)
    lanes, steps = lanes_of(Workers(broken=broken, both=both), Workers(both=both)), steps_of("double", "triple")
    records, controls, lost = timed(lanes, steps)
    assert len(records) == len({(each.operation, each.implementation, each.case) for each in records}) == len(steps)
    assert {(each.status, each.device) for each in records} == {(Status.PASSED, "cpu:1")}
    assert lost == [torch.device("cpu", 0)]
    assert lanes[0].display.count == len(steps), "what is repeated counts once"
    assert sorted(each.operation for each in controls) == ["double", "triple"]


def test_an_operation_has_its_control_from_the_first_case_that_is_timed():
    wrong = "n=64 float32"
    lanes = lanes_of(Workers(wrong=wrong), Workers(wrong=wrong))
    _, controls, _ = timed(lanes, steps_of("double", "triple"))
    assert lanes[0].workers.judged[0].label == wrong, "the longest"
    assert sorted(each.operation for each in controls) == ["double", "triple"]


def test_the_last_device_reports_what_is_wrong():
    lanes, steps = lanes_of(Workers(broken="judge"), Workers(broken="judge")), steps_of("double")
    records, controls, lost = timed(lanes, steps)
    assert len(records) == len(steps)
    assert {each.status for each in records} == {Status.ERROR}
    assert (controls, len(lost)) == ([], 1)


def test_devices_are_examined_before_the_work():
    lanes = lanes_of(Workers(1.0), Workers(1.06), Workers(None), Workers(0.5), Workers(1.5))
    gpus = {str(lane.device): {"name": "H200", "uuid": str(place)} for place, lane in enumerate(lanes)}
    working, used, problems = examine(lanes, gpus)
    assert [str(lane.device) for lane in working] == ["cpu:0", "cpu:1", "cpu:3", "cpu:4"]
    words = "slower than the median of the others (copy)"
    assert [each.slow for each in used] == ["", f"6% {words}", "", "", f"50% {words}"]
    assert (used[1].gpu["uuid"], used[1].reference, used[3].ceilings) == ("1", {"copy": 1.06}, {"copy": 2.0})
    assert problems == ("cpu:2 does not work and is not used: its process broke down: no such device",)
    working, used, _ = examine(lanes_of(Workers(None), Workers(None)), gpus)
    assert [str(lane.device) for lane in working] == ["cpu:0"], "its records will say what is wrong"


def test_the_reference_times_memory_and_arithmetic(monkeypatch):
    monkeypatch.setattr("boltzbench.harness.timing.roofline.SHORTEST_SECONDS", 0.0)
    found = reference_seconds(CPU)
    assert found.keys() == {"copy", "product"}
    assert all(0 < each < 10 for each in found.values())
