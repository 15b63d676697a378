"""The stopwatch on simulated clocks and kernels with known costs."""

import math
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain, count, cycle, repeat
from typing import Literal

import numpy as np
import pytest
import torch
from boltzbench.harness.api.noise import correlation_time, median_noise
from boltzbench.harness.api.operations import Case, Inputs, Operation, Status, Tensors
from boltzbench.harness.api.records import DeviceState, Measurement
from boltzbench.harness.timing.cpu_clock import CpuClock
from boltzbench.harness.timing.launch_audit import FailedWhileTimed
from boltzbench.harness.timing.quiet import HostLoad
from boltzbench.harness.timing.stopwatch import STANDARD, Stopwatch, TimingProtocol, at_plateau
from boltzbench.harness.timing.work import Work
from support.replay import Recorder
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
from torch.utils._python_dispatch import _disable_current_modes

SCALE = scale_with()
SHORT = replace(STANDARD, warm_up_seconds=0.002, shortest_seconds=0.01, longest_seconds=0.05)


class FakeTime:
    """A host's clock that advances only on request."""

    def __init__(self) -> None:
        self.nanoseconds = 0

    def spend(self, seconds: float) -> None:
        self.nanoseconds += round(seconds * 1e9)

    def read(self) -> int:
        return self.nanoseconds


def time_launches_of(
    costs: Iterator[float],
    *,
    body: Body = scale_rightly,
    protocol: TimingProtocol = STANDARD,
    restoring: float = 0.0,
    mode: Literal["cold", "hot"] = "cold",
    states: Callable[[int], DeviceState | None] = lambda first_sample: None,
) -> tuple[Measurement, int]:
    """The measurement of a kernel with launches of ``costs`` seconds in turn, and the number of launches."""
    fake = FakeTime()
    launches = 0

    def launch(inputs: Inputs, outputs: Tensors) -> Tensors | None:
        nonlocal launches
        launches += 1
        fake.spend(next(costs))
        return body(inputs, outputs)

    class Clock(CpuClock):
        def sample(self, work: Work, count: int) -> list[float]:
            restore = work.restore

            def slowly() -> None:
                restore()
                fake.spend(restoring)

            return super().sample(replace(work, restore=slowly), count)

        def state(self, first_sample: int) -> DeviceState | None:
            return states(first_sample)

        def _flush(self) -> None:
            pass

    clock = Clock(fake.read, fake.read)
    measurement = measure(SCALE, implementation(launch), case(), CPU, mode=mode, protocol=protocol, clock=clock)
    return measurement, launches


# What is reported -------------------------------------------------------------------------------------------


def test_a_constant_cost_is_reported_exactly_with_the_rates_that_follow() -> None:
    measurement, _ = time_launches_of(repeat(0.001))
    assert measurement.median == measurement.p10 == measurement.p90 == pytest.approx(0.001)
    assert measurement.mode == "cold"
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


def test_a_boost_that_wears_off_is_over_before_sampling() -> None:
    """30 % faster at first, decaying with a time constant of 0.05 s; the true cost is the final one."""
    costs = (0.001 * (1 - 0.3 * math.exp(-0.001 * n / 0.05)) for n in count())
    assert time_launches_of(costs)[0].median == pytest.approx(0.001, rel=0.02)


def test_the_median_under_slow_drift_is_that_of_the_sampled_interval() -> None:
    """0.2 s of warm-up, then 0.5 s with a drift of 4 % per second; the true cost is the mean over the 0.5 s."""
    generator = np.random.default_rng(8)
    elapsed = 0.0

    def drifting() -> Iterator[float]:
        nonlocal elapsed
        while True:
            cost = 0.001 * (1 + 0.04 * elapsed)
            elapsed += cost
            yield cost * generator.lognormal(0.0, 0.02)

    measurement, _ = time_launches_of(drifting())
    assert measurement.median == pytest.approx(0.001 * (1 + 0.04 * (0.2 + elapsed) / 2), rel=0.02)


@pytest.mark.parametrize("fast", [0.7, 0.8, 0.95])
def test_with_two_modes_the_median_is_that_of_the_more_frequent_one(fast: float) -> None:
    """The true cost is that of most launches, 1 ms; the others take 1.4 ms."""
    generator = np.random.default_rng(9)
    costs = ((0.001 if generator.random() < fast else 0.0014) * generator.lognormal(0.0, 0.01) for _ in count())
    assert time_launches_of(costs)[0].median == pytest.approx(0.001, rel=0.02)


