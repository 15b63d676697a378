"""The stopwatch, against clocks and kernels whose true cost is known."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count, cycle, repeat
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from agreement_operations import (
    CPU,
    KICK,
    Body,
    case,
    implementation,
    kick_rightly,
    prepared_by,
    scale_rightly,
    scale_with,
)
from boltzbench.harness import timing
from boltzbench.harness.timing import (
    STANDARD,
    AgreementLost,
    CpuClock,
    CudaClock,
    Protocol,
    clock_for,
    measure,
    median_noise,
)
from boltzbench.harness.types import Inputs, Measurement, Status, Tensors

SCALE = scale_with()
SHORT = replace(STANDARD, warm_up_seconds=0.002, shortest_seconds=0.01, longest_seconds=0.05)


class FakeTime:
    """A host's clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.nanoseconds = 0

    def spend(self, seconds: float) -> None:
        self.nanoseconds += round(seconds * 1e9)

    def read(self) -> int:
        return self.nanoseconds


def time_launches_of(
    costs: Iterator[float], *, body: Body = scale_rightly, protocol: Protocol = STANDARD, restoring: float = 0.0
) -> tuple[Measurement, int]:
    """The measurement of a kernel whose launches cost ``costs`` seconds one after the other, and their number."""
    fake = FakeTime()
    launches = 0

    def launch(inputs: Inputs, outputs: Tensors) -> Tensors | None:
        nonlocal launches
        launches += 1
        fake.spend(next(costs))
        return body(inputs, outputs)

    class SlowRestoring(CpuClock):
        def sample(self, launch: Any, restore: Callable[[], None], count: int) -> tuple[list[float], Tensors]:
            def slowly() -> None:
                restore()
                fake.spend(restoring)

            return super().sample(launch, slowly, count)

    clock = SlowRestoring(fake.read)
    measurement = measure(SCALE, implementation(launch), case(), CPU, protocol=protocol, clock=clock)
    return measurement, launches


# What is reported -------------------------------------------------------------------------------------------


def test_a_constant_cost_is_reported_exactly_with_the_rates_that_follow() -> None:
    measurement, _ = time_launches_of(repeat(0.001))
    assert measurement.median == measurement.p10 == measurement.p90 == pytest.approx(0.001)
    assert measurement.mode == "hot"
    assert measurement.items_per_second == pytest.approx(35 / 0.001)
    assert measurement.unit == "elements"
    assert measurement.bytes_per_second == pytest.approx(280 / 0.001)
    assert measurement.flops_per_second == pytest.approx(35 / 0.001)
    assert measurement.roofline_share is None


@pytest.mark.parametrize("spread", [0.02, 0.2])
def test_the_median_of_a_noisy_cost_is_within_2_percent(spread: float) -> None:
    generator = np.random.default_rng(5)
    costs = (0.002 * generator.lognormal(0.0, spread) for _ in count())
    measurement, _ = time_launches_of(costs)
    assert measurement.median == pytest.approx(0.002, rel=0.02)
    assert measurement.p10 < measurement.median < measurement.p90
    ranks = np.percentile(measurement.samples, (10, 50, 90))
    assert (measurement.p10, measurement.median, measurement.p90) == pytest.approx(tuple(ranks))


def test_rare_interruptions_do_not_move_the_median() -> None:
    costs = cycle([0.001] * 9 + [0.1])
    assert time_launches_of(costs)[0].median == pytest.approx(0.001)


def test_a_slow_first_call_and_a_slow_warm_up_are_not_sampled() -> None:
    measurement, _ = time_launches_of(chain([1.5], repeat(0.01, 5), repeat(0.001)))
    assert max(measurement.samples) == pytest.approx(0.01)  # 3 calls or 0.2 s: the slow call took the time alone
    measurement, _ = time_launches_of(chain([0.1], repeat(0.02, 5), repeat(0.001)))
    assert max(measurement.samples) == pytest.approx(0.001)


def test_restoring_lies_outside_what_is_timed() -> None:
    measurement, _ = time_launches_of(repeat(0.001), restoring=0.02)
    assert set(np.round(measurement.samples, 9)) == {0.001}


