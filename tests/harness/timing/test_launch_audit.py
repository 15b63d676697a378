"""The audit of timed launches: fingerprints of all, and full checks of a few."""

from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest
import torch
from boltzbench.harness.agreement.agreement import Rejected
from boltzbench.harness.api.operations import Inputs, Tensors
from boltzbench.harness.timing.launch_audit import MOST_SINGLE_LAUNCHES, FailedWhileTimed, LaunchAudit
from support.small_operations import CPU, Body, case, implementation, scale_rightly, scale_with

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


def audit_of(*bodies: Body, sets: int = 1) -> LaunchAudit:
    """The audit of an implementation with launches that run ``bodies`` one after the other."""
    turns = iter(bodies)
    audit = LaunchAudit(SLOPPY, implementation(lambda inputs, outputs: next(turns)(inputs, outputs)), case(), CPU)
    for _ in range(1, sets):
        audit.add_set()
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
    audit.write_new_values()
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
    with pytest.raises(Rejected, match="it skipped its work"):
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


def test_new_and_rewritten_values_lie_in_the_same_memory() -> None:
    seen: list[tuple[int, torch.Tensor]] = []

    def note(inputs: Inputs, outputs: Tensors) -> None:
        seen.append((inputs["x"].data_ptr(), inputs["x"].clone()))
        scale_rightly(inputs, outputs)

    audit = audit_of(note, note, note)
    launch(audit, 1)
    audit.write_new_values()
    launch(audit, 1)
    audit.rewrite_values()
    launch(audit, 1)
    places, values = zip(*seen, strict=True)
    assert len(set(places)) == 1
    assert not torch.equal(values[0], values[1])
    assert torch.equal(values[1], values[2])


def test_a_replay_that_writes_nothing_is_detected() -> None:
    audit = audit_of(*rightly(4), sets=2)
    launch(audit, 1)
    assert audit.writes_every_output(audit.launch)
    assert not audit.writes_every_output(lambda: None)
