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
SOURCES = ("*.py", "*.cu", "*.cuh")
KERNELS = Path(__file__).parents[1]


def run_best(
    operation: str, key: str, plans: Sequence[Plan], launch: Callable[[Plan], None], device: torch.device
) -> None:
    """Launch the best plan for ``key``, a class of shapes; any plan gives a right result, into the same outputs.

    Two plans may differ in the last bits. What was found is kept, so that a device takes the same one every time.
    """
    place = choice(operation, key, plans, launch, device) if len(plans) > 1 else 0
    launch(plans[place])


def choice(
    operation: str, key: str, plans: Sequence[Plan], launch: Callable[[Plan], None], device: torch.device
) -> int:
    """The place of the plan to take."""
    if not _has_a_clock(device) or os.environ.get("BOLTZBENCH_TUNE") == "0":
        return 0
    name = _device_name(device)
    known = _known(operation, name)
    key = f"{key}, {len(plans)} plans"
    if key not in known:
        if not _may_search():
            return 0
        times = [_seconds(functools.partial(launch, plan)) for plan in plans]
        known[key] = times.index(min(times))
        write_atomically(_path(operation, name), json.dumps(known, indent=1).encode())
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
def _known(operation: str, device_name: str) -> dict[str, int]:
    """What has been found on a device, by class of shapes; a file that cannot be read counts as none."""
    try:
        found = json.loads(_path(operation, device_name).read_text())
        return {str(key): int(place) for key, place in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _path(operation: str, device_name: str) -> Path:
    """The file of a device, for kernels as they are now: what was found for others says nothing of these."""
    slug = re.sub(r"\W+", "-", device_name).strip("-").lower()
    return cache_directory("tuning") / f"{operation}-{slug}-{_source_hash(operation)}.json"


@functools.cache
def _source_hash(operation: str) -> str:
    """12 hexadecimal digits for the source of the operation's kernels and of all that row kernels share."""
    folders = (KERNELS / "rows", KERNELS / operation)
    files = sorted(file for folder in folders for pattern in SOURCES for file in folder.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
