"""Running one step in this process: its verdict, and failures during timing."""

import pytest
import torch
from boltzbench.harness import Agreement, Status
from boltzbench.harness.execution import trial
from boltzbench.harness.execution.plan import Step
from boltzbench.harness.execution.trial import Trial, TrialFailed
from boltzbench.harness.timing.launch_audit import FailedWhileTimed
from support.fakes import CPU, case, implementation, interrupting, law, operation

BENCH = case(64, purpose="bench")


def step(implementation, subject=BENCH, *, of=None, seed=0):
    return Step(of or operation(), implementation, subject, seed)


def judge(*arguments, draws=1, device=CPU, **named):
    return Trial(step(*arguments, **named), device).judge(draws)


def raising(error):
    def function(*arguments, **named):
        raise error

    return function


def test_the_record_says_what_was_judged():
    record = judge(implementation(plugin="p (d 1)"), case(3), seed=4)
    assert record.status is Status.PASSED
    assert (record.operation, record.implementation, record.backend, record.plugin) == (
        "double",
        "torch",
        "torch",
        "p (d 1)",
    )
    assert (record.case, record.purpose, record.sizes, record.dtype, record.seed) == (
        "n=3 float32",
        "check",
        {"n": 3},
        "float32",
        4,
    )
    assert record.error <= record.bound
    assert len(record.source_hash) == 16
    assert (record.measurements, record.untimed) == ((), "")


def test_a_disagreement_is_recorded():
    record = judge(implementation(factor=2.1))
    assert record.status is Status.WRONG_VALUES
    assert record.error > record.bound
    assert "y: 64 of 64 elements are off" in record.message


def test_unavailable_is_recorded_with_its_reason():
    record = judge(implementation(unavailable=lambda device: f"needs more than a {device.type}"))
    assert (record.status, record.message) == (Status.UNAVAILABLE, "needs more than a cpu")


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit("broken")])
def test_unavailable_that_raises_is_an_error(error):
    record = judge(implementation(unavailable=raising(error)))
    assert record.status is Status.ERROR
    assert f"unavailable() raised {type(error).__name__}: broken (test_trial.py:" in record.message


@pytest.mark.parametrize("part", ["make_inputs", "make_outputs", "reference"])
@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit("broken")])
def test_an_operation_that_raises_affects_only_its_own_case(part, error):
    record = judge(implementation(), of=operation(**{part: raising(error)}))
    assert record.status is Status.ERROR
    assert f"the check of operation double itself raised {type(error).__name__}: broken" in record.message


@pytest.mark.parametrize("part", ["make_inputs", "make_outputs", "reference", "prepare"])
def test_a_check_without_enough_memory_says_so(part):
    much = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    mine = implementation(prepare=raising(much)) if part == "prepare" else implementation()
    record = judge(mine, of=operation() if part == "prepare" else operation(**{part: raising(much)}))
    assert record.status is Status.OUT_OF_MEMORY
    assert "Tried to allocate 20.00 GiB" in record.message


def test_an_implementation_that_raises_is_an_error():
    record = judge(implementation(prepare=raising(RuntimeError("no luck"))))
    assert record.status is Status.ERROR
    assert "RuntimeError: no luck" in record.message
    assert "itself" not in record.message


def test_laws():
    record = judge(implementation(), law(), seed=2)
    assert (record.status, record.case, record.purpose) == (Status.PASSED, "law: doubles one", "law")
    assert (record.error, record.bound, record.p_value, record.seed) == (0.0, 0.5, 0.1, 2)
    assert (record.sizes, record.dtype, record.measurements, record.untimed) == ({}, "", (), "")
    record = judge(implementation(factor=3.0), law())
    assert (record.status, record.message) == (Status.WRONG_LAW, "got 3.0")


def test_data_are_drawn_from_consecutive_seeds(monkeypatch):
    seen = []

    def check_case(operation, implementation, case, device, seeds, allocate):
        seen.extend(seeds)
        return Agreement(Status.PASSED)

    monkeypatch.setattr(trial, "check_case", check_case)
    judge(implementation(), seed=7, draws=3)
    assert seen == [7, 8, 9]
    judge(implementation(backend="triton"), seed=7, draws=3)
    assert seen == [7, 8, 9, 7], "one seed if it is interpreted"


@pytest.mark.parametrize("subject", [BENCH, law()])
def test_ctrl_c_passes_through(subject):
    with pytest.raises(KeyboardInterrupt):
        judge(interrupting(), subject)


def test_the_device_is_passed_on_unchanged():
    record = judge(implementation(unavailable=lambda device: str(device)), device=torch.device("cuda", 1))
    assert record.message == "cuda:1"


def test_phases_are_announced():
    phases = []
    one_trial = Trial(step(implementation()), CPU, phases.append)
    one_trial.judge(draws=1)
    assert phases == ["check", "compile", "check"]
    one_trial.start("hot")
    assert phases[3:] == ["compile", "warm-up"]
    blocks = [one_trial.take_block()]
    while blocks[-1].more:
        blocks.append(one_trial.take_block())
    measurement = one_trial.finish()
    assert set(phases[5:-1]) == {"sampling"}
    assert phases[-1] == "check"
    counts = [block.samples for block in blocks]
    assert counts == sorted(set(counts))
    assert len(measurement.samples) == counts[-1]
    assert (measurement.mode, measurement.unit) == ("hot", "elements")
    assert measurement.items_per_second == pytest.approx(64 / measurement.median)


def timed(one_trial):
    one_trial.start("cold")
    one_trial.take_block()
    return one_trial.finish()


@pytest.mark.parametrize("part", ["start", "take_block", "finish"])
@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RuntimeError("no luck"), Status.ERROR, "agrees, but timing it raised RuntimeError: no luck"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            Status.OUT_OF_MEMORY,
            "agrees, but timing it raised OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        ),
        (
            FailedWhileTimed(Agreement(Status.WRONG_VALUES, "y is off", 3.0, 1.0)),
            Status.WRONG_VALUES,
            "while timed: y is off",
        ),
    ],
)
def test_a_failure_during_timing_is_recorded(monkeypatch, part, error, status, words):
    class Stopwatch:
        samples, noise = (1.0,), 0.1

        def __init__(self, *arguments, **named):
            if part == "start":
                raise error

        def warm_up(self):
            pass

        def take_block(self):
            if part == "take_block":
                raise error
            return False

        def finish(self):
            raise error

    monkeypatch.setattr(trial, "Stopwatch", Stopwatch)
    one_trial = Trial(step(implementation()), CPU)
    one_trial.judge(draws=1)
    with pytest.raises(TrialFailed) as caught:
        timed(one_trial)
    assert caught.value.record.status is status
    assert words in caught.value.record.message
    assert caught.value.record.measurements == ()
