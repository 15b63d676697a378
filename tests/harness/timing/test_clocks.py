"""The clocks: the order of the queue, what lies outside the timed interval, and their remarks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from boltzbench.harness.api.operations import Inputs, Tensors
from boltzbench.harness.api.records import DeviceState
from boltzbench.harness.timing import cpu_clock, cuda_clock
from boltzbench.harness.timing.clocks import clock_for
from boltzbench.harness.timing.cpu_clock import UNKNOWN_CACHE, CpuClock, last_level_cache
from boltzbench.harness.timing.cuda_clock import LONGEST_LEAD, MOST_LAUNCHES, CudaClock
from boltzbench.harness.timing.stopwatch import STANDARD
from boltzbench.harness.timing.work import CACHE_MULTIPLE, Work
from support.small_operations import case, implementation, measure, scale_rightly, scale_with

CPU = torch.device("cpu")
L2 = 1 << 20
CYCLES_PER_SECOND = 2_000_000_000


@dataclass
class Gpu:
    """A simulated device with a queue, and a host that needs ``host_seconds`` to enqueue.

    Both count nanoseconds. The host waits for the device in `drain`. ``log`` holds the queue in order.
    """

    host: float = 0.0
    device: float = 0.0
    host_seconds: float = 10e-6
    log: list[str] = field(default_factory=list)

    def enqueue(self, name: str, seconds: float = 0.0) -> float:
        """The time at which the device finishes it."""
        self.host += self.host_seconds
        self.device = max(self.device, self.host) + seconds
        self.log.append(name)
        return self.device

    def drain(self, *_: object) -> None:
        self.host = max(self.host, self.device)
        self.log.append("synchronise")

    def nanoseconds(self) -> int:
        return round(self.host * 1e9)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """A simulated CUDA device for everything that the clock calls."""
    gpu = Gpu()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            assert stream == "the current stream"
            self.at = gpu.enqueue("event")

        def query(self) -> bool:
            return self.at <= gpu.host

        def elapsed_time(self, end: "Event") -> float:
            assert end.at <= gpu.host, "read before it was waited for"
            return (end.at - self.at) * 1e3

    class Buffer:
        def __init__(self, size: int) -> None:
            self.size = size

    def zeros(shape: Any, dtype: torch.dtype, device: torch.device) -> Buffer:
        assert dtype is torch.float32
        return Buffer(0 if shape == () else 4 * shape)

    def read(buffer: Buffer, dim: int, out: Buffer) -> None:
        assert (buffer.size, dim, out.size) == (CACHE_MULTIPLE * L2, 0, 0)
        gpu.enqueue("flush", 40e-6)

    replaced = {
        "_Event": Event,
        "_synchronize": gpu.drain,
        "_device_properties": lambda device: SimpleNamespace(name="A GPU", L2_cache_size=L2),
        "_current_stream": lambda device: "the current stream",
        "_free_memory": lambda device: (1 << 30, 2 << 30),
        "_sleep": lambda cycles: gpu.enqueue("wait", cycles / CYCLES_PER_SECOND),
        "perf_counter_ns": gpu.nanoseconds,
        "monotonic_ns": gpu.nanoseconds,
        "_Driver": lambda: SimpleNamespace(
            reset_persisting=lambda: gpu.log.append("reset"), persisting_bytes=lambda: 77
        ),
    }
    for name, fake in replaced.items():
        monkeypatch.setattr(cuda_clock, name, fake)
    monkeypatch.setattr(torch, "zeros", zeros)
    monkeypatch.setattr(torch, "sum", read)
    return gpu


def new_clock(gpu: Gpu) -> CudaClock:
    clock = CudaClock(CPU)
    gpu.log.clear()
    return clock


def work(gpu: Gpu, seconds: float = 5e-6, **fields: Any) -> Work:
    return Work(
        launch=lambda: gpu.enqueue("launch", seconds),
        restore=lambda: gpu.enqueue("restore", 3e-6),
        after=lambda: gpu.enqueue("fingerprint", 3e-6),
        **fields,
    )


# GPU ----------------------------------------------------------------------------------------------------------

COLD = ["wait", "restore", "flush", "event", "launch", "event", "fingerprint"]


def test_only_the_launch_is_between_the_events_and_each_block_synchronises_once(gpu: Gpu) -> None:
    clock = new_clock(gpu)
    seconds = clock.sample(work(gpu, lead=1e-3), 2)
    assert (clock.device_name, clock.method) == ("A GPU", "queue")
    assert gpu.log == ["reset", *COLD, *COLD, "synchronise"]
    assert seconds == pytest.approx([5e-6, 5e-6])


def test_hot_is_the_same_without_the_flush(gpu: Gpu) -> None:
    new_clock(gpu).sample(work(gpu, lead=1e-3, cold=False), 1)
    assert gpu.log == [*(step for step in COLD if step != "flush"), "synchronise"]


def test_a_sample_with_launch_latency_is_repeated_with_the_host_further_ahead(gpu: Gpu) -> None:
    gpu.host_seconds = 100e-6
    clock = new_clock(gpu)
    job = work(gpu)
    assert clock.sample(job, 3) == pytest.approx([5e-6] * 3)
    assert gpu.log.count("launch") == gpu.log.count("fingerprint") == 4
    assert job.lead >= 2 * 5 * 100e-6
    assert not job.remarks


def test_a_launch_that_waits_for_the_device_is_timed_with_latency_and_a_remark(gpu: Gpu) -> None:
    clock = new_clock(gpu)
    job = work(gpu)
    enqueue = job.launch
    job.launch = lambda: (gpu.drain(), enqueue())
    (seconds,) = clock.sample(job, 1)
    assert seconds > 5e-6
    assert job.waits
    (remark,) = job.remarks
    assert "launch latency may be in the figure" in remark
    gpu.log.clear()
    clock.sample(job, 2)
    assert "wait" not in gpu.log
    assert gpu.log.count("launch") == 2


def test_a_launch_that_leaves_another_stream_current_is_refused(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events would be on a stream that does nothing."""
    clock = new_clock(gpu)
    job = work(gpu, lead=1e-3)
    job.launch = lambda: monkeypatch.setattr(cuda_clock, "_current_stream", lambda device: "another stream")
    with pytest.raises(RuntimeError, match="left another stream current"):
        clock.sample(job, 1)


