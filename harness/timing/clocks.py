"""What a clock must provide, and the choice of the clock for a device.

The modules of the clocks bind every function that reads the time when they are imported, which is before any plugin
is imported. A plugin that replaces such a function later does not change the measurement, and `replaced_timers`
reports it.
"""

import functools
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch

from ..api.records import DeviceState
from .cpu_clock import CpuClock
from .cuda_clock import CudaClock
from .work import Work

_TIMERS: list[tuple[Any, str]] = [
    *((time, name) for name in ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns")),
    *((torch.cuda, name) for name in ("Event", "CUDAGraph", "Stream", "synchronize", "current_stream", "_sleep")),
    *((torch.cuda.Event, name) for name in ("record", "elapsed_time", "query", "synchronize")),
]
_ORIGINALS = [(owner, name, getattr(owner, name)) for owner, name in _TIMERS]


class Clock(Protocol):
    """Measures work on one kind of device."""

    device_name: str
    method: Literal["host", "queue"]

    def now(self) -> float:
        """The host's time in seconds, against which time limits are checked."""

    def sample(self, work: Work, count: int) -> list[float]:
        """The seconds of each of ``count`` launches. Waits for the device after the last launch."""

    def state(self, first_sample: int) -> DeviceState | None:
        """What the device reports about itself now; None if it reports nothing. Call it while launches are in flight:
        an idle GPU reports that it is idle, and no throttling."""

    def sets(self, seconds: float, nbytes: int, *, cold: bool) -> int:
        """How many launches a sample needs if one takes ``seconds``. Each uses its own memory of ``nbytes``."""

    def capture(self, launch: Callable[[], object]) -> Callable[[], object] | None:
        """A function that replays a graph of what ``launch`` enqueues; None if it cannot be captured."""

    def persisting_bytes(self) -> int | None:
        """Bytes of the GPU's L2 cache set aside for lines that survive a flush; None if unknown."""

    def overheads(self) -> dict[str, float]:
        """The cost of measuring itself: seconds by name."""


@functools.cache
def clock_for(device: torch.device) -> Clock:
    return CudaClock(device) if device.type == "cuda" else CpuClock()


def replaced_timers() -> list[str]:
    """Functions that read or influence the time and were replaced since this module was imported."""
    return [f"{owner.__name__}.{name}" for owner, name, original in _ORIGINALS if getattr(owner, name) is not original]
