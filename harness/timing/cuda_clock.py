"""The clock for GPU tensors: CUDA events on a queue that the host fills while the device waits.

Every function that reads the time is bound on import: see `clocks`.
"""

import contextlib
import ctypes
import math
from collections.abc import Callable
from statistics import median
from time import monotonic_ns, perf_counter_ns
from typing import Any, Literal

import torch

from ..api.records import DeviceState
from .nvml import read_device_state
from .work import CACHE_MULTIPLE, Work, compare_clocks, read_both

# The tests replace these with fakes, since most machines have no GPU.
_Event: Callable[..., Any] = torch.cuda.Event
_Graph: Callable[..., Any] = torch.cuda.CUDAGraph
_Stream: Callable[..., Any] = torch.cuda.Stream
_use_stream: Callable[[Any], Any] = torch.cuda.stream
_synchronize = torch.cuda.synchronize
_device_properties = torch.cuda.get_device_properties
_current_stream = torch.cuda.current_stream
_free_memory = torch.cuda.mem_get_info
_sleep: Callable[[int], None] = torch.cuda._sleep
_pool_handle: Callable[[], Any] = torch.cuda.graph_pool_handle

SHORT = 50e-6
"""Seconds below which a sample consists of many launches: an event resolves only about half a microsecond."""

SAMPLE_SECONDS = 200e-6
MOST_LAUNCHES = 64
MOST_BYTES = 4 << 30
"""How long a sample of short kernels should last, and the most launches and bytes of memory that it may use."""

LONGEST_LEAD = 0.1
"""The most seconds that the device waits while the host enqueues a sample."""

MOST_OVERTAKEN = 6
"""After this many samples in a row in which the device overtook the host, the clock accepts launch latency in the
figure and says so."""


