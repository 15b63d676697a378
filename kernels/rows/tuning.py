"""A small search for the best of a handful of plans by the clock, kept per device in memory and on disk.

It runs on a GPU, the first time that a class of shapes is met, and takes as long as some twenty launches. Where it
cannot run (on the CPU, while a CUDA graph is captured, with ``BOLTZBENCH_TUNE=0``) the first plan is taken, which is a
good one everywhere.
"""

import functools
import hashlib
import json
import os
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from ..emulator import cache_directory, write_atomically

Plan = TypeVar("Plan")

REPETITIONS = 5
SOURCES = ("rows.cuh", "softmax.cuh", "shapes.py", "../logsumexp/logsumexp.cu", "../logsumexp/triton_kernels.py")


def run_best(key: str, plans: Sequence[Plan], launch: Callable[[Plan], None], device: torch.device) -> None:
    """Launch the best plan for ``key``, a class of shapes; any plan gives a right result, into the same outputs.

    Two plans may differ in the last bits. What was found is kept, so that a device takes the same one every time.
    """
    place = choice(key, plans, launch, device) if len(plans) > 1 else 0
    launch(plans[place])


def choice(key: str, plans: Sequence[Plan], launch: Callable[[Plan], None], device: torch.device) -> int:
    """The place of the plan to take."""
    if not _has_a_clock(device) or os.environ.get("BOLTZBENCH_TUNE") == "0":
        return 0
    name = _device_name(device)
    known = _known(name)
    key = f"{key}, {len(plans)} plans"
    if key not in known:
        if not _may_search():
            return 0
        times = [_seconds(functools.partial(launch, plan)) for plan in plans]
        known[key] = times.index(min(times))
        write_atomically(_path(name), json.dumps(known, indent=1).encode())
    return known[key]


def _has_a_clock(device: torch.device) -> bool:
    return device.type == "cuda"


def _may_search() -> bool:
    return not torch.cuda.is_current_stream_capturing()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _seconds(launch: Callable[[], None]) -> float:
    """The median time of a launch. The first compiles."""
    launch()
    times: list[float] = []
    for _ in range(REPETITIONS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        launch()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(times)


@functools.cache
def _known(device_name: str) -> dict[str, int]:
    """What has been found on a device, by class of shapes; a file that cannot be read counts as none."""
    try:
        found = json.loads(_path(device_name).read_text())
        return {str(key): int(place) for key, place in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _path(device_name: str) -> Path:
    """The file of a device, for kernels as they are now: what was found for others says nothing of these."""
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in SOURCES)
    slug = re.sub(r"\W+", "-", device_name).strip("-").lower()
    return cache_directory("tuning") / f"logsumexp-{slug}-{hashlib.sha256(sources).hexdigest()[:12]}.json"
