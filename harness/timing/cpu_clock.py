"""The clock for CPU tensors: the host's monotonic clock around each launch."""

import platform
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import monotonic_ns, perf_counter_ns
from typing import Literal

import torch

from ..api.records import DeviceState
from .quiet import HostLoad
from .work import CACHE_MULTIPLE, Work, compare_clocks, read_both

UNKNOWN_CACHE = 64 << 20
"""Bytes assumed for the last-level cache where the system does not report its size: more than most CPUs have."""


class CpuClock:
    """The host's monotonic clock, read before and after each launch.

    Cold: the clock reads a buffer of three times the last-level cache before each launch. It reads a second clock
    around each block; if the two disagree, a plugin may have tampered with one. The state of a block is the load of
    other processes during it.
    """

    device_name = platform.processor() or platform.machine()
    method: Literal["host", "queue"] = "host"

    def __init__(
        self,
        nanoseconds: Callable[[], int] = perf_counter_ns,
        second: Callable[[], int] = monotonic_ns,
        load: HostLoad | None = None,
    ) -> None:
        self._nanoseconds, self._second = nanoseconds, second
        self._load = load or HostLoad()
        self._buffer: torch.Tensor | None = None

    def now(self) -> float:
        return self._nanoseconds() * 1e-9

    def sample(self, work: Work, count: int) -> list[float]:
        seconds = []
        if work.watch:
            self._load.begin()
        begins = read_both(self._nanoseconds, self._second)
        for _ in range(count):
            work.restore()
            if work.cold:
                self._flush()
            begin = self._nanoseconds()
            work.launch()
            seconds.append((self._nanoseconds() - begin) * 1e-9)
            work.counted.append(True)
            work.after()
        ends = read_both(self._nanoseconds, self._second)
        if work.watch:
            self._load.end()
            work.watch()
        compare_clocks(work, begins, ends)
        return seconds

    def state(self, first_sample: int) -> DeviceState | None:
        others = self._load.others()
        return None if others is None else DeviceState(first_sample, others=others)

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        return 1

    def capture(self, launch: Callable[[], object]) -> Callable[[], object] | None:
        return None

    def persisting_bytes(self) -> int | None:
        return None

    def overheads(self) -> dict[str, float]:
        return {"timer": median([-self._nanoseconds() + self._nanoseconds() for _ in range(1001)]) * 1e-9}

    def _flush(self) -> None:
        if self._buffer is None:
            self._buffer = torch.zeros(CACHE_MULTIPLE * last_level_cache() // 4)
        self._buffer.sum()


def last_level_cache(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the first CPU's largest cache as Linux reports them; otherwise `UNKNOWN_CACHE`."""
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    sizes = []
    for path in folder.glob("index*/size"):
        text = path.read_text().strip()
        sizes.append(int(text[:-1]) * units[text[-1]] if text[-1:] in units else int(text or 0))
    return max(sizes, default=0) or UNKNOWN_CACHE
