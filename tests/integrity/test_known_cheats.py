"""Known ways to get a better time than the work deserves: each is rejected or flagged, and honest work is not.

A cheat is written as somebody would write it who knows how kernels are checked: it is right as long as it takes to be
checked, where that is possible at all.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from random import SystemRandom
from typing import Any

import pytest
import torch
from boltzbench.harness.api.operations import (
    Expected,
    Inputs,
    Launch,
    Status,
    Tensors,
)
from boltzbench.harness.timing import launch_audit, stopwatch
from boltzbench.harness.timing.launch_audit import MOST_JUDGED, FailedWhileTimed
from boltzbench.harness.timing.stopwatch import Stopwatch
from boltzbench.harness.timing.work import Work
from support.attacks import (
    CHECKED,
    QUICK,
    SCALE,
    FakeTime,
    QuietClock,
    SteadyClock,
    honest_for,
    outcome,
    rejected_while_timed,
)
from support.small_operations import (
    CPU,
    KICK,
    Body,
    case,
    implementation,
    kick_rightly,
    measure,
    prepared_by,
    scale_rightly,
    scale_with,
)
from torch import Tensor


def nothing(inputs: Inputs, outputs: Tensors) -> None:
    pass


# Honest -------------------------------------------------------------------------------------------------------


def scale_into_its_own(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * inputs["factor"]}


def scale_in_another_order_each_time() -> Body:
    """Right within the bound, but different each time, like sums of atomics."""
    generator = torch.Generator().manual_seed(0)

    def body(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        outputs["y"].add_(1e-7 * torch.rand(outputs["y"].shape, generator=generator))

    return body


def scale_otherwise_now_and_then() -> Body:
    """Two right results, one of them rare."""
    counter = count()

    def body(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        if next(counter) % 5 == 4:
            outputs["y"].mul_(1 + 2.0**-23)

    return body


@pytest.mark.parametrize("mode", ["cold", "hot"])
@pytest.mark.parametrize(
    "make",
    [lambda: scale_rightly, lambda: scale_into_its_own, scale_in_another_order_each_time, scale_otherwise_now_and_then],
    ids=["in the given outputs", "in its own", "never the same", "rarely another"],
)
def test_honest_work_passes_unflagged(make: Callable[[], Body], mode: str) -> None:
    found = outcome(implementation(make()), scale_with(bound=1e-5), mode=mode)
    assert found.agreement.passed, found.agreement.message
    assert found.suspicions == ()


def test_an_honest_state_advanced_in_place_passes_unflagged() -> None:
    found = outcome(implementation(kick_rightly), KICK, case("kick", atoms=6))
    assert found.agreement.passed, found.agreement.message
    assert found.suspicions == ()


# 1 to 14 ------------------------------------------------------------------------------------------------------


def test_no_op() -> None:
    assert "was never written" in outcome(implementation(nothing)).agreement.message
    message = rejected_while_timed(honest_for(CHECKED, nothing))
    assert "was never written" in message or "it skipped its work" in message


def test_no_op_on_a_state_advanced_in_place() -> None:
    kick = implementation(honest_for(CHECKED, nothing, at_first=kick_rightly))
    found = outcome(kick, KICK, case("kick", atoms=6), timed_only=True)
    assert found.agreement.status is Status.WRONG_VALUES


def test_stale_buffer() -> None:
    """Returns the previous results while torch's version counter says that the input was not written: it always was."""
    launches, computed = count(), count()

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        buffer, version = torch.empty_like(inputs["x"]), -1

        def launch() -> Tensors:
            nonlocal version
            next(launches)
            if inputs["x"]._version != version:
                next(computed)
                torch.mul(inputs["x"], inputs["factor"], out=buffer)
                version = inputs["x"]._version
            return {"y": buffer}

        return launch

    found = outcome(prepared_by(prepare), mode="hot")
    assert (found.agreement.passed, found.suspicions) == (True, ())
    assert next(launches) == next(computed) > 50


def test_zeroed_inputs() -> None:
    """Zeros make all later work cheaper."""

    def compute_then_zero(inputs: Inputs, outputs: Tensors) -> None:
        scale_rightly(inputs, outputs)
        inputs["x"].zero_()

    assert outcome(implementation(compute_then_zero)).agreement.status is Status.MODIFIED_INPUT
    found = outcome(implementation(honest_for(CHECKED, compute_then_zero)), timed_only=True)
    assert found.agreement.status in (Status.MODIFIED_INPUT, Status.WRONG_VALUES)


