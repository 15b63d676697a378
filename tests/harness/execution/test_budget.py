"""The order of the steps of `run`, and that they end within the budget."""

import time

import pytest
from boltzbench.harness import Sampler, Target
from boltzbench.harness.api.messages import UnknownName
from boltzbench.harness.api.operations import Agreement, Status
from boltzbench.harness.discovery.time_limit import TookTooLong
from boltzbench.harness.execution.budget import Unit, by_value, require_known, run_within
from boltzbench.harness.execution.plan import plan
from boltzbench.harness.execution.process import seconds_since_start
from boltzbench.harness.execution.trial import record_of
from support.fakes import case, implementation, law, operation


def machine(name):
    """An operation with check cases of three sizes, a law, and bench cases; a torch, a Triton and a CUDA C version."""
    sizes = [case(9), case(3), case(0), case(5)]
    benches = [case(n, purpose="bench", preset=preset) for n, preset in ((1, "smoke"), (64, "quick"), (99, "quick"))]
    own = operation(name, cases=[*sizes, *benches], laws=(law(),))
    backends = {"torch": "torch", "cupy": "cupy", "triton": "triton"}
    return own, [implementation(each, backend=backend, of=name) for each, backend in backends.items()]


def sampler(name):
    return Sampler(name, "", "", "torch", lambda *given: {}, lambda *given: {})


def target(name):
    return Target(name, "", "", "", "continuous", (1,), "float32", {}, lambda x: x, lambda *given: None, (1.0,))


def planned(names, first=()):
    selection = [machine(name) for name in names]
    return by_value(plan(selection, ("check", "law")), plan(selection, ("bench",), "quick"), first)


def words(unit):
    if not unit.steps:
        return unit.kind
    step = unit.steps[0]
    return f"{unit.kind} {step.operation.name} {step.implementation.name} {step.label.removesuffix(' float32')}"


def test_one_case_of_everything_comes_before_second_cases():
    units = planned(["a", "b"], first=["b n=99"])
    assert [words(unit) for unit in units if unit.round == 0] == [
        "check b cupy n=3",
        "check b triton n=3",
        "check a cupy n=3",
        "check a triton n=3",
        "limits",
        "bench b torch n=99",
        "bench a torch n=64",
        "memcheck b cupy n=5",
        "memcheck b triton n=5",
    ], "the smallest case without an empty dimension; of bench the named case, and none of the preset smoke"
    assert [words(unit) for unit in units if unit.round == 1 and "triton" not in words(unit)] == [
        "check b cupy law: doubles one",
        "check b cupy n=0",
        "check a cupy law: doubles one",
        "check a cupy n=0",
        "bench b torch n=64",
        "bench b torch n=1",
        "bench a torch n=99",
        "bench a torch n=1",
        "memcheck a cupy n=5",
        "racecheck b cupy n=5",
    ]
    assert [unit.round for unit in units] == sorted(unit.round for unit in units)
    (bench,) = (unit for unit in units if words(unit) == "bench a torch n=64")
    assert [step.implementation.name for step in bench.steps] == ["torch", "cupy", "triton"], "timed in turn"


def test_every_step_is_planned_once():
    units = planned(["a", "b"])
    checks = [words(unit) for unit in units if unit.kind == "check"]
    assert len(set(checks)) == len(checks) == 2 * 2 * 5
    assert sum(len(unit.steps) for unit in units if unit.kind == "bench") == 2 * 3 * 3


@pytest.mark.parametrize(
    ("first", "message"),
    [("c", "unknown operation 'c'"), ("a n=4", "unknown case of a 'n=4'")],
)
def test_an_unknown_operation_or_case_to_begin_with(first, message):
    with pytest.raises(UnknownName, match=message):
        require_known([first], {"a": machine("a")[0]})
    require_known(["a", "a n=9"], {"a": machine("a")[0]})


class Session:
    """Units that take ``seconds`` of a clock which only they advance."""

    def __init__(self, seconds):
        self.seconds, self.time = seconds, 1000.0
        self.ran, self.kept, self.left_out = [], [], {}

    def carry_out(self, unit, keep):
        self.ran.append(words(unit))
        keep(record_of(unit.steps[0], Agreement(Status.PASSED)))
        seconds = self.seconds(unit)
        if self.time + seconds > self.end:  # what the alarm does
            self.time = self.end
            raise TookTooLong
        self.time += seconds

    def run(self, units, seconds):
        self.end = self.time + seconds
        run_within(
            units,
            seconds,
            self.carry_out,
            self.kept.append,
            lambda unit, why: self.left_out.update({words(unit): why}),
            now=lambda: self.time,
        )
        assert self.time <= self.end
        return self


