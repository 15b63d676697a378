"""What is known of every timed launch: from fingerprints, and from the few that are judged in full."""

from collections.abc import Iterable
from itertools import count
from typing import Any

import pytest
import torch
from boltzbench.harness.agreement.agreement import Rejected
from boltzbench.harness.api.operations import Inputs, Tensors
from boltzbench.harness.timing.launch_audit import MOST_LOOKS, AgreementLost, Watch
from support.small_operations import CPU, Body, case, implementation, scale_rightly, scale_with

SLOPPY = scale_with(bound=1e-5)
"""So that more than one result is right."""


def otherwise(inputs: Inputs, outputs: Tensors) -> None:
    """Right, but not bit for bit as `scale_rightly`."""
    scale_rightly(inputs, outputs)
    outputs["y"].mul_(1 + 2.0**-23)


def wrongly(inputs: Inputs, outputs: Tensors) -> None:
    outputs["y"].zero_()


def not_at_all(inputs: Inputs, outputs: Tensors) -> None:
    pass


def watch_of(*bodies: Body, sets: int = 1) -> Watch:
    """Of an implementation whose launches do ``bodies`` one after the other."""
    turns = iter(bodies)
    watch = Watch(SLOPPY, implementation(lambda inputs, outputs: next(turns)(inputs, outputs)), case(), CPU)
    for _ in range(1, sets):
        watch.add_set()
    return watch


def launch(watch: Watch, times: int) -> None:
    for _ in range(times):
        watch.restore()
        watch.launch()
        watch.fingerprint()


def rightly(times: int) -> Iterable[Body]:
    return [scale_rightly] * times


def test_launches_that_all_give_the_judged_result_are_beyond_suspicion() -> None:
    watch = watch_of(*rightly(10))
    launch(watch, 5)
    watch.look()
    launch(watch, 5)
    watch.look()
    assert not watch.suspects
    assert watch.suspicion is None


def test_another_result_that_is_gone_stays_a_suspicion() -> None:
    watch = watch_of(scale_rightly, otherwise, *rightly(8 + MOST_LOOKS))
    launch(watch, 10)
    watch.look()
    for _ in range(MOST_LOOKS):
        assert watch.suspects
        launch(watch, 1)
        watch.look()
    assert not watch.suspects
    assert watch.suspicion == "1 timed launches gave other results than those that were judged"


def test_another_result_that_comes_again_and_is_right_too_explains_the_first() -> None:
    watch = watch_of(scale_rightly, otherwise, scale_rightly, otherwise, otherwise)
    launch(watch, 3)
    watch.look()
    assert watch.suspects
    launch(watch, 1)
    watch.look()
    assert not watch.suspects
    assert watch.suspicion is None


def test_another_result_that_is_wrong_is_told_with_the_seed_of_its_values() -> None:
    watch = watch_of(scale_rightly, scale_rightly, wrongly)
    watch.new_values()
    launch(watch, 2)
    watch.look()
    launch(watch, 1)
    with pytest.raises(AgreementLost, match=r"^wrong_values while timed: y: 35 of 35 elements are off.*\(seed \d+\)$"):
        watch.look()


@pytest.mark.parametrize("varies", [False, True])
def test_skipped_work_is_found_whether_results_vary_or_not(varies: bool) -> None:
    first = [scale_rightly, otherwise] if varies else list(rightly(2))
    watch = watch_of(*first, not_at_all, scale_rightly)
    launch(watch, 1)
    watch.look()
    launch(watch, 1)
    watch.look()
    launch(watch, 2)
    with pytest.raises(Rejected, match="a timed launch left output 'y' as it found it: it skipped its work"):
        watch.look()


def test_every_set_is_watched() -> None:
    watch = watch_of(*rightly(4), scale_rightly, not_at_all, scale_rightly, scale_rightly, sets=4)
    launch(watch, 1)
    watch.look()
    launch(watch, 1)
    with pytest.raises(Rejected, match="it skipped its work"):
        watch.look()


def test_what_is_left_at_the_end_is_judged_if_it_was_not() -> None:
    judged = count()

    def reference(inputs: Inputs, outputs: Tensors) -> Any:
        next(judged)
        return SLOPPY.reference(inputs, outputs)

    watch = Watch(scale_with(reference=reference), implementation(scale_rightly), case(), CPU)
    launch(watch, 3)
    watch.look()
    watch.judge_last()
    assert next(judged) == 1
    launch(watch, 3)
    watch.look()
    watch.judge_last()
    assert next(judged) == 3


def test_new_values_are_others_in_the_same_place_and_the_same_values_the_same() -> None:
    seen: list[tuple[int, torch.Tensor]] = []

    def note(inputs: Inputs, outputs: Tensors) -> None:
        seen.append((inputs["x"].data_ptr(), inputs["x"].clone()))
        scale_rightly(inputs, outputs)

    watch = watch_of(note, note, note)
    launch(watch, 1)
    watch.new_values()
    launch(watch, 1)
    watch.same_values()
    launch(watch, 1)
    places, values = zip(*seen, strict=True)
    assert len(set(places)) == 1
    assert not torch.equal(values[0], values[1])
    assert torch.equal(values[1], values[2])


def test_a_replay_that_writes_nothing_is_known() -> None:
    watch = watch_of(*rightly(4), sets=2)
    launch(watch, 1)
    assert watch.does_its_work(watch.launch)
    assert not watch.does_its_work(lambda: None)
