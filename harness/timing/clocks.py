"""Clocks for CPU and GPU: each times pieces of work, with all that must not be timed kept outside.

Everything that reads the time is bound when this module is imported, which is before any plugin is: what a plugin
replaces later is not what measures it, and `replaced_timers` tells that it did.
"""

import contextlib
import ctypes
import functools
import math
import platform
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic_ns, perf_counter_ns
from typing import Any, Literal

import torch

from ..api.records import DeviceState
from .nvml import read_device_state

# Bound here, see above. The tests put fakes in their place, since most machines have no GPU.
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

_TIMERS: list[tuple[Any, str]] = [
    *((time, name) for name in ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns")),
    *((torch.cuda, name) for name in ("Event", "CUDAGraph", "Stream", "synchronize", "current_stream", "_sleep")),
    *((torch.cuda.Event, name) for name in ("record", "elapsed_time", "query", "synchronize")),
]
_ORIGINALS = [(owner, name, getattr(owner, name)) for owner, name in _TIMERS]

CACHES = 3
"""A flush reads this many times the last-level cache. It reads, and does not write: lines left dirty would be written
back while the next kernel is timed, at its cost."""

UNKNOWN_CACHE = 64 << 20
"""Bytes taken for a CPU's last-level cache where the system does not tell its size: more than most have."""

SHORT = 50e-6
"""Kernels that take less, in seconds, are timed many at a time: an event is only good to about half a microsecond."""

SAMPLE_SECONDS = 200e-6
MOST_LAUNCHES = 64
MOST_BYTES = 4 << 30
"""What a sample of short kernels should last, and what it may need for the memory of all its launches."""

LONGEST_LEAD = 0.1
"""Seconds that the device is kept waiting at most while the host enqueues a sample."""

MOST_OVERTAKEN = 6
"""Samples in a row in which the device was first, after which it is taken to be so always."""


@dataclass
class Work:
    """A piece of work to time, and what goes with it.

    ``launch`` alone is timed. ``restore`` goes before each, ``after`` behind each; they and ``launch`` only enqueue
    where the device is a GPU. If ``cold``, caches are flushed between restoring and launching.
    """

    launch: Callable[[], object]
    restore: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    cold: bool = True
    lead: float = 0.0
    """Seconds by which the host should be ahead of a GPU; found out by the clock."""
    waits: bool = False
    """The device had to wait for the host, whatever the lead: the launch's latency is in its time."""
    remarks: set[str] = field(default_factory=set)
    """What the clock noticed that makes its figures suspect."""


class Clock(typing.Protocol):
    """Measures work on one kind of device."""

    device_name: str
    method: Literal["host", "queue"]

    def now(self) -> float:
        """The host's seconds, by which limits are kept."""

    def sample(self, work: Work, count: int) -> list[float]:
        """Seconds of each of ``count`` launches, after the last of which it is waited for the device."""

    def state(self, first_sample: int) -> DeviceState | None:
        """What the device says of itself now; None if it says nothing."""

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        """How many launches a sample needs, each on memory of its own of ``nbytes``, if one takes ``seconds``."""

    def capture(self, launch: Callable[[], object]) -> Callable[[], object] | None:
        """A graph of what ``launch`` enqueues, as a function that replays it; None if there can be none."""

    def persisting_bytes(self) -> int | None:
        """The part of the GPU's L2 that lines may be kept in against all flushing; None if that is not known."""

    def overheads(self) -> dict[str, float]:
        """What measuring costs, in seconds, by name."""


class CpuClock:
    """The host's monotonic clock, around each launch.

    Cold: before each launch a buffer of three times the last-level cache is read. A second clock is read around each
    block; if they disagree, one of them is not what it was.
    """

    device_name = platform.processor() or platform.machine()
    method: Literal["host", "queue"] = "host"

    def __init__(
        self, nanoseconds: Callable[[], int] = perf_counter_ns, second: Callable[[], int] = monotonic_ns
    ) -> None:
        self._nanoseconds, self._second = nanoseconds, second
        self._buffer: torch.Tensor | None = None

    def now(self) -> float:
        return self._nanoseconds() * 1e-9

    def sample(self, work: Work, count: int) -> list[float]:
        seconds = []
        begins = _both(self._nanoseconds, self._second)
        for _ in range(count):
            work.restore()
            if work.cold:
                self._flush()
            begin = self._nanoseconds()
            work.launch()
            seconds.append((self._nanoseconds() - begin) * 1e-9)
            work.after()
        _compare_clocks(work, begins, _both(self._nanoseconds, self._second))
        return seconds

    def state(self, first_sample: int) -> DeviceState | None:
        return None

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        return 1

    def capture(self, launch: Callable[[], object]) -> Callable[[], object] | None:
        return None

    def persisting_bytes(self) -> int | None:
        return None

    def overheads(self) -> dict[str, float]:
        return {"timer": _median([-self._nanoseconds() + self._nanoseconds() for _ in range(1001)]) * 1e-9}

    def _flush(self) -> None:
        if self._buffer is None:
            self._buffer = torch.zeros(CACHES * last_level_cache() // 4)
        self._buffer.sum()


class CudaClock:
    """Events on the device's current stream, one synchronisation for each block.

    A sample goes: a kernel that only waits; restoring; the flush, by reading three times the L2 cache; an event; the
    launches; an event; the fingerprints. The host enqueues all of it while the device waits, so that no launch
    latency lies between the events. A sample in which the device came first to the first event is taken again, with
    a longer wait. Since restoring lies behind the wait too, work on another stream that did not wait for this one was
    done before it, and is undone by it.

    Hot: the same without the flush.
    """

    method: Literal["host", "queue"] = "queue"

    def __init__(self, device: torch.device) -> None:
        properties = _device_properties(device)
        self.device_name = properties.name
        self._device = device
        self._cache = properties.L2_cache_size
        self._buffer = torch.zeros(max(1, CACHES * self._cache // 4), dtype=torch.float32, device=device)
        self._sum = torch.zeros((), dtype=torch.float32, device=device)
        self._driver = _Driver()
        cycles = 1_000_000
        for _ in range(2):  # the first one wakes the device
            self._cycles_per_second = cycles / self._between_events(lambda: _sleep(cycles))

    def now(self) -> float:
        return perf_counter_ns() * 1e-9

    def sample(self, work: Work, count: int) -> list[float]:
        stream = _current_stream(self._device)
        if work.cold:
            self._driver.reset_persisting()
        begins = _both(perf_counter_ns, monotonic_ns)
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
            # Never longer but where it was too short: once the queue of launches is full, the host itself waits.
            work.lead = min(LONGEST_LEAD, max(ahead, 2 * work.lead) if came_first else min(work.lead, ahead))
            work.after()
            overtaken = overtaken + 1 if came_first else 0
            work.waits = work.waits or overtaken == MOST_OVERTAKEN
            if not came_first or work.waits:
                pairs.append((begin, end))
        _synchronize(self._device)
        seconds = [begin.elapsed_time(end) * 1e-3 for begin, end in pairs]
        _compare_clocks(work, begins, _both(perf_counter_ns, monotonic_ns), sum(seconds))
        if work.waits:
            work.remarks.add("the host was not ahead of the device in each launch: launch latency may be in the figure")
        return seconds

    def state(self, first_sample: int) -> DeviceState | None:
        return read_device_state(self._device, first_sample)

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        """Cold: so many that a sample lasts long enough, each on memory that nobody touched since the flush.

        Hot: the same, but no more than fit in half of the L2 cache together, since it is there that they are hot.
        """
        if seconds >= SHORT:
            return 1
        wanted = min(MOST_LAUNCHES, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-6)))
        budget = min(MOST_BYTES, _free_memory(self._device)[0] // 4) if cold else self._cache // 2
        return max(1, min(wanted, budget // max(nbytes, 1)))

    def capture(self, launch: Callable[[], object]) -> Callable[[], object] | None:
        # torch.cuda.graph would leave its own stream current where the end of the capture fails.
        graph, stream, pool = _Graph(), _Stream(self._device), _pool_handle()
        _synchronize(self._device)
        try:
            with _use_stream(stream):
                graph.capture_begin(pool=pool)
                try:
                    launch()
                finally:
                    graph.capture_end()
        except Exception:  # a launch that waits, or uses a stream that does not join: it is queued instead
            with contextlib.suppress(RuntimeError, AttributeError):  # raises where the capture did come to its end
                _end_pool(self._device.index, pool)
            return None
        finally:
            _synchronize(self._device)
        replay: Callable[[], object] = graph.replay
        return replay

    def persisting_bytes(self) -> int | None:
        return self._driver.persisting_bytes()

    def overheads(self) -> dict[str, float]:
        """``event``: an event pair with nothing between. ``launch``: the host's for a kernel that does nothing.
        ``graph``: an event pair around the replay of one such kernel."""
        empty = Work(lambda: None, cold=False)
        found = {"event": _median(self.sample(empty, 100))}
        _synchronize(self._device)
        hosts = []
        for _ in range(100):
            begin = perf_counter_ns()
            _sleep(1)
            hosts.append((perf_counter_ns() - begin) * 1e-9)
        _synchronize(self._device)
        found["launch"] = _median(hosts)
        if replay := self.capture(lambda: _sleep(1)):
            found["graph"] = _median(self.sample(Work(replay, cold=False), 100))
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
    """The two calls of the CUDA driver that torch has no name for."""

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


@functools.cache
def clock_for(device: torch.device) -> Clock:
    return CudaClock(device) if device.type == "cuda" else CpuClock()


def replaced_timers() -> list[str]:
    """The functions that tell the time, or bear on it, and are no longer what they were when this was imported."""
    return [f"{owner.__name__}.{name}" for owner, name, original in _ORIGINALS if getattr(owner, name) is not original]


def last_level_cache(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the first CPU's largest cache, as Linux tells them; `UNKNOWN_CACHE` where nothing does."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = []
    for path in folder.glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text or 0))
    return max(sizes, default=0) or UNKNOWN_CACHE


def _end_pool(device: int, pool: Any) -> None:
    """Tells torch's allocator that a capture is over. Where its end raised, torch itself leaves the allocator in it."""
    torch._C._cuda_endAllocateToPool(device, pool)
    torch._C._cuda_releasePool(device, pool)


def _both(first: Callable[[], int], second: Callable[[], int]) -> tuple[int, int]:
    """Two clocks read at one time: again, where the process was interrupted in between."""
    for _ in range(10):
        before, other, after = first(), second(), first()
        if after - before < 100_000:
            break
    return before, other


def _compare_clocks(work: Work, begins: tuple[int, int], ends: tuple[int, int], on_device: float = 0.0) -> None:
    """Remarks it where two clocks of the host, or the device and the host, disagree about how long a block took."""
    first, second = ((end - begin) * 1e-9 for begin, end in zip(begins, ends, strict=True))
    allowed = 1e-3 + 0.01 * max(first, second)
    if abs(first - second) > allowed:
        work.remarks.add(f"two clocks disagree about one block: {first:.6f} s and {second:.6f} s")
    if on_device > second + allowed:
        work.remarks.add(f"the device says {on_device:.6f} s for a block that took the host {second:.6f} s")


def _median(values: Sequence[float]) -> float:
    return float(sorted(values)[len(values) // 2])
