"""The order of checks and timing in a session, with trials that only record the calls."""

from dataclasses import replace
from functools import partial

import pytest
from boltzbench.harness import Agreement, Status
from boltzbench.harness.api.records import Measurement
from boltzbench.harness.execution import session
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.session import INTERPRETED, carry_out
from boltzbench.harness.execution.trial import Block, TrialFailed, record_of
from boltzbench.harness.timing.roofline import with_share
from support.fakes import CPU, case, implementation, law, operation

MEASUREMENT = Measurement("cpu", "cold", (1.0,), 1.0, 1.0, 1.0, 5.0, "elements", 8.0, 9.0)


def unshared(measurement, cost):
    return measurement


class Scripted:
    """A trial that takes ``blocks`` blocks, lasts ``seconds`` and fails in the method ``failing``.

    The device is too small for it in the method ``short``; if ``fits_alone``, only as long as others are there.
    """

    def __init__(self, step, log, blocks=1, seconds=1.0, verdict=Status.PASSED, failing="", short="", fits_alone=True):
        self.step, self.log, self.blocks, self.seconds = step, log, blocks, seconds
        self.verdict, self.failing, self.short, self.fits_alone = verdict, failing, short, fits_alone

    def note(self, what):
        self.log.append(f"{self.step.implementation.name}{' again' * self.step.again} {what}")
        if what.split()[0] == self.failing:
            raise TrialFailed(record_of(self.step, Agreement(Status.TIMEOUT, f"slow in {what}")))
        if what.split()[0] == self.short:
            raise TrialFailed(record_of(self.step, Agreement(Status.OUT_OF_MEMORY, "tried to allocate 2 GiB")))

    def be_alone(self):
        self.note("alone")
        if self.fits_alone:
            self.short = ""

    def judge(self, draws):
        try:
            self.note("judge")
        except TrialFailed as failed:
            return failed.record
        return record_of(self.step, Agreement(self.verdict))

    def start(self, mode):
        self.note(f"start {mode}")
        self.mode, self.left = mode, self.blocks

    def take_block(self):
        self.note("block")
        self.left -= 1
        return Block(self.left > 0, 10 * (self.blocks - self.left), 0.1)

    def finish(self):
        self.note("finish")
        return replace(MEASUREMENT, mode=self.mode, median=self.seconds)


class Display:
    def __init__(self):
        self.steps, self.blocks, self.count = [], [], 0

    def step(self, step):
        self.steps.append(step.implementation.name)

    def block(self, block):
        self.blocks.append(block.samples)

    def done(self):
        self.count += 1


def bench(scripts, *, modes=("cold",), cases=None, share=unshared, backends=(), **options):
    """The log, the records and the display of a session with one scripted trial for each implementation.

    The second trial of an A/A control has the script of ``NAME again``.
    """
    log, records, display = [], [], Display()
    backends = dict(backends)
    one = operation(cases=cases or [case(64, purpose="bench")])
    names = [name for name in scripts if not name.endswith(" again")]
    steps = plan(
        [(one, [implementation(name, backend=backends.get(name, "torch")) for name in names])], ("check", "bench")
    )
    carry_out(
        steps,
        CPU,
        lambda step: Scripted(step, log, **scripts[step.implementation.name + " again" * step.again]),
        draws=1,
        modes=modes,
        share=share,
        keep=records.append,
        display=display,
        **options,
    )
    return log, records, display


def test_implementations_of_a_case_take_turns_block_by_block():
    log, records, display = bench({"a": {"blocks": 3}, "b": {"blocks": 1}, "c": {"blocks": 2}})
    assert log == [
        *("a judge", "b judge", "c judge"),
        *("a start cold", "b start cold", "c start cold"),
        *("a block", "b block", "c block", "a block", "c block", "a block"),
        *("a finish", "b finish", "c finish"),
    ]
    assert [len(record.measurements) for record in records] == [1, 1, 1]
    assert display.blocks == [10, 10, 10, 20, 20, 30]
    assert display.count == 3