@dataclass
class Queue:
    """A simulated device with a current stream: `run` executes the queue in order."""

    waiting: list[Callable[[], object]] = field(default_factory=list)

    def run(self) -> None:
        for work in self.waiting:
            work()
        self.waiting.clear()


class QueueClock(QuietClock):
    """Enqueues a whole sample in the order of `CudaClock` before the device begins."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.queue = queue

    def sample(self, work: Work, count: int) -> list[float]:
        for _ in range(count):
            self.queue.waiting.append(work.restore)
            work.launch()
            self.queue.waiting.append(work.after)
            self.queue.run()
        return [1e-3] * count


def test_another_stream() -> None:
    """Work on a stream that does not wait for the current one runs while the host is still enqueuing."""
    queue = Queue()

    def on_the_current_stream(inputs: Inputs, outputs: Tensors) -> None:
        queue.waiting.append(lambda: scale_rightly(inputs, outputs))

    def timed(body: Body) -> None:
        prepare_only = Stopwatch(SCALE, implementation(body), case(), CPU, protocol=QUICK, clock=QueueClock(queue))
        prepare_only.warm_up()
        prepare_only.take_block()
        prepare_only.finish()

    timed(on_the_current_stream)
    with pytest.raises(FailedWhileTimed, match="was never written"):
        timed(scale_rightly)  # at once


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_another_stream_of_a_real_gpu() -> None:
    device = torch.device("cuda", 0)
    other = torch.cuda.Stream(device)

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        def launch() -> Tensors:
            with torch.cuda.stream(other):
                torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])
            return outputs

        return launch

    big = case(rows=4096, columns=4096)
    assert measure(SCALE, implementation(scale_rightly), big, device, protocol=QUICK).suspicions == ()
    with pytest.raises(FailedWhileTimed, match=r"never written|skipped its work|after the launch had ended|are off"):
        measure(SCALE, prepared_by(prepare), big, device, protocol=QUICK)


def test_a_thread() -> None:
    threads: list[threading.Thread] = []

    def later(inputs: Inputs, outputs: Tensors) -> None:
        def work() -> None:
            time.sleep(1e-3)
            scale_rightly(inputs, outputs)

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    try:
        rejected_while_timed(honest_for(CHECKED, later))
    finally:
        for thread in threads:
            thread.join()


def test_work_that_a_thread_finishes_after_the_clock_stops_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full check would find no fault, but the fingerprint dates from the moment when the clock stopped."""
    from boltzbench.harness.agreement.agreement import GuardedCall

    pending: list[Callable[[], None]] = []
    accept = GuardedCall.accept

    def accept_late(call: GuardedCall, result: Tensors) -> Tensors:
        for work in pending:
            work()
        return accept(call, result)

    def later(inputs: Inputs, outputs: Tensors) -> None:
        pending[:] = [lambda: scale_rightly(inputs, outputs)]

    monkeypatch.setattr(GuardedCall, "accept", accept_late)
    assert "the outputs changed after the launch had ended" in rejected_while_timed(honest_for(CHECKED, later))


def test_lazy_tensor() -> None:
    class Lazy(Tensor):
        """Computes when it is read."""

        compute: Callable[[], Tensor]

        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            known = [each.compute() if isinstance(each, Lazy) else each for each in args]
            return function(*known, **(kwargs or {}))

    def lazily(inputs: Inputs, outputs: Tensors) -> Tensors:
        lazy = torch.empty_like(outputs["y"]).as_subclass(Lazy)
        lazy.compute = lambda: inputs["x"] * inputs["factor"]
        return {"y": lazy}

    found = outcome(implementation(lazily)).agreement
    assert found.status is Status.ERROR
    assert "is not a dense tensor but Lazy" in found.message
    found = outcome(implementation(honest_for(CHECKED, lazily)), timed_only=True).agreement
    assert "is not a dense tensor but Lazy" in found.message


def test_patched_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        for name in ("perf_counter_ns", "monotonic_ns", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: 0)

        def launch() -> Tensors:
            scale_rightly(inputs, outputs)
            return outputs

        return launch

    measurement = measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=QuietClock())
    assert measurement.median > 0
    words = "functions that the harness relies on were replaced: "
    words += "time.perf_counter, time.perf_counter_ns, time.monotonic_ns"
    assert measurement.suspicions == (words,)