def test_state_is_back_at_its_start_before_every_launch() -> None:
    starts = []

    def kick_and_remember(inputs: Inputs, outputs: Tensors) -> None:
        starts.append(outputs["state"].clone())
        kick_rightly(inputs, outputs)

    measurement = measure(KICK, implementation(kick_and_remember), case("kick", atoms=6), CPU, protocol=SHORT)
    assert len(starts) > len(measurement.samples)
    assert all(torch.equal(start, starts[0]) for start in starts)


def test_the_real_clock_times_a_sleep() -> None:
    def sleep(inputs: Inputs, outputs: Tensors) -> None:
        time.sleep(0.002)
        scale_rightly(inputs, outputs)

    measurement = measure(SCALE, implementation(sleep), case(), CPU, protocol=SHORT)
    assert 0.002 < measurement.median < 0.02
    assert measurement.device


def test_a_launch_below_the_clocks_resolution_has_an_infinite_rate() -> None:
    measurement, _ = time_launches_of(chain([0.3], repeat(0.0)), protocol=replace(STANDARD, warm_up_calls=1))
    assert measurement.median == 0.0
    assert measurement.items_per_second == math.inf


# When warm-up and sampling stop -----------------------------------------------------------------------------


def test_warm_up_lasts_its_time_and_its_calls() -> None:
    measurement, launches = time_launches_of(repeat(0.01))
    assert launches - len(measurement.samples) == 20  # 0.2 s
    measurement, launches = time_launches_of(repeat(0.15))
    assert launches - len(measurement.samples) == 3
    measurement, launches = time_launches_of(repeat(2.5))
    assert launches - len(measurement.samples) == 1  # longest_warm_up_seconds


def test_steady_samples_stop_at_half_a_second() -> None:
    measurement, _ = time_launches_of(repeat(0.01))
    assert 50 <= len(measurement.samples) < 60


def test_ten_samples_are_taken_though_they_outlast_half_a_second() -> None:
    measurement, _ = time_launches_of(repeat(0.2))
    assert 10 <= len(measurement.samples) <= 13


def test_noisy_samples_go_on_until_the_median_is_known() -> None:
    generator = np.random.default_rng(6)
    measurement, _ = time_launches_of(0.01 * generator.lognormal(0.0, 0.05) for _ in count())
    assert len(measurement.samples) > 60
    assert median_noise(measurement.samples) < 0.005


def test_hopeless_noise_stops_at_the_hard_limits() -> None:
    measurement, _ = time_launches_of(cycle([0.01, 0.03]))
    assert sum(measurement.samples) == pytest.approx(5.0, abs=0.1)
    measurement, _ = time_launches_of(cycle([1e-4, 3e-4]))
    assert len(measurement.samples) == 1000


@pytest.mark.parametrize(("cost", "samples"), [(0.9, 5), (1.7, 3), (30.0, 3)])
def test_a_slow_case_stops_at_the_time_limit_but_not_before_three_samples(cost: float, samples: int) -> None:
    assert len(time_launches_of(repeat(cost))[0].samples) == samples


def test_the_time_limit_counts_restoring() -> None:
    measurement, launches = time_launches_of(repeat(0.001), restoring=1.0)
    assert len(measurement.samples) == 4
    assert launches == 4 + 2  # of warm-up, at most 2 s


def test_median_noise_is_the_standard_error_of_the_median() -> None:
    draws = np.random.default_rng(7).normal(1.0, 0.1, size=(6_000, 201))
    spread = np.median(draws, axis=1).std()
    assert np.mean([median_noise(row) for row in draws]) == pytest.approx(spread, rel=0.04)
    assert median_noise([1.0] * 9) == 0.0
    assert median_noise([0.0] * 9) == 0.0
    assert median_noise([0.0] * 6 + [1.0] * 3) == math.inf


# What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_what_is_interpreted_is_not_timed(backend: str) -> None:
    with pytest.raises(ValueError, match="interpreted on cpu: its time means nothing"):
        measure(SCALE, implementation(scale_rightly, backend=backend), case(), CPU)


def right_for(calls: int, then: Body) -> Body:
    counter = count()
    return lambda inputs, outputs: (scale_rightly if next(counter) < calls else then)(inputs, outputs)


def skip(inputs: Inputs, outputs: Tensors) -> None:
    pass


def be_off(inputs: Inputs, outputs: Tensors) -> None:
    scale_rightly(inputs, outputs)
    outputs["y"][1, 1] += 1