def test_one_implementation_of_an_operation_is_timed_twice_in_turn():
    scripts = {"a": {"verdict": Status.ERROR}, "b": {"blocks": 2}, "b again": {"seconds": 1.1}, "c": {}}
    cases, controls = [case(64, purpose="bench"), case(128, purpose="bench")], []
    log, records, display = bench(scripts, modes=("cold", "hot"), cases=cases, keep_control=controls.append)
    assert log[:11] == [
        *("a judge", "b judge", "c judge", "b start cold", "c start cold", "b again start cold"),
        *("b block", "c block", "b again block", "b block", "b finish"),
    ]
    assert [each for each in log if "again" in each] == [
        f"b again {what}" for what in ("start cold", "block", "finish")
    ]
    (control,) = controls
    assert (control.operation, control.implementation, control.case, control.mode) == (
        *("double", "b", "n=64 float32", "cold"),
    )
    assert [(record.implementation, len(record.measurements)) for record in records] == [
        ("a", 0),
        ("b", 2),
        ("c", 2),
    ] * 2
    assert display.count == 6
    assert (control.samples, control.ratio) == ((1.0,), 1.0), "of the samples"
    log, _, _ = bench(scripts, keep_control=controls.append, controlled=("double",))
    assert not any("again" in each for each in log)


@pytest.mark.parametrize("failing", ["start", "block", "finish"])
def test_a_control_that_fails_says_so_and_leaves_the_record_alone(failing):
    controls = []
    _, (record,), _ = bench({"a": {}, "a again": {"failing": failing}}, keep_control=controls.append)
    assert (record.status, len(record.measurements)) == (Status.PASSED, 1)
    assert (controls[0].timed, controls[0].message[:19]) == (False, "timeout: slow in " + failing[:2])


MUCH = "the device has too little memory even for this trial alone: tried to allocate 2 GiB"


def test_a_check_that_runs_out_of_memory_is_repeated_once_alone():
    log, records, display = bench({"a": {"short": "judge"}, "b": {"short": "judge", "fits_alone": False}})
    assert log[:6] == ["a judge", "a alone", "a judge", "b judge", "b alone", "b judge"]
    assert log[6:] == ["a start cold", "a block", "a finish"]
    assert [(record.status, record.message, len(record.measurements)) for record in records] == [
        (Status.OUT_OF_MEMORY, MUCH, 0),
        (Status.PASSED, "", 1),
    ]
    assert display.count == 2


@pytest.mark.parametrize("short", ["start", "block", "finish"])
def test_timing_that_runs_out_of_memory_is_repeated_once_alone_after_the_others(short):
    scripts = {"a": {"short": short}, "b": {"blocks": 2}, "c": {"short": short, "fits_alone": False}}
    log, records, _ = bench(scripts, modes=("cold", "hot"))
    whole = ["a start cold", "a block", "a finish"]
    upto = whole.index(next(each for each in whole if short in each)) + 1
    alone = log.index("a alone")
    assert [each for each in log[:alone] if each.startswith("a")] == ["a judge", *whole[:upto]]
    assert log[alone : alone + 4] == ["a alone", *whole]
    assert log.index("b finish") < alone < log.index("c alone")
    found = {record.implementation: record for record in records}
    assert [each.mode for each in found["a"].measurements] == ["cold", "hot"]
    assert (found["a"].status, len(found["b"].measurements)) == (Status.PASSED, 2)
    assert (found["c"].status, found["c"].message, found["c"].measurements) == (Status.OUT_OF_MEMORY, MUCH, ())
    assert log.count("c alone") == 1


def test_on_a_device_for_one_process_at_a_time_implementations_are_timed_one_after_another(monkeypatch):
    monkeypatch.setattr(session, "is_exclusive", lambda device: True)
    log, records, _ = bench({"torch": {"blocks": 2, "seconds": 1.0}, "b": {"seconds": 0.01}})
    assert log[2:] == [
        *("torch start cold", "torch block", "torch block", "torch finish"),
        *("b start cold", "b block", "b finish"),
    ]
    assert [bool(record.measurements[0].suspicions) for record in records] == [False, True], "they are still compared"


def test_each_mode_has_its_measurement():
    log, (record,), _ = bench({"a": {}}, modes=("cold", "hot"))
    assert [each.mode for each in record.measurements] == ["cold", "hot"]
    assert log == ["a judge", "a start cold", "a block", "a finish", "a start hot", "a block", "a finish"]


def test_an_implementation_that_fails_its_check_is_not_timed_and_others_are():
    log, records, display = bench({"a": {"verdict": Status.WRONG_VALUES}, "b": {}})
    assert log == ["a judge", "b judge", "b start cold", "b block", "b finish"]
    assert [(record.status, len(record.measurements)) for record in records] == [
        (Status.WRONG_VALUES, 0),
        (Status.PASSED, 1),
    ]
    assert display.count == 2


