"""Times launches on a GPU, to compare plans: cold, in turns, and without the latency of Python.

On an idle device events would enclose the time that Python takes to launch, which is longer than a short kernel. So
the device first runs a kernel that only waits, and the host enqueues a sample behind it.
"""

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

import torch

# The tests replace these with fakes, since most machines have no GPU.
_Event: Callable[..., Any] = torch.cuda.Event
_sleep: Callable[[int], None] = torch.cuda._sleep
_properties: Callable[[torch.device], Any] = torch.cuda.get_device_properties
_on: Callable[[torch.device], Any] = torch.cuda.device

ROUNDS = 9
FLUSH_MULTIPLE = 3
"""Each launch follows a read of this many times the L2 cache."""
LONGEST_LEAD = 0.1
MOST_TRIES = 8
"""A sample is repeated with a lead twice as long, up to so many seconds, if the device did not wait for the host."""


def median_seconds(launches: Sequence[Callable[[], None]], device: torch.device) -> list[float] | None:
    """The median time of each launch in `ROUNDS` rounds; in each round all run once, so that drift hits all alike.

    Each runs once before, which compiles it. None if they cannot be timed: there is no memory to flush the cache, or a
    launch waits for the device.
    """
    with _on(device):
        for launch in launches:
            launch()
        try:
            clock = _LaunchClock(device)
        except torch.OutOfMemoryError:
            return None
        times: list[list[float]] = [[] for _ in launches]
        for _ in range(ROUNDS):
            for launch, found in zip(launches, times, strict=True):
                seconds = clock.seconds(launch)
                if seconds is None:
                    return None
                found.append(seconds)
        return [statistics.median(found) for found in times]


class _LaunchClock:
    """Events on the current stream around a launch, which is enqueued before the device reaches the first."""

    def __init__(self, device: torch.device) -> None:
        size = max(1, FLUSH_MULTIPLE * _properties(device).L2_cache_size // 4)
        self._buffer = torch.zeros(size, dtype=torch.float32, device=device)
        self._sum = torch.zeros((), dtype=torch.float32, device=device)
        self._lead = 1e-3
        cycles = 1_000_000
        for _ in range(2):  # the first run wakes the device
            begin, end = self._events()
            begin.record()
            _sleep(cycles)
            end.record()
            self._cycles_per_second = cycles / self._elapsed(begin, end)

    def seconds(self, launch: Callable[[], None]) -> float | None:
        for _ in range(MOST_TRIES):
            begin, end = self._events()
            started = perf_counter_ns()
            _sleep(max(1, int(self._lead * self._cycles_per_second)))
            torch.sum(self._buffer, dim=0, out=self._sum)
            begin.record()
            launch()
            end.record()
            came_first = begin.query()  # the device reached the launch before it was enqueued
            ahead = 2 * (perf_counter_ns() - started) * 1e-9
            seconds = self._elapsed(begin, end)
            if not came_first:
                return seconds
            self._lead = min(LONGEST_LEAD, max(ahead, 2 * self._lead))
        return None

    def _events(self) -> tuple[Any, Any]:
        return _Event(enable_timing=True), _Event(enable_timing=True)

    def _elapsed(self, begin: Any, end: Any) -> float:
        end.synchronize()
        seconds: float = begin.elapsed_time(end) * 1e-3
        return seconds