def checks_and_benches():
    own, implementations = machine("a")
    steps = plan([(own, implementations[1:2])], ("check",))
    check = [Unit("check", (step,)) for step in steps]
    bench = [Unit("bench", (step,)) for step in plan([(own, implementations[1:2])], ("bench",))]
    return check, bench


def test_a_step_that_would_not_fit_is_left_out_and_the_next_kind_gets_its_chance():
    check, bench = checks_and_benches()
    session = Session(lambda unit: {"check": 2.0, "bench": 10.0}[unit.kind])
    session.run([*check[:2], *bench, *check[2:]], 33.0)
    assert session.ran == [words(unit) for unit in (*check[:2], *bench[:2], *check[2:])]
    assert session.left_out == {words(bench[2]): "needs about 10 s, with 9 s left"}
    assert session.time == 1000.0 + 2 * 4 + 10 * 2


def test_the_estimate_is_the_longest_time_of_the_same_kernel():
    check, _ = checks_and_benches()
    session = Session(lambda unit: 1.0 if unit is check[0] else 5.0 if unit is check[1] else 1.0)
    session.run(check, 11.5)
    assert session.left_out == {words(check[3]): "needs about 5 s, with 4.5 s left"}


def test_a_step_that_takes_longer_than_expected_is_stopped_with_the_budget():
    check, _ = checks_and_benches()
    session = Session(lambda unit: 100.0 if unit is check[2] else 1.0)
    session.run(check, 5.0)
    assert session.left_out == {
        words(check[2]): "was stopped after 3 s, when the budget was spent",
        words(check[3]): "needs about 3 s, with 0 s left",
    }
    assert len(session.kept) == 3, "what the stopped step had found"


def test_a_step_that_hangs_is_stopped():
    (first, *_), _ = checks_and_benches()
    left_out = []
    begin = time.monotonic()
    run_within([first], 0.2, lambda unit, keep: time.sleep(30), print, lambda *what: left_out.append(what))
    assert time.monotonic() - begin < 5
    assert [unit for unit, _ in left_out] == [first]


def test_an_interrupted_unit_keeps_its_records():
    check, _ = checks_and_benches()
    kept = []

    def interrupted(unit, keep):
        keep(unit)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_within(check, 10.0, interrupted, kept.append, print)
    assert kept == check[:1]


def test_the_age_of_a_process_grows_with_time():
    earliest, before, begin = time.monotonic(), seconds_since_start(), time.monotonic()
    time.sleep(0.1)
    end, after, latest = time.monotonic(), seconds_since_start(), time.monotonic()
    assert end - begin - 0.02 <= after - before <= latest - earliest + 0.02
    assert before > 0.5, "the imports took longer"


def test_of_a_stopped_unit_the_steps_without_a_record_are_left_out():
    own, implementations = machine("a")
    steps = tuple(plan([(own, implementations)], ("check",)))
    left_out = []

    def carry_out(unit, keep):
        keep(record_of(unit.steps[1], Agreement(Status.PASSED)))
        raise TookTooLong

    run_within([Unit("check", steps)], 5.0, carry_out, lambda record: None, lambda unit, why: left_out.append(unit))
    (found,) = left_out
    assert found.steps == (steps[0], *steps[2:])


def test_on_a_cpu_the_checks_of_an_operation_and_several_samplers_are_done_at_once():
    selection = [machine(name) for name in ("a", "b")]
    pairs = [(sampler(name), target(of)) for name in ("x", "y", "z") for of in ("p", "q")]
    checks = plan(selection, ("check", "law"))
    units = by_value(checks, plan(selection, ("bench",), "smoke"), [], pairs, at_once=2)
    first = [unit for unit in units if unit.round == 0]
    assert [(unit.kind, len(unit.steps)) for unit in first if unit.kind in ("check", "limits", "bench")] == [
        ("check", 2), ("check", 2), ("limits", 0), ("bench", 3), ("bench", 3)
    ]  # fmt: skip
    judged = [[(one.name, of.name) for one, of in unit.pairs] for unit in units if unit.kind == "validate"]
    assert judged == [[("x", "p"), ("y", "p")], [("z", "p")], [("x", "q"), ("y", "q")], [("z", "q")]]
    assert sum(len(unit.steps) for unit in units if unit.kind == "check") == 2 * 2 * 5
    alone = by_value(checks, [], [], pairs)
    assert {len(unit.steps) for unit in alone if unit.kind == "check"} == {1}
    assert {len(unit.pairs) for unit in alone if unit.kind == "validate"} == {1}