@pytest.mark.parametrize("failing", ["start", "block", "finish"])
def test_a_failure_during_timing_leaves_no_measurement_and_others_continue(failing):
    _, records, display = bench({"a": {"failing": failing, "blocks": 2}, "b": {"blocks": 2}}, modes=("cold", "hot"))
    assert [(record.implementation, record.status) for record in records] == [
        ("a", Status.TIMEOUT),
        ("b", Status.PASSED),
    ]
    assert records[0].measurements == ()
    assert len(records[1].measurements) == 2
    assert display.count == 2


def test_a_failure_in_the_second_mode_drops_the_first_measurement():
    log = []

    class FailsHot(Scripted):
        def start(self, mode):
            self.failing = "start" if mode == "hot" else ""
            super().start(mode)

    records = []
    steps = plan([(operation(cases=[case(64, purpose="bench")]), [implementation("a")])], ("bench",))
    carry_out(
        steps, CPU, lambda step: FailsHot(step, log), draws=1, modes=("cold", "hot"), share=unshared,
        keep=records.append, display=Display(),
    )  # fmt: skip
    assert [(record.status, record.measurements) for record in records] == [(Status.TIMEOUT, ())]


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_an_interpreted_implementation_is_not_timed(backend):
    log, (record,), _ = bench({"a": {}}, backends={"a": backend})
    assert log == []
    assert (record.status, record.message, record.measurements) == (Status.UNAVAILABLE, INTERPRETED, ())


def test_without_modes_nothing_is_timed():
    log, (record,), _ = bench({"a": {}}, modes=())
    assert log == ["a judge"]
    assert (record.measurements, record.untimed) == ((), "")


def test_check_cases_and_laws_are_not_timed():
    log, records = [], []
    steps = plan([(operation(laws=(law(),)), [implementation("a")])], ("check", "law"))
    carry_out(
        steps, CPU, lambda step: Scripted(step, log), draws=1, modes=("cold",), share=unshared, keep=records.append,
        display=Display(),
    )  # fmt: skip
    assert log == ["a judge"] * 3
    assert [record.purpose for record in records] == ["check", "check", "law"]


def test_cases_come_one_after_the_other():
    cases = [case(64, purpose="bench"), case(128, purpose="bench")]
    log, records, _ = bench({"a": {}, "b": {}}, cases=cases)
    one = ["a judge", "b judge", "a start cold", "b start cold", "a block", "b block", "a finish", "b finish"]
    assert log == one * 2
    assert [record.case for record in records] == ["n=64 float32"] * 2 + ["n=128 float32"] * 2


def test_a_measurement_gets_its_share_of_the_limit():
    share = partial(with_share, rates={"copy": 1024.0, "fma": 1.0e9}, cache_bytes=0)
    _, (record,), _ = bench({"a": {"seconds": 2.0}}, share=share)
    # 256 bytes read and 256 written at 1024 B/s take half a second
    assert record.measurements[0].roofline_share == pytest.approx(0.25)
    assert record.measurements[0].limit == "copy"


TOO_FAST = "11 times as fast as the best of torch and torch_compile"


@pytest.mark.parametrize(
    ("rates", "suspicions"),
    [
        ({"copy": 8192.0}, ()),  # 512 bytes in 0.09 s are 69 % of the limit
        ({"copy": 5120.0}, ("111 % of the copy limit: above the roofline", TOO_FAST)),
        ({"philox": 1.0}, (TOO_FAST,)),
    ],
    ids=["within", "above", "unknown"],
)
def test_ten_times_the_best_baseline_is_not_suspicious_within_a_measured_limit(rates, suspicions):
    share = partial(with_share, rates=rates, cache_bytes=0)
    _, records, _ = bench({"torch": {"seconds": 1.0}, "fast": {"seconds": 0.09}}, share=share)
    (found,) = (record.measurements[0].suspicions for record in records if record.implementation == "fast")
    assert found == suspicions


def test_ten_times_the_best_baseline_is_suspicious():
    scripts = {
        "torch": {"seconds": 1.1},
        "torch_compile": {"seconds": 1.0},
        "fair": {"seconds": 0.11},
        "magic": {"seconds": 0.09},
    }
    _, records, _ = bench(scripts)  # all of the backend torch, as a plugin of torch code is too
    suspicions = {record.implementation: record.measurements[0].suspicions for record in records}
    assert suspicions == {
        "torch": (),
        "torch_compile": (),
        "fair": (),
        "magic": ("11 times as fast as the best of torch and torch_compile",),
    }
