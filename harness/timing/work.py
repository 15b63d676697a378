"""The work that a clock times, and the consistency checks that all clocks share."""

from collections.abc import Callable
from dataclasses import dataclass, field

CACHE_MULTIPLE = 3
"""A flush reads a buffer of this many times the last-level cache. It does not write: the device would write dirty
lines back during the next launch, and the launch would be charged for them."""


@dataclass
class Work:
    """One piece of work to time.

    The clock times ``launch`` alone. It calls ``restore`` before each launch and ``after`` behind it. On a GPU all
    three only enqueue. If ``cold``, the clock flushes the caches between ``restore`` and ``launch``. It calls
    ``watch``, if there is one, once for each block, when everything is enqueued and before it waits for the device.
    """

    launch: Callable[[], object]
    restore: Callable[[], object] = lambda: None
    after: Callable[[], object] = lambda: None
    watch: Callable[[], object] | None = None
    cold: bool = True
    lead: float = 0.0
    """Seconds by which the host should be ahead of a GPU. The clock adjusts it."""
    waits: bool = False
    """The GPU waited for the host despite the lead, so launch latency is part of the measured time."""
    counted: list[bool] = field(default_factory=list)
    """For each launch since the list was emptied, whether its time is a sample."""
    remarks: set[str] = field(default_factory=set)
    """Reasons to distrust the clock's figures, found while sampling."""


def read_both(first: Callable[[], int], second: Callable[[], int]) -> tuple[int, int]:
    """Read two clocks at the same time. Tries again if the process was interrupted between the readings."""
    for _ in range(10):
        before, other, after = first(), second(), first()
        if after - before < 100_000:
            break
    return before, other


def compare_clocks(work: Work, begins: tuple[int, int], ends: tuple[int, int], on_device: float = 0.0) -> None:
    """Add a remark to ``work`` if two host clocks, or host and device, disagree about the length of a block."""
    first, second = ((end - begin) * 1e-9 for begin, end in zip(begins, ends, strict=True))
    allowed = 1e-3 + 0.01 * max(first, second)
    if abs(first - second) > allowed:
        work.remarks.add(f"two clocks disagree about one block: {first:.6f} s and {second:.6f} s")
    if on_device > second + allowed:
        work.remarks.add(f"the device says {on_device:.6f} s for a block that took the host {second:.6f} s")
