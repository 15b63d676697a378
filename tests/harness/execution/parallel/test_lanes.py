"""Units of work go to the next free lane, none is lost with a device, and an interruption keeps what was found."""

import itertools
import signal
import sys
import threading
import time
from functools import partial

import pytest
import torch
from boltzbench.harness.discovery.time_limit import disarm, limited_to
from boltzbench.harness.execution.parallel import lanes
from boltzbench.harness.execution.parallel.lanes import LongestFirst, Queue, at_once, share_out
from boltzbench.harness.execution.plan import plan
from support.fakes import case, implementation, operation


class Device:
    """A lane on a stand-in device, whose workers die with the units of ``deadly``; it answers if it is ``sound``."""

    def __init__(self, place, deadly=(), sound=True):
        self.device, self.workers, self.sound, self.deadly = torch.device("cpu", place), self, sound, deadly
        self.deaths, self.killed, self.log = 0, threading.Event(), []

    def answers(self):
        return self.sound

    def kill(self):
        self.killed.set()


def shared(lanes, units, act=None, *, kept, lost):
    """Share out units that each have two results, with ``act`` before each. Adds what is kept and lost devices."""

    def work(lane, unit, going, found):
        lane.log.append(unit)
        for part in "ab":
            if act:
                act(lane, unit, part)
            if unit in lane.deadly:
                lane.deaths += 1
            found(partial(kept.append, f"{unit}{part} of {lane.device}"))

    share_out(lanes, Queue(units, len(lanes)), work, lambda lane: lost.append(str(lane.device)))


def test_a_dead_worker_of_a_sound_device_costs_nothing_else():
    first, second = Device(0, deadly="13"), Device(1)
    kept, lost = [], []
    shared([first, second], "1234", kept=kept, lost=lost)
    assert sorted(each[:2] for each in kept) == ["1a", "1b", "2a", "2b", "3a", "3b", "4a", "4b"]
    assert lost == []


def test_the_unit_of_a_device_that_stops_working_goes_to_another():
    broken, sound = Device(0, deadly="1", sound=False), Device(1)

    def wait_for_the_loss(lane, unit, part):  # the other lane has nothing to do then
        if lane is broken and part == "a":
            assert finished.wait(20)
        if (lane, unit, part) == (sound, "2", "b"):
            finished.set()

    finished = threading.Event()
    kept, lost = [], []
    shared([broken, sound], "12", wait_for_the_loss, kept=kept, lost=lost)
    assert broken.log == ["1"]
    assert sorted(kept) == ["1a of cpu:1", "1b of cpu:1", "2a of cpu:1", "2b of cpu:1"]
    assert lost == ["cpu:0"]


def test_the_last_device_keeps_its_work_whatever_happens():
    lanes = [Device(0, deadly="12345", sound=False), Device(1, deadly="12345", sound=False)]
    kept, lost = [], []
    shared(lanes, "12345", kept=kept, lost=lost)
    assert sorted(each[:2] for each in kept) == [f"{unit}{part}" for unit in "12345" for part in "ab"], (
        "each of them once"
    )
    assert len(lost) == 1


@pytest.mark.parametrize("error", [KeyError("harness"), KeyboardInterrupt()])
def test_an_interruption_keeps_what_unfinished_units_have_found(error):
    half_done = threading.Event()

    def act(lane, unit, part):
        if (unit, part) == ("1", "b"):
            half_done.set()
            assert lane.killed.wait(20), "its processes are killed"
        if unit == "2":
            assert half_done.wait(20)
            raise error

    kept, lost = [], []
    with pytest.raises(type(error)):
        shared([Device(0), Device(1)], "123", act, kept=kept, lost=lost)
    assert kept == ["1a of cpu:0"]
    assert lost == []


def signalled(act, signal_at):
    """What `at_once` on two devices raises, and the devices. ``signal_at(place, frame)`` is called at each call of the
    main thread, which is where Python sees signals."""
    lanes, places = [Device(0), Device(1)], itertools.count()
    before, raised = sys.gettrace(), None
    try:
        sys.settrace(lambda frame, event, argument: signal_at(next(places), frame))
        at_once(lanes, act)
    except BaseException as error:
        raised = error
    finally:
        sys.settrace(before)
    time.sleep(0.01)  # as long as a thread may need that has just been started
    return raised, lanes


def until_killed(lane, going):
    lane.log.append("began")
    assert lane.killed.wait(20), "its processes are killed"
    lane.log.append("ended")


ENDED = [], ["began", "ended"]


def test_ctrl_c_leaves_no_lane_at_work_wherever_it_comes(monkeypatch):
    monkeypatch.setattr(lanes, "sleep", lambda seconds: time.sleep(0.001))
    begun = []
    for place in (*range(100), 400):

        def ctrl_c(number, frame, place=place):
            code = frame.f_code
            heard = code.co_filename in (lanes.__file__, threading.__file__) and code.co_name != "<genexpr>"
            if number >= place and heard:  # in finalizers, such as a generator's, Python ignores what is raised
                raise KeyboardInterrupt  # once: it ends the tracing

        raised, devices = signalled(until_killed, ctrl_c)
        assert KeyboardInterrupt in (type(raised), type(raised.__context__)), "threading may raise an error of its own"
        assert all(device.log in ENDED for device in devices), place
        begun.append(sum(bool(device.log) for device in devices))
    assert {0, 2} <= {*begun}, "before they begin, and after"


def test_a_time_limit_that_comes_as_the_lanes_end_stops_none_of_that():
    def act(lane, going):
        if lane.device.index == 0:
            raise KeyError
        until_killed(lane, going)

    ending = False

    def alarm(number, frame):
        nonlocal ending
        ending = ending or frame.f_code in (disarm.__code__, lanes._EndOf.__exit__.__code__)
        if ending:
            signal.getsignal(signal.SIGALRM)(signal.SIGALRM, frame)

    with limited_to(60.0):
        raised, devices = signalled(act, alarm)
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0, "what follows cleans up"
    assert isinstance(raised, KeyError)
    assert all(device.log in ENDED for device in devices)


def test_an_alarm_of_somebody_else_stays():
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, 60.0)
    try:
        at_once([Device(0)], lambda lane, going: None)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cases(*, a, b):
    """Cases of two operations with these numbers of elements, as groups of steps."""
    steps = [
        plan([(operation(name, cases=[case(n, purpose="bench")]), [implementation(of=name)])], ("bench",))
        for name, sizes in (("a", a), ("b", b))
        for n in sizes
    ]
    assert all(steps)
    return steps


def test_a_lane_stays_with_its_operation_and_begins_with_the_longest_case():
    waiting = cases(a=(10**9, 10**11, 10**10), b=(10**10, 10**10))
    choose, taken = LongestFirst(3, "cuda", ("cold",)), []
    for place in (0, 1, 0, 1, 2):
        taken.append((place, waiting.pop(choose(place, waiting))[0]))
    found = [(place, step.operation.name, step.subject.sizes["n"]) for place, step in taken]
    assert found == [(0, "a", 10**11), (1, "b", 10**10), (0, "a", 10**10), (1, "b", 10**10), (2, "a", 10**9)]


def test_a_free_lane_joins_the_operation_with_the_most_work_for_each_lane_at_it():
    waiting = cases(a=(10**11,) * 4, b=(10**11,) * 2)
    choose = LongestFirst(3, "cuda", ("cold",))
    names = [waiting.pop(choose(place, waiting))[0].operation.name for place in (0, 1, 2)]
    assert names == ["a", "b", "a"]