def test_one_of_two_clocks_slowed() -> None:
    honest = time.perf_counter_ns
    clock = QuietClock(lambda: honest() // 3, time.monotonic_ns)

    def slowly(inputs: Inputs, outputs: Tensors) -> None:
        time.sleep(5e-4)
        scale_rightly(inputs, outputs)

    found = outcome(implementation(slowly), clock=clock, mode="hot")
    assert any("two clocks disagree" in each for each in found.suspicions)


def test_output_cached_by_pointer() -> None:
    answers: dict[int, Tensor] = {}

    def from_cache(inputs: Inputs, outputs: Tensors) -> None:
        place = inputs["x"].data_ptr()
        if place not in answers:
            answers[place] = inputs["x"] * inputs["factor"]
        outputs["y"].copy_(answers[place])

    assert "new values in the same inputs" in outcome(implementation(from_cache)).agreement.message
    answers.clear()
    assert "are off" in rejected_while_timed(honest_for(CHECKED, from_cache))


@pytest.mark.parametrize("mode", ["cold", "hot"])
def test_output_cached_by_content(mode: str) -> None:
    """A hash of the input is cheaper than the work: 0.2 ms instead of 1 ms on a clock that only they advance."""
    host = FakeTime()
    answers: dict[bytes, Tensor] = {}

    def from_cache(inputs: Inputs, outputs: Tensors) -> None:
        host.spend(0.2e-3)
        digest = hashlib.sha256(inputs["x"].numpy().tobytes()).digest()
        if digest not in answers:
            host.spend(0.8e-3)
            answers[digest] = inputs["x"] * inputs["factor"]
        outputs["y"].copy_(answers[digest])

    found = outcome(implementation(from_cache), clock=QuietClock(host.read, host.read), mode=mode)
    assert found.agreement.passed
    (suspicion,) = found.suspicions
    assert suspicion == "the first launch on new values takes 5.00 times as long: results may be cached by content"


@pytest.mark.parametrize("mode", ["cold", "hot"])
def test_output_cached_by_content_inside_a_graph(mode: str) -> None:
    """The device keeps the results of each set's memory: 2 us instead of 42 us, four launches in a sample."""
    host = FakeTime()
    answers: dict[tuple[int, bytes], Tensor] = {}

    class GraphClock(QuietClock):
        def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
            return 4

        def capture(self, launch: Callable[[], object]) -> Callable[[], object]:
            launch()
            return launch

    def from_cache(inputs: Inputs, outputs: Tensors) -> None:
        host.spend(2e-6)
        key = inputs["x"].data_ptr(), hashlib.sha256(inputs["x"].numpy().tobytes()).digest()
        if key not in answers:
            host.spend(40e-6)
            answers[key] = inputs["x"] * inputs["factor"]
        outputs["y"].copy_(answers[key])

    found = outcome(implementation(from_cache), clock=GraphClock(host.read, host.read), mode=mode)
    assert found.agreement.passed
    (suspicion,) = found.suspicions
    assert suspicion == "the first launch on new values takes 21.00 times as long: results may be cached by content"


@pytest.mark.parametrize("batch", [2, 4, 7])
def test_batch_and_skip(batch: int) -> None:
    """One launch in ``batch`` does the work of all."""
    counter = count()

    def now_and_then(inputs: Inputs, outputs: Tensors) -> None:
        if next(counter) % batch == 0:
            scale_rightly(inputs, outputs)

    message = rejected_while_timed(honest_for(CHECKED, now_and_then))
    assert "it skipped its work" in message or "was never written" in message


def test_batch_and_skip_where_results_vary_anyway() -> None:
    """Fingerprints cannot be compared with a checked one, but unchanged outputs are still detected."""
    counter = count()
    honest = scale_in_another_order_each_time()

    def now_and_then(inputs: Inputs, outputs: Tensors) -> None:
        if next(counter) % 40 != 39:
            honest(inputs, outputs)

    sloppy = scale_with(bound=1e-5)
    message = rejected_while_timed(honest_for(CHECKED, now_and_then, at_first=honest), operation=sloppy)
    assert "it skipped its work" in message or "was never written" in message


def test_batch_and_skip_that_writes_dummy_values() -> None:
    """One launch in 40 writes neither the poison nor the right answer. The checked ones are probably right."""
    counter = count()

    def nearly_always(inputs: Inputs, outputs: Tensors) -> None:
        if next(counter) % 40 == 39:
            outputs["y"].zero_()
        else:
            scale_rightly(inputs, outputs)

    assert "are off" in rejected_while_timed(honest_for(CHECKED, nearly_always))


def test_half_precision_inside() -> None:
    def in_half(inputs: Inputs, outputs: Tensors) -> None:
        outputs["y"].copy_((inputs["x"].half() * inputs["factor"]).float())

    assert outcome(implementation(in_half)).agreement.status is Status.WRONG_VALUES
    assert "are off" in rejected_while_timed(honest_for(CHECKED, in_half))


def test_constant_output() -> None:
    def constant(inputs: Inputs, outputs: Tensors) -> None:
        outputs["y"].fill_(0.5)

    assert outcome(implementation(constant)).agreement.status is Status.WRONG_VALUES
    assert "are off" in rejected_while_timed(honest_for(CHECKED, constant))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_nan_in_the_expected_value(value: float) -> None:
    """Two draws, each with a reference conditioned on the implementation's other one: NaN explains NaN."""
    chain = scale_with(
        make_outputs=lambda inputs: {"one": torch.empty_like(inputs["x"]), "other": torch.empty_like(inputs["x"])},
        reference=lambda inputs, outputs: {
            "one": Expected(outputs["other"].double() + inputs["x"].double(), 1e-6),
            "other": Expected(outputs["one"].double() - inputs["x"].double(), 1e-6),
        },
    )

    def draw_rightly(inputs: Inputs, outputs: Tensors) -> None:
        outputs["other"].fill_(1.0)
        torch.add(inputs["x"], 1.0, out=outputs["one"])

    def draw_nothing(inputs: Inputs, outputs: Tensors) -> None:
        outputs["one"].fill_(value)
        outputs["other"].fill_(value)

    assert outcome(implementation(draw_rightly), chain).agreement.passed
    agreement = outcome(implementation(draw_nothing), chain).agreement
    assert agreement.status is Status.WRONG_VALUES
    assert (
        f"one: {value} is expected of element (0, 0) only since the outputs hold NaN or infinity" in agreement.message
    )


@pytest.mark.parametrize("honest_launches", [CHECKED + 10, CHECKED + 100])
def test_warm_up_detection(honest_launches: int) -> None:
    def half_of_it(inputs: Inputs, outputs: Tensors) -> None:
        torch.mul(inputs["x"][:2], inputs["factor"], out=outputs["y"][:2])
        outputs["y"][2:].zero_()

    assert "are off" in rejected_while_timed(honest_for(honest_launches, half_of_it))


def test_persistent_l2_window() -> None:
    """Persisting lines in the L2 survive the flush."""

    class L2Clock(SteadyClock):
        kept = 0

        def persisting_bytes(self) -> int:
            return self.kept

    clock = L2Clock()

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        clock.kept = 30 << 20

        def launch() -> Tensors:
            scale_rightly(inputs, outputs)
            return outputs

        return launch

    assert measure(SCALE, implementation(scale_rightly), case(), CPU, protocol=QUICK, clock=clock).suspicions == ()
    measurement = measure(SCALE, prepared_by(prepare), case(), CPU, protocol=QUICK, clock=clock)
    assert measurement.suspicions == ("the part of the L2 cache that survives a flush was changed",)


# What the defences cost, and that they cannot be foreseen -----------------------------------------------------


def test_full_checks_are_few_and_spread_over_the_sampling() -> None:
    judged_after: list[int] = []
    launches = count()
    done = 0

    def counting(inputs: Inputs, outputs: Tensors) -> None:
        nonlocal done
        done = next(launches)
        scale_rightly(inputs, outputs)

    def reference(inputs: Inputs, outputs: Tensors) -> Any:
        judged_after.append(done)
        return SCALE.reference(inputs, outputs)

    measurement = measure(
        scale_with(reference=reference), implementation(counting), case(), CPU, protocol=QUICK, clock=SteadyClock()
    )
    assert len(measurement.samples) > 100
    assert 3 <= len(judged_after) <= MOST_JUDGED + 1
    assert judged_after == sorted(set(judged_after))
    assert judged_after[-1] == done


def block_lengths() -> Iterator[int]:
    protocol = replace(QUICK, longest_seconds=60.0)
    timed = Stopwatch(SCALE, implementation(scale_rightly), case(), CPU, protocol=protocol, clock=QuietClock())
    timed.warm_up()
    before = 0
    for _ in range(10):
        timed.take_block()
        yield len(timed.samples) - before
        before = len(timed.samples)


def test_the_checked_launch_cannot_be_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the harness draws from the system again, and not from the seed of the tests
    assert isinstance(stopwatch._random, SystemRandom)
    assert isinstance(launch_audit._random, SystemRandom)
    lengths = list(block_lengths())
    assert all(5 <= length <= 15 for length in lengths)
    assert lengths != list(block_lengths())