def test_a_throttled_stretch_neither_moves_the_median_nor_goes_unmentioned() -> None:
    """The true cost is that at full clock, 1 ms. After 100 launches of warm-up, 150 in a row take 1.5 ms."""
    generator = np.random.default_rng(10)
    slow = range(350, 500)
    launches = 0

    def costs() -> Iterator[float]:
        nonlocal launches
        while True:
            launches += 1
            yield 0.001 * (1.5 if launches in slow else 1.0) * generator.lognormal(0.0, 0.02)

    def state(first_sample: int) -> DeviceState:
        reasons = ("power cap", "thermal slowdown by software") if launches in slow else ()
        return DeviceState(first_sample, sm_clock_mhz=1320 if reasons else 1980, throttled=reasons)

    once = replace(STANDARD, most_repeated=0)
    measurement, _ = time_launches_of(costs(), states=state, protocol=once)
    assert measurement.median == pytest.approx(0.001, rel=0.02)
    assert [state.first_sample for state in measurement.states] == sorted({s.first_sample for s in measurement.states})
    assert measurement.states[0].first_sample == 0
    (suspicion,) = measurement.suspicions
    count = int(suspicion.split()[0])
    assert 130 <= count <= 170
    assert suspicion.endswith(
        f" of {len(measurement.samples)} samples were taken while throttled: power cap, thermal slowdown by software"
    )


def test_restoring_lies_outside_what_is_timed() -> None:
    measurement, _ = time_launches_of(repeat(0.001), restoring=0.02)
    assert set(np.round(measurement.samples, 9)) == {0.001}


def test_state_is_back_at_its_start_before_every_launch() -> None:
    starts = []

    def kick_and_remember(inputs: Inputs, outputs: Tensors) -> None:
        starts.append(torch.equal(outputs["state"], inputs["state"]))
        kick_rightly(inputs, outputs)

    kick = implementation(kick_and_remember)
    measurement = measure(KICK, kick, case("kick", atoms=6), CPU, mode="hot", protocol=SHORT)
    assert len(starts) > len(measurement.samples)
    assert all(starts)


def test_the_real_clock_times_a_sleep() -> None:
    took = []

    def sleep(inputs: Inputs, outputs: Tensors) -> None:
        begin = time.monotonic()
        time.sleep(0.002)
        scale_rightly(inputs, outputs)
        took.append(time.monotonic() - begin)

    measurement = measure(SCALE, implementation(sleep), case(), CPU, mode="hot", protocol=SHORT)
    assert min(took) < measurement.median < max(took) + 1e-3
    assert measurement.device


def test_a_launch_below_the_clocks_resolution_has_an_infinite_rate() -> None:
    measurement, _ = time_launches_of(chain([0.3], repeat(0.0)), protocol=replace(STANDARD, warm_up_calls=1))
    assert measurement.median == 0.0
    assert measurement.items_per_second == math.inf


def test_hot_blocks_begin_with_a_launch_that_is_not_timed() -> None:
    warm_up = replace(STANDARD, warm_up_seconds=0.0)
    cold, launches = time_launches_of(repeat(0.01), protocol=warm_up)
    assert launches == len(cold.samples) + STANDARD.warm_up_calls
    hot, launches = time_launches_of(repeat(0.01), protocol=warm_up, mode="hot")
    assert hot.mode == "hot"
    assert 50 / 15 <= launches - len(hot.samples) - STANDARD.warm_up_calls <= 65 / 5


def test_after_a_launch_with_another_result_each_launch_is_checked_alone() -> None:
    odd = False

    def body(inputs: Inputs, outputs: Tensors) -> None:
        nonlocal odd
        scale_rightly(inputs, outputs)
        if odd:
            outputs["y"].mul_(1 + 2.0**-23)
        odd = False

    fake = FakeTime()
    stopwatch = Stopwatch(
        scale_with(bound=1e-5), implementation(body), case(), CPU, mode="cold", clock=GraphClock(fake, lambda _: None)
    )
    stopwatch.take_block()
    odd = True
    stopwatch.take_block()
    before = len(stopwatch.samples)
    assert stopwatch.take_block()
    assert len(stopwatch.samples) == before + 1
    assert any("gave other results" in suspicion for suspicion in stopwatch.finish().suspicions)