def test_a_slow_first_enqueue_does_not_make_the_device_wait_long(gpu: Gpu) -> None:
    clock = new_clock(gpu)
    gpu.host_seconds = 1.0
    job = work(gpu)
    clock.sample(job, 1)
    assert job.lead == LONGEST_LEAD


@pytest.mark.parametrize(
    ("seconds", "nbytes", "cold", "sets"),
    [
        (60e-6, 1000, True, 1),  # long enough by itself
        (40e-6, 1000, True, 5),  # 200 us
        (2e-6, 1000, True, MOST_LAUNCHES),
        (0.0, 1000, True, MOST_LAUNCHES),
        (2e-6, 1 << 26, True, 4),  # a quarter of the free GiB
        (2e-6, 1 << 29, True, 1),
        (10e-6, L2 // 8, False, 4),  # half of the L2
        (10e-6, L2, False, 1),
    ],
)
def test_short_kernels_get_many_launches(gpu: Gpu, seconds: float, nbytes: int, cold: bool, sets: int) -> None:
    assert new_clock(gpu).sets(seconds, nbytes, cold=cold) == sets


def test_a_capture_uses_its_own_stream_and_leaves_it_even_if_it_fails(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = gpu.log

    class Stream:
        def __init__(self, device: torch.device) -> None: ...

        def __enter__(self) -> None:
            log.append("enter")

        def __exit__(self, *_: object) -> None:
            log.append("leave")

    class Graph:
        failed = False

        def capture_begin(self, pool: object) -> None:
            assert pool == "a pool"
            log.append("begin")

        def capture_end(self) -> None:
            log.append("end")
            if self.failed:
                raise RuntimeError("operation failed due to a previous error during capture")

        def replay(self) -> None:
            log.append("replay")

    monkeypatch.setattr(cuda_clock, "_Stream", Stream)
    monkeypatch.setattr(cuda_clock, "_use_stream", lambda stream: stream)
    monkeypatch.setattr(cuda_clock, "_Graph", Graph)
    monkeypatch.setattr(cuda_clock, "_pool_handle", lambda: "a pool")
    monkeypatch.setattr(cuda_clock, "_end_pool", lambda device, pool: log.append(f"end {pool}"))
    clock = new_clock(gpu)
    replay = clock.capture(lambda: log.append("launch"))
    assert replay
    replay()
    once = ["synchronise", "enter", "begin", "launch", "end", "leave", "synchronise"]
    assert log == [*once, "replay"]

    def wait() -> None:
        Graph.failed = True
        raise RuntimeError("operation not permitted when stream is capturing")

    log.clear()
    assert clock.capture(wait) is None
    assert log == ["synchronise", "enter", "begin", "end", "leave", "end a pool", "synchronise"]


def test_overheads_of_an_empty_event_pair_a_launch_and_a_graph(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = new_clock(gpu)
    monkeypatch.setattr(clock, "capture", lambda launch: lambda: gpu.enqueue("graph", 2e-6))
    assert clock.overheads() == pytest.approx({"event": 0.0, "launch": 10e-6, "graph": 2e-6})
    monkeypatch.setattr(clock, "capture", lambda launch: None)
    assert clock.overheads().keys() == {"event", "launch"}


def test_a_device_time_longer_than_the_hosts_is_remarked(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = new_clock(gpu)
    job = work(gpu, lead=1e-3)
    monkeypatch.setattr(cuda_clock._Event, "elapsed_time", lambda self, end: 500.0)
    clock.sample(job, 1)
    assert any("the device says 0.5" in remark for remark in job.remarks)


def test_the_drivers_limit_is_read_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        status, resets = 0, 0

        def cuCtxGetLimit(self, limit: Any, which: int) -> int:
            assert which == 6
            limit._obj.value = 123
            return self.status

        def cuCtxResetPersistingL2Cache(self) -> int:
            self.resets += 1
            return 0

    library = Library()
    monkeypatch.setattr(cuda_clock.ctypes, "CDLL", lambda name: library)
    driver = cuda_clock._Driver()
    assert driver.persisting_bytes() == 123
    driver.reset_persisting()
    assert library.resets == 1
    library.status = 201  # no context
    assert driver.persisting_bytes() is None

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda_clock.ctypes, "CDLL", absent)
    driver = cuda_clock._Driver()
    assert driver.persisting_bytes() is None
    driver.reset_persisting()


def test_a_stopwatch_on_a_gpus_clock_from_start_to_end(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of 5 us: a host that needs 10 us for each cannot time them one by one. An idle GPU reports no
    throttling, so its state is read while it still has launches to do."""

    def launch(inputs: Inputs, outputs: Tensors) -> None:
        gpu.enqueue("launch", 5e-6)
        scale_rightly(inputs, outputs)

    def capture(clock: CudaClock, work: Callable[[], object]) -> Callable[[], object]:
        gpu.log.append("capture")
        return work

    def state(device: torch.device, first_sample: int) -> DeviceState:
        busy = gpu.device > gpu.host
        return DeviceState(
            first_sample, 1980 if busy else 345, throttled=("power cap",) if first_sample and busy else ()
        )

    monkeypatch.setattr(CudaClock, "capture", capture)
    monkeypatch.setattr(cuda_clock, "read_device_state", state)
    protocol = replace(STANDARD, warm_up_seconds=0.01, shortest_seconds=0.02, most_samples=40, most_values=1)
    measurement = measure(scale_with(), implementation(launch), case(), CPU, protocol=protocol, clock=new_clock(gpu))
    assert (measurement.device, measurement.method) == ("A GPU", "graph")
    assert measurement.launches_per_sample == pytest.approx(40, abs=1)  # 200 us
    assert gpu.log.count("capture") == 1
    assert measurement.median == pytest.approx(5e-6, rel=0.01)
    assert measurement.states[0] == DeviceState(0, 1980)
    taken = len(measurement.samples)
    slow = taken - measurement.states[1].first_sample
    replaced, throttled = measurement.suspicions
    assert "were replaced: torch.zeros, torch.sum, CudaClock.capture" in replaced  # by this test
    assert throttled == f"{slow} of {taken} samples were taken while throttled: power cap"


@pytest.fixture
def real_gpu() -> CudaClock:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    return CudaClock(torch.device("cuda", 0))


def test_a_real_gpu_times_a_wait_of_known_length(real_gpu: CudaClock) -> None:
    cycles = int(1e-3 * real_gpu._cycles_per_second)
    samples = real_gpu.sample(Work(lambda: torch.cuda._sleep(cycles)), 10)
    assert sorted(samples)[5] == pytest.approx(1e-3, rel=0.1)
    overheads = real_gpu.overheads()
    assert 0 < overheads["event"] < 20e-6
    assert 0 < overheads["graph"] < 50e-6
    assert 0 < overheads["launch"] < 100e-6


def test_a_real_gpu_replays_a_capture_and_declines_a_launch_that_waits(real_gpu: CudaClock) -> None:
    x = torch.zeros(1, device="cuda")
    replay = real_gpu.capture(lambda: x.add_(1))
    assert replay
    before = x.item()
    replay()
    assert x.item() == before + 1
    assert real_gpu.capture(lambda: x.item()) is None
    assert x.add_(1).item() == before + 2


# CPU ----------------------------------------------------------------------------------------------------------


class Host:
    """A clock that advances only with work."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def do(self, name: str, seconds: float) -> Callable[[], None]:
        def done() -> None:
            self.log.append(name)
            self.now += round(seconds * 1e9)

        return done

    def read(self) -> int:
        return self.now


def host_work(host: Host, **fields: Any) -> Work:
    return Work(host.do("launch", 1e-3), host.do("restore", 2e-3), host.do("fingerprint", 4e-3), **fields)


@pytest.mark.parametrize("cold", [True, False])
def test_only_the_launch_is_between_two_readings(monkeypatch: pytest.MonkeyPatch, cold: bool) -> None:
    host = Host()
    clock = CpuClock(host.read, host.read)
    monkeypatch.setattr(clock, "_flush", host.do("flush", 8e-3))
    job = host_work(host, cold=cold)
    assert clock.sample(job, 2) == pytest.approx([1e-3, 1e-3])
    assert (
        host.log
        == (["restore", "flush", "launch", "fingerprint"] if cold else ["restore", "launch", "fingerprint"]) * 2
    )
    assert not job.remarks
    assert clock.method == "host"
    assert clock.state(0) is None
    assert clock.sets(1e-9, 1, cold=cold) == 1
    assert clock.capture(lambda: None) is None


def test_a_flush_reads_three_times_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_clock, "last_level_cache", lambda: 4096)
    clock = CpuClock()
    clock._flush()
    assert clock._buffer is not None
    assert clock._buffer.nbytes == 3 * 4096


def test_two_clocks_that_disagree_are_remarked() -> None:
    host = Host()
    honest = CpuClock(host.read, host.read)
    slowed = CpuClock(lambda: host.read() // 2, host.read)
    for clock, remarks in ((honest, 0), (slowed, 1)):
        job = host_work(host, cold=False)
        clock.sample(job, 10)
        assert len(job.remarks) == remarks
    assert "two clocks disagree about one block: 0.035" in next(iter(job.remarks))


def test_an_interruption_between_reading_two_clocks_is_no_disagreement() -> None:
    host = Host()
    readings = count()

    def second() -> int:
        if next(readings) == 1:
            host.now += 50_000_000
        return host.read()

    job = host_work(host, cold=False)
    CpuClock(host.read, second).sample(job, 1)
    assert next(readings) == 3
    assert not job.remarks


def test_the_timers_overhead_is_the_time_from_one_reading_to_the_next() -> None:
    ticks = count(0, 40)
    assert CpuClock(lambda: next(ticks)).overheads() == pytest.approx({"timer": 40e-9})


def test_the_largest_cache_counts_and_without_any_a_size_is_assumed(tmp_path: Path) -> None:
    for index, size in enumerate(["32K", "1024K", "36M"]):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert last_level_cache(tmp_path) == 36 << 20
    assert last_level_cache(tmp_path / "absent") == UNKNOWN_CACHE
    (tmp_path / "empty" / "index0").mkdir(parents=True)
    (tmp_path / "empty" / "index0" / "size").write_text("\n")
    assert last_level_cache(tmp_path / "empty") == UNKNOWN_CACHE


def test_each_device_has_its_clock(gpu: Gpu) -> None:
    clock_for.cache_clear()
    assert isinstance(clock_for(CPU), CpuClock)
    assert clock_for(CPU) is clock_for(CPU)
    assert isinstance(clock_for(torch.device("cuda")), CudaClock)
    clock_for.cache_clear()
