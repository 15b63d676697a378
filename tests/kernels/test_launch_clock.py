"""The clock of the plan search, on a simulated device with a queue."""

import itertools
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from boltzbench.kernels.rows.tuning import launch_clock
from boltzbench.kernels.rows.tuning.launch_clock import FLUSH_MULTIPLE, LONGEST_LEAD, MOST_TRIES, ROUNDS, median_seconds

CPU = torch.device("cpu")
CYCLES_PER_SECOND = 2_000_000_000
L2 = 1 << 20
SAMPLE = ["wait", "flush", "event", "launch", "event"]


class Gpu:
    """The host needs ``latency`` seconds to enqueue, and the device runs what is in its queue in order."""

    def __init__(self, latency=20e-6):
        self.host = self.device = 0.0
        self.latency = latency
        self.log, self.launched = [], []

    def enqueue(self, name, seconds=0.0):
        self.host += self.latency
        self.device = max(self.device, self.host) + seconds
        self.log.append(name)
        return self.device

    def kernel(self, name, seconds):
        """A launch that takes the next of ``seconds`` on the device."""

        def launch():
            self.launched.append(name)
            self.enqueue("launch", next(seconds))

        return launch


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = gpu.enqueue("event")

        def query(self):
            return self.at <= gpu.host

        def synchronize(self):
            gpu.host = max(gpu.host, self.at)

        def elapsed_time(self, end):
            assert end.at <= gpu.host, "read before it was waited for"
            return (end.at - self.at) * 1e3

    def zeros(shape, dtype, device):
        return SimpleNamespace(bytes=0 if shape == () else 4 * shape)

    def read(buffer, dim, out):
        assert buffer.bytes == FLUSH_MULTIPLE * L2
        gpu.enqueue("flush", 40e-6)

    monkeypatch.setattr(launch_clock, "_Event", Event)
    monkeypatch.setattr(launch_clock, "_sleep", lambda cycles: gpu.enqueue("wait", cycles / CYCLES_PER_SECOND))
    monkeypatch.setattr(launch_clock, "_properties", lambda device: SimpleNamespace(L2_cache_size=L2))
    monkeypatch.setattr(launch_clock, "_on", lambda device: nullcontext())
    monkeypatch.setattr(launch_clock, "perf_counter_ns", lambda: round(gpu.host * 1e9))
    monkeypatch.setattr(torch, "zeros", zeros)
    monkeypatch.setattr(torch, "sum", read)
    return gpu


def test_the_time_is_the_devices_and_not_the_latency_of_python(gpu):
    """Kernels of 5 and 4 us, for a host that needs 20 us to launch one."""
    fast, slow = gpu.kernel("fast", itertools.repeat(4e-6)), gpu.kernel("slow", itertools.repeat(5e-6))
    assert median_seconds([slow, fast], CPU) == pytest.approx([5e-6, 4e-6])


def test_each_launch_follows_a_wait_and_a_flush_and_the_plans_take_turns(gpu):
    median_seconds([gpu.kernel(name, itertools.repeat(4e-6)) for name in "abc"], CPU)
    assert gpu.launched == [*"abc"] * (1 + ROUNDS)
    assert gpu.log[:3] == ["launch"] * 3, "which compiles"
    assert gpu.log[-3 * ROUNDS * len(SAMPLE) :] == SAMPLE * (3 * ROUNDS)


def test_noise_and_drift_do_not_decide(gpu):
    """Every third launch is disturbed, and the device slows down by half on the way."""
    turns = itertools.count()

    def seconds(base):
        while True:
            turn = next(turns)
            yield base * (1 + turn / 40) + (90e-6 if turn % 3 == 0 else 0.0)

    slow, fast = median_seconds([gpu.kernel("slow", seconds(11e-6)), gpu.kernel("fast", seconds(10e-6))], CPU)
    assert fast < slow < 20e-6


def test_a_slow_host_gets_a_longer_lead(gpu):
    gpu.latency = 2e-3
    assert median_seconds([gpu.kernel("a", itertools.repeat(5e-6))], CPU) == pytest.approx([5e-6])


def test_a_launch_that_waits_for_the_device_is_not_timed(gpu):
    enqueue = gpu.kernel("a", itertools.repeat(5e-6))

    def launch():
        gpu.host = max(gpu.host, gpu.device)
        enqueue()

    assert median_seconds([launch], CPU) is None
    assert len(gpu.launched) == 1 + MOST_TRIES
    assert gpu.host < MOST_TRIES * 2 * LONGEST_LEAD


def test_without_memory_to_flush_the_cache_nothing_is_timed(gpu, monkeypatch):
    def zeros(shape, dtype, device):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "zeros", zeros)
    assert median_seconds([gpu.kernel("a", itertools.repeat(5e-6))], CPU) is None
    assert gpu.launched == ["a"]