def busy_for(blocks: int) -> Callable[[int], DeviceState]:
    """The state of a device that others use for so many blocks."""
    left = chain(repeat(0.6, blocks), repeat(0.0))
    return lambda first_sample: DeviceState(first_sample, others=next(left))


def test_a_disturbed_block_is_taken_again() -> None:
    disturbed = [0.03] * 4  # warm-up takes 7
    measurement, launches = time_launches_of(chain([0.03] * 7, disturbed, repeat(0.01)), states=busy_for(1))
    assert not any(state.is_disturbed for state in measurement.states)
    assert measurement.states[0].first_sample == 0
    assert not set(measurement.samples) & set(disturbed)
    assert 5 <= launches - 7 - len(measurement.samples) <= 15, "one block"


def test_only_some_blocks_are_taken_again_and_the_others_are_marked() -> None:
    measurement, launches = time_launches_of(repeat(0.01), states=busy_for(1000))
    assert all(state.others == 0.6 for state in measurement.states)
    assert 3 * 5 <= launches - 20 - len(measurement.samples) <= 3 * 15
    assert len(measurement.samples) >= 20, "in half a second"


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
    assert 50 <= len(measurement.samples) < 50 + 15  # the block in which the time is reached has up to 15
    assert measurement.stopped == "noise"


def test_ten_samples_are_taken_though_they_outlast_half_a_second() -> None:
    measurement, _ = time_launches_of(repeat(0.2))
    assert 10 <= len(measurement.samples) < 10 + 15


def test_noisy_sampling_continues_until_the_median_is_precise() -> None:
    generator = np.random.default_rng(6)
    measurement, _ = time_launches_of(0.01 * generator.lognormal(0.0, 0.05) for _ in count())
    assert len(measurement.samples) > 60
    assert median_noise(measurement.samples) == measurement.noise < 0.005
    assert measurement.stopped == "noise"


def test_many_quick_samples_are_enough_if_their_median_is_precise() -> None:
    measurement, _ = time_launches_of(repeat(2e-5))
    assert (len(measurement.samples), measurement.stopped) == (1000, "noise")


def test_hopeless_noise_stops_at_the_hard_limits() -> None:
    measurement, _ = time_launches_of(cycle([0.01, 0.03]))
    assert sum(measurement.samples) == pytest.approx(5.0, abs=0.1)
    assert measurement.stopped == "limit"
    measurement, _ = time_launches_of(cycle([1e-4, 3e-4]))
    assert len(measurement.samples) == 1000
    assert measurement.stopped == "limit"


def test_samples_that_drift_stop_at_a_plateau() -> None:
    measurement, _ = time_launches_of(0.001 * (1 + n / 1000) for n in count())
    assert measurement.stopped == "plateau"
    assert measurement.noise > STANDARD.noise
    assert sum(measurement.samples) < 2.0


def test_at_a_plateau_twice_the_samples_hardly_reduce_the_noise() -> None:
    generator = np.random.default_rng(3)
    runs = [generator.lognormal(0.0, 0.1, 400) for _ in range(200)]
    lengths = range(64, 400, 10)
    stopped_early = sum(any(at_plateau(run[:length]) for length in lengths) for run in runs)
    assert stopped_early <= 20  # of 200 runs of independent samples, though looked at 34 times each
    drifting = [run * np.linspace(1.0, 2.0, 400) for run in runs]
    assert sum(any(at_plateau(run[:length]) for length in lengths) for run in drifting) >= 150
    assert not at_plateau(np.linspace(1.0, 2.0, 63))
    assert at_plateau(np.linspace(1.0, 2.0, 64))


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


