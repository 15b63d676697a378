"""The audit of timed launches: fingerprints of all, and full checks of a few."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import pytest
import torch
from boltzbench.harness.agreement.agreement import Rejected, check_case
from boltzbench.harness.api.operations import Case, Expected, Inputs, Status, Tensors
from boltzbench.harness.timing.launch_audit import MOST_SINGLE_LAUNCHES, VALUES, FailedWhileTimed, LaunchAudit
from support.small_operations import CPU, Body, case, implementation, prepared_by, scale_rightly, scale_with

SLOPPY = scale_with(bound=1e-5)
"""Its bound allows more than one result."""


def otherwise(inputs: Inputs, outputs: Tensors) -> None:
    """Right, but not bitwise equal to `scale_rightly`."""
    scale_rightly(inputs, outputs)
    outputs["y"].mul_(1 + 2.0**-23)


def wrongly(inputs: Inputs, outputs: Tensors) -> None:
    outputs["y"].zero_()


def not_at_all(inputs: Inputs, outputs: Tensors) -> None:
    pass


def audit_of(*bodies: Body, sets: int = 1, values: int = 1) -> LaunchAudit:
    """The audit of an implementation with launches that run ``bodies`` one after the other, on the same values."""
    turns = iter(bodies)
    audit = LaunchAudit(SLOPPY, implementation(lambda inputs, outputs: next(turns)(inputs, outputs)), case(), CPU)
    for _ in range(1, sets):
        audit.add_set()
    if values == 1:
        del audit._held[1:], audit._new[:]
    return audit


def launch(audit: LaunchAudit, times: int) -> None:
    for _ in range(times):
        audit.restore()
        audit.launch()
        audit.fingerprint()


def rightly(times: int) -> Iterable[Body]:
    return [scale_rightly] * times


def test_launches_with_the_checked_result_raise_no_suspicion() -> None:
    audit = audit_of(*rightly(10))
    launch(audit, 5)
    audit.compare()
    launch(audit, 5)
    audit.compare()
    assert not audit.is_suspicious
    assert audit.suspicion is None


def test_another_result_that_never_comes_again_stays_a_suspicion() -> None:
    audit = audit_of(scale_rightly, otherwise, *rightly(8 + MOST_SINGLE_LAUNCHES))
    launch(audit, 10)
    audit.compare()
    for _ in range(MOST_SINGLE_LAUNCHES):
        assert audit.is_suspicious
        launch(audit, 1)
        audit.compare()
    assert not audit.is_suspicious
    assert audit.suspicion == "1 timed launches gave other results than those that were checked in full"


def test_another_result_that_comes_again_and_is_right_too_explains_the_first() -> None:
    audit = audit_of(scale_rightly, otherwise, scale_rightly, otherwise, otherwise)
    launch(audit, 3)
    audit.compare()
    assert audit.is_suspicious
    launch(audit, 1)
    audit.compare()
    assert not audit.is_suspicious
    assert audit.suspicion is None


def test_another_result_that_is_wrong_is_reported_with_the_seed_of_its_values() -> None:
    audit = audit_of(scale_rightly, scale_rightly, wrongly)
    launch(audit, 2)
    audit.compare()
    launch(audit, 1)
    with pytest.raises(FailedWhileTimed, match=r"^wrong_values while timed: y: 35 of 35 .* are off.*\(seed \d+\)$"):
        audit.compare()


@pytest.mark.parametrize("varies", [False, True])
def test_skipped_work_is_found_whether_results_vary_or_not(varies: bool) -> None:
    first = [scale_rightly, otherwise] if varies else list(rightly(2))
    audit = audit_of(*first, not_at_all, scale_rightly)
    launch(audit, 1)
    audit.compare()
    launch(audit, 1)
    audit.compare()
    launch(audit, 2)
    with pytest.raises(Rejected, match="a timed launch left output 'y' as it found it: it skipped its work"):
        audit.compare()


def test_every_set_is_audited() -> None:
    audit = audit_of(*rightly(4), scale_rightly, not_at_all, scale_rightly, scale_rightly, sets=4)
    launch(audit, 1)
    audit.compare()
    launch(audit, 1)
    with pytest.raises(FailedWhileTimed, match="was never written"):
        audit.compare()


def test_the_last_launch_is_checked_in_full_once() -> None:
    judged = count()

    def reference(inputs: Inputs, outputs: Tensors) -> Any:
        next(judged)
        return SLOPPY.reference(inputs, outputs)

    audit = LaunchAudit(scale_with(reference=reference), implementation(scale_rightly), case(), CPU)
    launch(audit, 3)
    audit.compare()
    audit.judge_last()
    assert next(judged) == 1
    launch(audit, 3)
    audit.compare()
    audit.judge_last()
    assert next(judged) == 3


def test_every_launch_has_other_values_in_the_same_memory_and_new_ones_come_up() -> None:
    seen: list[tuple[int, float]] = []

    def note(inputs: Inputs, outputs: Tensors) -> None:
        seen.append((inputs["x"].data_ptr(), float(inputs["x"][0, 0])))
        scale_rightly(inputs, outputs)

    audit = audit_of(*[note] * 40, values=VALUES)
    known = {float(each.inputs["x"][0, 0]) for each in audit._held}
    assert len(known) == 2
    for _ in range(4):
        audit.begin_block(10)
        launch(audit, 10)
        on_new = audit.compare()
        new = {value for _, value in seen} - known
        assert sum(on_new) == len(new)
        known |= new
        audit.draw()
    places, values = zip(*seen, strict=True)
    assert len(set(places)) == 1
    assert len(known) == VALUES + 3
    assert all(one != other for one, other in pairwise(values))


def test_numbers_that_move_on_are_read_from_the_inputs_of_prepare() -> None:
    """y = step x; only the mapping that `prepare` was given says which step it is."""

    def make_inputs(case: Case, device: torch.device) -> Inputs:
        shift = case.seed % (1 << 20) / (1 << 20)
        step = 3 if case.seed == 3 else 5 + case.seed % 1000
        return {"x": torch.arange(1.0, 4.0) + shift, "factor": 1.0, "step": step}

    def stepping(inputs: Inputs, outputs: Tensors) -> None:
        torch.mul(inputs["x"], float(inputs["step"]), out=outputs["y"])

    def prepare(inputs: Inputs, outputs: Tensors) -> Any:
        return lambda step=inputs["step"]: {"y": inputs["x"] * float(step)}

    moves = scale_with(
        make_inputs=make_inputs, moving=("step",), bound=1.0,
        reference=lambda inputs, outputs: {"y": Expected(inputs["x"].double() * inputs["step"], 1.0)},
    )  # fmt: skip
    assert check_case(moves, implementation(stepping), case(), CPU, (3,)).passed
    assert check_case(moves, prepared_by(prepare), case(), CPU, (3,)).status is Status.WRONG_VALUES
    audit = LaunchAudit(moves, implementation(stepping), case(), CPU)
    assert audit.host_reads_numbers
    for _ in range(3):
        audit.begin_block(6)
        launch(audit, 6)
        audit.compare()
    audit = LaunchAudit(moves, prepared_by(prepare), replace(case(), seed=3), CPU)
    launch(audit, 1)  # not on the values that it was prepared on
    with pytest.raises(FailedWhileTimed, match="3 of 3 elements are off"):
        audit.compare()


def test_parameters_stay_and_other_tensors_change() -> None:
    def make_inputs(case: Case, device: torch.device) -> Inputs:
        x, w = torch.randn(2, 3, generator=torch.Generator().manual_seed(case.seed))
        return {"x": x, "w": w, "factor": 1.0}

    seen: list[tuple[float, float]] = []

    def multiply(inputs: Inputs, outputs: Tensors) -> None:
        seen.append((float(inputs["x"][0]), float(inputs["w"][0])))
        torch.mul(inputs["x"], inputs["w"], out=outputs["y"])

    operation = scale_with(
        make_inputs=make_inputs, parameters=("w",),
        reference=lambda inputs, outputs: {"y": Expected(inputs["x"].double() * inputs["w"].double(), 1e-6)},
    )  # fmt: skip
    audit = LaunchAudit(operation, implementation(multiply), case(), CPU)
    audit.begin_block(10)
    launch(audit, 10)
    audit.compare()
    assert len({x for x, _ in seen}) > 2
    assert len({w for _, w in seen}) == 1


def test_inputs_that_do_not_depend_on_the_seed_are_refused() -> None:
    constant = scale_with(make_inputs=lambda case, device: {"x": torch.ones(5, 7), "factor": 3.0})
    with pytest.raises(ValueError, match="the same tensors for every seed"):
        LaunchAudit(constant, implementation(scale_rightly), case(), CPU)
    assert check_case(constant, implementation(scale_rightly), case(), CPU, (0,)).passed
    with pytest.raises(ValueError, match="the same tensors for every seed"):
        check_case(constant, implementation(scale_rightly), replace(case(), purpose="real"), CPU, (0,))


def test_a_replay_that_writes_nothing_is_detected() -> None:
    audit = audit_of(*rightly(4), sets=2)
    launch(audit, 1)
    assert audit.writes_every_output(audit.launch)
    assert not audit.writes_every_output(lambda: None)