def zero_the_input(inputs: Inputs, outputs: Tensors) -> None:
    inputs["x"].zero_()
    scale_rightly(inputs, outputs)


def halve_the_precision(inputs: Inputs, outputs: Tensors) -> Tensors:
    return {"y": (inputs["x"] * inputs["factor"]).half()}


def give_up(inputs: Inputs, outputs: Tensors) -> None:
    raise RuntimeError("out of luck")


@pytest.mark.parametrize(
    ("then", "status", "words"),
    [
        (skip, Status.WRONG_VALUES, "was never written"),
        (be_off, Status.WRONG_VALUES, r"first \(1, 1\)"),
        (zero_the_input, Status.MODIFIED_INPUT, "input 'x' was modified"),
        (halve_the_precision, Status.WRONG_DTYPE, "torch.float16, not torch.float32"),
        (give_up, Status.ERROR, "RuntimeError: out of luck"),
    ],
)
def test_agreement_lost_while_timed_is_told(then: Body, status: Status, words: str) -> None:
    with pytest.raises(AgreementLost, match=f"{status} while timed: .*{words}") as caught:
        time_launches_of(repeat(0.01), body=right_for(50, then))
    assert caught.value.agreement.status is status


def test_an_implementation_that_cannot_be_prepared_again_has_lost_agreement() -> None:
    def prepare(inputs: Inputs, outputs: Tensors) -> None:
        raise MemoryError("no room")

    with pytest.raises(AgreementLost, match="MemoryError: no room"):
        measure(SCALE, prepared_by(prepare), case(), CPU)


def test_ctrl_c_passes() -> None:
    def interrupt(inputs: Inputs, outputs: Tensors) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        time_launches_of(repeat(0.01), body=right_for(50, interrupt))


# The clock of a GPU, with everything of CUDA replaced by what writes down the order of calls -------------------


def test_a_gpus_clock_flushes_outside_the_events_and_synchronises_once(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    numbers = count()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.number = next(numbers)

        def record(self, stream: str) -> None:
            assert stream == "the current stream"
            log.append(f"record {self.number}")

        def elapsed_time(self, end: "Event") -> float:
            assert log[-1] == "synchronise"
            return 2.0 * (end.number - self.number)

    class Buffer:
        def zero_(self) -> None:
            log.append("flush")

    def allocate(size: int, dtype: torch.dtype, device: torch.device) -> Buffer:
        assert (size, dtype, device) == (2 * 1234, torch.uint8, CPU)
        return Buffer()

    properties = SimpleNamespace(name="A GPU", L2_cache_size=1234)
    monkeypatch.setattr(timing, "_Event", Event)
    monkeypatch.setattr(timing, "_synchronize", lambda device: log.append("synchronise"))
    monkeypatch.setattr(timing, "_current_stream", lambda device: "the current stream")
    monkeypatch.setattr(timing, "_device_properties", lambda device: properties)
    monkeypatch.setattr(torch, "empty", allocate)

    clock = CudaClock(CPU)
    results = {"y": torch.ones(1)}

    def launch() -> Tensors:
        log.append("launch")
        return results

    seconds, last = clock.sample(launch, lambda: log.append("restore"), 2)

    assert (clock.mode, clock.device_name) == ("cold", "A GPU")
    assert seconds == [0.002, 0.002]
    assert last is results
    once = ["restore", "flush", "record {}", "launch", "record {}"]
    assert log == [
        *(step.format(n) for step, n in zip(once, (0, 0, 0, 0, 1), strict=True)),
        *(step.format(n) for step, n in zip(once, (2, 2, 2, 2, 3), strict=True)),
        "synchronise",
    ]


def test_each_device_has_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(clock_for(CPU), CpuClock)
    properties = SimpleNamespace(name="A GPU", L2_cache_size=0)
    monkeypatch.setattr(timing, "_device_properties", lambda device: properties)
    monkeypatch.setattr(torch, "empty", lambda size, dtype, device: None)
    assert isinstance(clock_for(torch.device("cuda")), CudaClock)


def test_what_a_plugin_patches_later_does_not_measure_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "perf_counter_ns", lambda: 0)
    assert measure(SCALE, implementation(scale_rightly), case(), CPU, protocol=SHORT).median > 0