class CudaClock:
    """Events on the device's current stream, with one synchronisation for each block.

    A sample enqueues: a kernel that only waits; ``restore``; the flush, which reads three times the L2 cache; an
    event; the launches; an event; ``after``. The host enqueues all of it while the device waits, so no launch latency
    lies between the events. If the device reaches the first event before the host is done, the sample is taken again
    with a longer wait.

    ``restore`` comes after the wait. Work on another stream that did not wait for this one therefore ends before it,
    and ``restore`` undoes it.

    Hot: the same without the flush.
    """

    method: Literal["host", "queue"] = "queue"

    def __init__(self, device: torch.device) -> None:
        properties = _device_properties(device)
        self.device_name = properties.name
        self._device = device
        self._cache = properties.L2_cache_size
        self._buffer = torch.zeros(max(1, CACHE_MULTIPLE * self._cache // 4), dtype=torch.float32, device=device)
        self._sum = torch.zeros((), dtype=torch.float32, device=device)
        self._driver = _Driver()
        cycles = 1_000_000
        for _ in range(2):  # the first run wakes the device
            self._cycles_per_second = cycles / self._between_events(lambda: _sleep(cycles))

    def now(self) -> float:
        return perf_counter_ns() * 1e-9

    def sample(self, work: Work, count: int) -> list[float]:
        stream = _current_stream(self._device)
        if work.cold:
            self._driver.reset_persisting()
        begins = read_both(perf_counter_ns, monotonic_ns)
        pairs: list[tuple[Any, Any]] = []
        overtaken = 0
        while len(pairs) < count:
            begin, end = _Event(enable_timing=True), _Event(enable_timing=True)
            started = perf_counter_ns()
            if not work.waits:
                _sleep(max(1, int(work.lead * self._cycles_per_second)))
            work.restore()
            if work.cold:
                torch.sum(self._buffer, dim=0, out=self._sum)
            begin.record(stream)
            work.launch()
            end.record(stream)
            came_first = begin.query()
            if _current_stream(self._device) != stream:
                raise RuntimeError("the launch left another stream current than it found")
            ahead = 2 * (perf_counter_ns() - started) * 1e-9
            # Longer only where it was too short: once the launch queue is full, the host itself waits.
            work.lead = min(LONGEST_LEAD, max(ahead, 2 * work.lead) if came_first else min(work.lead, ahead))
            work.after()
            overtaken = overtaken + 1 if came_first else 0
            work.waits = work.waits or overtaken == MOST_OVERTAKEN
            work.counted.append(not came_first or work.waits)
            if work.counted[-1]:
                pairs.append((begin, end))
        if work.watch:
            work.watch()
        _synchronize(self._device)
        seconds = [begin.elapsed_time(end) * 1e-3 for begin, end in pairs]
        compare_clocks(work, begins, read_both(perf_counter_ns, monotonic_ns), sum(seconds))
        if work.waits:
            work.remarks.add("the host was not ahead of the device in each launch: launch latency may be in the figure")
        return seconds

    def state(self, first_sample: int) -> DeviceState | None:
        return read_device_state(self._device, first_sample)

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        """Cold: enough for a sample of `SAMPLE_SECONDS`, each launch on memory untouched since the flush.

        Hot: the same, but at most as many as fit together in half of the L2 cache, so that they stay in it.
        """
        if seconds >= SHORT:
            return 1
        wanted = min(MOST_LAUNCHES, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-6)))
        budget = min(MOST_BYTES, _free_memory(self._device)[0] // 4) if cold else self._cache // 2
        return max(1, min(wanted, budget // max(nbytes, 1)))

    def capture(self, launch: Callable[[], object]) -> Callable[[], object] | None:
        # torch.cuda.graph leaves its own stream current if the end of the capture fails.
        graph, stream, pool = _Graph(), _Stream(self._device), _pool_handle()
        _synchronize(self._device)
        try:
            with _use_stream(stream):
                graph.capture_begin(pool=pool)
                try:
                    launch()
                finally:
                    graph.capture_end()
        except Exception:  # the launch waits, or uses a stream that does not join: queue it instead
            with contextlib.suppress(RuntimeError, AttributeError):  # raises if the capture did end
                _end_pool(self._device.index, pool)
            return None
        finally:
            _synchronize(self._device)
        replay: Callable[[], object] = graph.replay
        return replay

    def persisting_bytes(self) -> int | None:
        return self._driver.persisting_bytes()

    def overheads(self) -> dict[str, float]:
        """``event``: between two events with nothing between them. ``launch``: the host's time to launch an empty
        kernel. ``graph``: between two events around the replay of a graph of one empty kernel."""
        empty = Work(lambda: None, cold=False)
        found = {"event": median(self.sample(empty, 100))}
        _synchronize(self._device)
        hosts = []
        for _ in range(100):
            begin = perf_counter_ns()
            _sleep(1)
            hosts.append((perf_counter_ns() - begin) * 1e-9)
        _synchronize(self._device)
        found["launch"] = median(hosts)
        if replay := self.capture(lambda: _sleep(1)):
            found["graph"] = median(self.sample(Work(replay, cold=False), 100))
        return found

    def _between_events(self, launch: Callable[[], object]) -> float:
        begin, end = _Event(enable_timing=True), _Event(enable_timing=True)
        stream = _current_stream(self._device)
        begin.record(stream)
        launch()
        end.record(stream)
        _synchronize(self._device)
        seconds: float = begin.elapsed_time(end) * 1e-3
        return seconds


class _Driver:
    """The two calls of the CUDA driver that torch does not expose."""

    _PERSISTING_L2_CACHE_SIZE = 0x06  # CUlimit

    def __init__(self) -> None:
        try:
            self._library: Any = ctypes.CDLL("libcuda.so.1")
        except OSError:
            self._library = None

    def persisting_bytes(self) -> int | None:
        limit = ctypes.c_size_t()
        if self._library is None or self._library.cuCtxGetLimit(ctypes.byref(limit), self._PERSISTING_L2_CACHE_SIZE):
            return None
        return limit.value

    def reset_persisting(self) -> None:
        if self._library is not None:
            self._library.cuCtxResetPersistingL2Cache()


def _end_pool(device: int, pool: Any) -> None:
    """Tell torch's allocator that a capture is over. torch does not do so if the end of the capture raised."""
    torch._C._cuda_endAllocateToPool(device, pool)
    torch._C._cuda_releasePool(device, pool)
