import pytest
import torch
from boltzbench.harness import Agreement, Status, session
from boltzbench.harness.session import INTERPRETED, Step, plan, run_step
from boltzbench.harness.timing import AgreementLost
from boltzbench.harness.types import Measurement
from fakes import CPU, case, implementation, interrupting, law, operation

MEASUREMENT = Measurement("cpu", "hot", (1.0,), 1.0, 1.0, 1.0, 5.0, "elements", 8.0, 9.0)
BENCH = case(64, purpose="bench")


@pytest.fixture
def clock(monkeypatch):
    """Counts measurements instead of making them."""
    cases = []

    def measure(operation, implementation, case, device):
        cases.append(case)
        return MEASUREMENT

    monkeypatch.setattr(session, "measure", measure)
    return cases


def run(implementation, subject=BENCH, *, of=None, seed=0, draws=1, timed=True, device=CPU):
    return run_step(Step(of or operation(), implementation, subject, seed), device, draws=draws, timed=timed)


def raising(error):
    def function(*arguments, **named):
        raise error

    return function


def labels(steps):
    return [(step.operation.name, step.label, step.implementation.name) for step in steps]


def test_a_plan_goes_case_by_case_then_law_by_law():
    selection = [
        (operation(laws=(law(),)), [implementation("a"), implementation("b")]),
        (operation("other"), [implementation("a")]),
    ]
    assert labels(plan(selection, ("check", "law"))) == [
        ("double", "n=3 float32", "a"),
        ("double", "n=3 float32", "b"),
        ("double", "outliers n=7 float32", "a"),
        ("double", "outliers n=7 float32", "b"),
        ("double", "law: doubles one", "a"),
        ("double", "law: doubles one", "b"),
        ("other", "n=3 float32", "a"),
        ("other", "outliers n=7 float32", "a"),
    ]


@pytest.mark.parametrize(("preset", "sizes"), [("smoke", [64, 32]), ("quick", [64, 32]), ("full", [64, 128, 32])])
def test_a_preset_contains_the_smaller_ones(preset, sizes):
    steps = plan([(operation(), [implementation()])], ("bench", "real"), preset)
    assert [step.subject.sizes["n"] for step in steps] == sizes
    assert {step.purpose for step in steps} == {"bench", "real"}


def test_seeds_are_the_cases_own_unless_one_is_given():
    selection = [(operation(cases=[case(3, seed=5)], laws=(law(),)), [implementation()])]
    assert [step.seed for step in plan(selection, ("check", "law"))] == [5, 0]
    assert [step.seed for step in plan(selection, ("check", "law"), seed=9)] == [9, 9]


def test_a_check_is_not_timed(clock):
    record = run(implementation(plugin="p (d 1)"), case(3), seed=4)
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
    assert record.measurements == ()
    assert record.untimed == ""
    assert clock == []


@pytest.mark.parametrize("purpose", ["bench", "real"])
def test_what_agrees_is_timed(clock, purpose):
    record = run(implementation(), case(64, purpose=purpose), seed=3)
    assert record.measurements == (MEASUREMENT,)
    assert [each.seed for each in clock] == [3]
    assert run(implementation(), case(64, purpose=purpose), timed=False).measurements == ()
    assert len(clock) == 1


def test_what_does_not_agree_is_not_timed(clock):
    record = run(implementation(factor=2.1))
    assert record.status is Status.WRONG_VALUES
    assert record.error > record.bound
    assert "y: 64 of 64 elements are off" in record.message
    assert record.measurements == ()
    assert clock == []


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_what_is_interpreted_is_not_timed(clock, backend):
    record = run(implementation(backend=backend))
    assert record.status is Status.PASSED
    assert record.untimed == INTERPRETED
    assert record.measurements == ()
    assert clock == []


def test_unavailable_says_why(clock):
    record = run(implementation(unavailable=lambda device: f"needs more than a {device.type}"))
    assert (record.status, record.message) == (Status.UNAVAILABLE, "needs more than a cpu")
    assert clock == []


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit("broken")])
def test_unavailable_that_raises_is_an_error(error):
    record = run(implementation(unavailable=raising(error)))
    assert record.status is Status.ERROR
    assert f"unavailable() raised {type(error).__name__}: broken (test_session.py:" in record.message


@pytest.mark.parametrize("part", ["make_inputs", "make_outputs", "reference"])
@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit("broken")])
def test_an_operation_that_raises_spoils_only_its_own_case(part, error):
    record = run(implementation(), of=operation(**{part: raising(error)}))
    assert record.status is Status.ERROR
    assert f"the check of operation double itself raised {type(error).__name__}: broken" in record.message


def test_an_implementation_that_raises_is_an_error():
    record = run(implementation(prepare=raising(RuntimeError("no luck"))))
    assert record.status is Status.ERROR
    assert "RuntimeError: no luck" in record.message
    assert "itself" not in record.message


def test_a_kernel_that_fails_while_timed_is_an_error(clock, monkeypatch):
    monkeypatch.setattr(session, "measure", raising(RuntimeError("out of memory")))
    record = run(implementation())
    assert record.status is Status.ERROR
    assert "agrees, but timing it raised RuntimeError: out of memory" in record.message
    assert record.measurements == ()


def test_a_kernel_that_is_wrong_while_timed_keeps_the_verdict(monkeypatch):
    verdict = Agreement(Status.WRONG_VALUES, "y is off", error=3.0, bound=1.0)
    monkeypatch.setattr(session, "measure", raising(AgreementLost(verdict)))
    record = run(implementation())
    assert (record.status, record.error, record.bound) == (Status.WRONG_VALUES, 3.0, 1.0)
    assert record.message == "wrong_values while timed: y is off"


def test_laws():
    record = run(implementation(), law(), seed=2)
    assert (record.status, record.case, record.purpose) == (Status.PASSED, "law: doubles one", "law")
    assert (record.error, record.bound, record.p_value, record.seed) == (0.0, 0.5, 0.1, 2)
    assert (record.sizes, record.dtype, record.measurements, record.untimed) == ({}, "", (), "")
    record = run(implementation(factor=3.0), law())
    assert (record.status, record.message) == (Status.WRONG_LAW, "got 3.0")


def test_data_are_drawn_from_consecutive_seeds(monkeypatch):
    seen = []

    def check_case(operation, implementation, case, device, seeds):
        seen.extend(seeds)
        return Agreement(Status.PASSED)

    monkeypatch.setattr(session, "check_case", check_case)
    run(implementation(), seed=7, draws=3)
    assert seen == [7, 8, 9]


@pytest.mark.parametrize("subject", [BENCH, law()])
def test_ctrl_c_passes_through(subject):
    with pytest.raises(KeyboardInterrupt):
        run(interrupting(), subject)


def test_a_real_measurement():
    record = run(implementation())
    assert record.status is Status.PASSED
    assert record.measurements[0].unit == "elements"
    assert record.measurements[0].median > 0
    assert len(record.measurements[0].samples) >= 3
    assert record.measurements[0].items_per_second == pytest.approx(64 / record.measurements[0].median)


def test_the_device_is_passed_on_as_it_was_given():
    record = run(implementation(unavailable=lambda device: str(device)), device=torch.device("cuda", 1))
    assert record.message == "cuda:1"
