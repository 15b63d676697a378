"""Autotuning: times a handful of plans on the device and keeps the fastest, per device, in memory and on disk.

The search runs on a GPU when a class of shapes first occurs, and takes about twenty launches. Where it cannot run (on
the CPU, during the capture of a CUDA graph, with ``BOLTZBENCH_TUNE=0``) the first plan is used, a good default.
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
"""The files of a folder of kernels that a timing depends on."""
KERNELS = Path(__file__).parents[1]


def run_best(
    operation: str, key: str, plans: Sequence[Plan], launch: Callable[[Plan], None], device: torch.device
) -> None:
    """Launch the fastest plan for ``key``, a class of shapes. Every plan writes a correct result to the same outputs.

    The results of two plans may differ in the last bits. The choice is kept, so that a device always uses the same one.
    """
    place = choice(operation, key, plans, launch, device) if len(plans) > 1 else 0
    launch(plans[place])


def choice(
    operation: str, key: str, plans: Sequence[Plan], launch: Callable[[Plan], None], device: torch.device
) -> int:
    """The index of the plan to use."""
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
    """The median time of a launch, after one launch that compiles."""
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
    """The plans chosen on a device, by class of shapes. An unreadable file counts as empty."""
    try:
        found = json.loads(_path(operation, device_name).read_text())
        return {str(key): int(place) for key, place in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _path(operation: str, device_name: str) -> Path:
    """The file of a device for the current source of the kernels: timings of other source do not apply."""
    slug = re.sub(r"\W+", "-", device_name).strip("-").lower()
    return cache_directory("tuning") / f"{operation}-{slug}-{_source_hash(operation)}.json"


@functools.cache
def _source_hash(operation: str) -> str:
    """12 hexadecimal digits for the source of the operation's kernels and of rows/."""
    folders = (KERNELS / "rows", KERNELS / operation)
    files = sorted(file for folder in folders for pattern in SOURCES for file in folder.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