@pytest.mark.parametrize("alike", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("n", [200, 1000])
def test_the_correlation_time_of_samples_whose_neighbours_are_alike(alike: float, n: int) -> None:
    generator = np.random.default_rng(8)
    runs = generator.standard_normal((n, 100))
    for place in range(1, n):
        runs[place] = alike * runs[place - 1] + math.sqrt(1 - alike**2) * runs[place]
    runs[n // 2] += 100.0  # an outlier hides nothing
    found = np.median([correlation_time(run) for run in runs.T])
    assert found == pytest.approx((1 + alike) / (1 - alike), rel=0.2)


def test_samples_that_drift_and_come_back_are_taken_for_longer() -> None:
    """The median of a few seconds knows both; that of the first half a second does not."""
    slow = (0.01 * (1 + 0.03 * math.sin(n / 15)) for n in count())
    measurement, _ = time_launches_of(slow)
    assert sum(measurement.samples) > 1.5
    assert measurement.median == pytest.approx(0.01, rel=0.01)
    independent = np.random.default_rng(9).permutation(measurement.samples)
    assert measurement.noise > 2 * median_noise(independent)


# Many launches in a sample ----------------------------------------------------------------------------------


class GraphClock(CpuClock):
    """Four launches in a sample; ``capture`` behaves as `CudaClock.capture`. The load of the machine is unknown."""

    def __init__(self, fake: FakeTime, graph: Callable[[Callable[[], object]], Callable[[], object] | None]) -> None:
        super().__init__(fake.read, fake.read, HostLoad(lambda: None))
        self.capture = graph  # type: ignore[method-assign]

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        return 4 if seconds < 50e-6 else 1

    def _flush(self) -> None:
        pass


def captured(launch: Callable[[], object]) -> Callable[[], object]:
    launch()
    return launch


def time_in_fours(
    graph: Callable[[Callable[[], object]], Callable[[], object] | None], body: Body = scale_rightly, cost: float = 2e-6
) -> tuple[Measurement, set[int]]:
    """The measurement, and the addresses of the written outputs."""
    fake = FakeTime()
    places = set()

    def launch(inputs: Inputs, outputs: Tensors) -> None:
        fake.spend(cost)
        places.add(outputs["y"].data_ptr())
        body(inputs, outputs)

    protocol = replace(STANDARD, warm_up_seconds=0.001, shortest_seconds=0.001)
    return measure(SCALE, implementation(launch), case(), CPU, protocol=protocol, clock=GraphClock(fake, graph)), places


def test_short_launches_are_timed_as_a_graph_of_many_each_on_memory_of_its_own() -> None:
    measurement, places = time_in_fours(captured)
    assert (measurement.method, measurement.launches_per_sample) == ("graph", 4)
    assert measurement.median == pytest.approx(2e-6)
    assert len(places) == 4


@pytest.mark.parametrize("graph", [lambda launch: None, lambda launch: lambda: None], ids=["refused", "empty"])
def test_what_cannot_be_captured_is_queued(graph: Callable[[Callable[[], object]], Callable[[], object]]) -> None:
    measurement, places = time_in_fours(graph)
    assert (measurement.method, measurement.launches_per_sample) == ("host", 4)
    assert measurement.median == pytest.approx(2e-6)
    assert len(places) == 4


def replayed(launch: Callable[[], object]) -> Callable[[], object]:
    """As a GPU captures: what Python computes in the launch stays as it was."""
    with Recorder() as recorder:
        launch()
    return recorder.replay


def time_as_graph(
    prepare: Callable[[Inputs, Tensors], Callable[[], Tensors]], operation: Operation = SCALE
) -> Measurement:
    protocol = replace(STANDARD, warm_up_seconds=0.0, longest_warm_up_seconds=0.1, most_samples=20, samples_per_block=2)
    return measure(
        operation, prepared_by(prepare), case(), CPU, protocol=protocol, clock=GraphClock(FakeTime(), replayed)
    )


def test_weights_that_python_prepares_reach_the_graph() -> None:
    """y = 3 x as x + w x, with w = 2 a parameter from which Python makes 1 + w."""

    def make_inputs(case: Case, device: torch.device) -> Inputs:
        x = torch.randn(5, 7, generator=torch.Generator().manual_seed(case.seed))
        return {"x": x, "w": torch.full((7,), 2.0), "factor": 3.0}

    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        factor = 1 + inputs["w"]

        def launch() -> Tensors:
            torch.mul(inputs["x"], factor, out=outputs["y"])
            return outputs

        return launch

    measurement = time_as_graph(prepare, scale_with(make_inputs=make_inputs, parameters=("w",)))
    assert (measurement.method, measurement.suspicions) == ("graph", ())


def test_a_graph_of_results_that_python_computed_is_wrong() -> None:
    """They are computed again after each write that Python sees, and during the capture."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        version, kept = -1, torch.empty(0)

        def launch() -> Tensors:
            nonlocal version, kept
            if version != inputs["x"]._version:
                with _disable_current_modes():
                    version, kept = inputs["x"]._version, inputs["x"] * inputs["factor"]
            outputs["y"].copy_(kept)
            return outputs

        return launch

    with pytest.raises(FailedWhileTimed, match="are off"):
        time_as_graph(prepare)


def test_launches_with_numbers_of_the_host_that_move_on_are_queued() -> None:
    def make_inputs(case: Case, device: torch.device) -> Inputs:
        x = torch.randn(5, 7, generator=torch.Generator().manual_seed(case.seed))
        return {"x": x, "factor": float(case.seed % 100)}

    measurement = time_as_graph(
        lambda inputs, outputs: lambda: {"y": torch.mul(inputs["x"], inputs["factor"], out=outputs["y"])},
        scale_with(make_inputs=make_inputs, moving=("factor",), bound=1e-4),
    )
    assert (measurement.method, measurement.launches_per_sample, measurement.suspicions) == ("host", 4, ())


@pytest.mark.parametrize(("room", "sets"), [(4, 4), (3, 1), (1, 1), ("a capture of two", 2)])
def test_a_sample_has_fewer_launches_where_memory_is_short(room: int | str, sets: int) -> None:
    """The device has room for so many sets of memory; or for the launches of so many in a graph."""
    alive: set[int] = set()
    most = room if isinstance(room, int) else 4

    def prepare(inputs: Inputs, outputs: Tensors) -> Callable[[], Tensors]:
        if len(alive) == most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        key = outputs["y"].data_ptr()
        alive.add(key)
        weakref.finalize(outputs["y"], alive.discard, key)

        def launch() -> Tensors:
            if isinstance(room, str) and len(alive) > 2:
                raise RuntimeError("Triton Error [CUDA]: out of memory")
            scale_rightly(inputs, outputs)
            return outputs

        return launch

    protocol = replace(STANDARD, warm_up_seconds=0.0, longest_warm_up_seconds=0.1, most_samples=10, samples_per_block=2)
    measurement = measure(
        scale_with(), prepared_by(prepare), case(), CPU, protocol=protocol, clock=GraphClock(FakeTime(), captured)
    )
    assert (measurement.launches_per_sample, measurement.suspicions) == (sets, ())
    assert measurement.method == ("graph" if sets > 1 else "host")


def test_a_long_launch_is_one_sample() -> None:
    measurement, places = time_in_fours(captured, cost=60e-6)
    assert (measurement.method, measurement.launches_per_sample) == ("host", 1)
    assert len(places) == 1


def test_each_of_many_launches_in_a_sample_is_audited() -> None:
    launches = count()

    def skip_one_of_four(inputs: Inputs, outputs: Tensors) -> None:
        n = next(launches)
        if n < 600 or n % 4 != 2:
            scale_rightly(inputs, outputs)

    with pytest.raises(FailedWhileTimed, match=r"was never written|it skipped its work"):
        time_in_fours(captured, skip_one_of_four)


# What is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_an_interpreted_implementation_is_not_timed(backend: str) -> None:
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
        (skip, Status.WRONG_VALUES, "(was never written|it skipped its work)"),
        (be_off, Status.WRONG_VALUES, r"first \(1, 1\)"),
        (zero_the_input, Status.MODIFIED_INPUT, "input 'x' was modified"),
        (halve_the_precision, Status.WRONG_DTYPE, "torch.float16, not torch.float32"),
        (give_up, Status.ERROR, "RuntimeError: out of luck"),
    ],
)
def test_a_failure_during_timing_is_reported(then: Body, status: Status, words: str) -> None:
    with pytest.raises(FailedWhileTimed, match=f"{status} while timed: .*{words}") as caught:
        time_launches_of(repeat(0.01), body=right_for(50, then))
    assert caught.value.agreement.status is status


def test_an_implementation_that_cannot_be_prepared_again_fails() -> None:
    def prepare(inputs: Inputs, outputs: Tensors) -> None:
        raise MemoryError("no room")

    with pytest.raises(FailedWhileTimed, match="MemoryError: no room"):
        measure(SCALE, prepared_by(prepare), case(), CPU)


def test_ctrl_c_passes() -> None:
    def interrupt(inputs: Inputs, outputs: Tensors) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        time_launches_of(repeat(0.01), body=right_for(50, interrupt))
