"""What a clock must provide, and the choice of the clock for a device.

The modules of the clocks bind every function that reads the time when they are imported, which is before any plugin
is imported. A plugin that replaces such a function later does not change the measurement, and `tampering` reports
it.
"""

import functools
from collections.abc import Callable
from typing import Literal, Protocol

import torch

from ..api.records import DeviceState
from .cpu_clock import CpuClock
from .cuda_clock import CudaClock
from .work import Work


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
