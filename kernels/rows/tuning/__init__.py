"""Autotuning: times a handful of plans on the device and keeps the fastest, in memory and on disk.

The search runs on a GPU when a class of shapes first occurs, and takes ten launches of each plan. Where it cannot run
(on the CPU, during the capture of a CUDA graph, with ``BOLTZBENCH_TUNE=0``) the first plan is used, a good default.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from ...builds import cache
from .launch_clock import median_seconds

Plan = TypeVar("Plan")

TIE, RESOLUTION = 1.03, 1e-6
"""A plan replaces one before it only if that is slower by more than 3 %, and by more than a microsecond: events resolve
half of one."""
SOURCES = ("*.py", "*.cu", "*.cuh")
"""The files of a folder of kernels that a timing depends on."""
KERNELS = Path(__file__).parents[1]
SOFTWARE = ("torch", "triton", "cupy-cuda13x", "cupy-cuda12x", "cupy")
"""The distributions whose versions a timing depends on."""
DRIVER = Path("/proc/driver/nvidia/version")


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
    known = _known(operation, device)
    key = f"{key}, {len(plans)} plans"
    if known.get(key, len(plans)) >= len(plans):
        if not _may_search():
            return 0
        times = median_seconds([functools.partial(launch, plan) for plan in plans], device)
        known[key] = 0 if times is None else fastest(times)
        if times is not None:
            content = {"measured_on": _conditions(device), "plans": known}
            data = json.dumps(content, indent=1).encode()
            with contextlib.suppress(OSError):  # the next process searches again
                cache.store("tuning", _name(operation, device), ".json", data, replacing=True)
    return known[key]


def fastest(times: Sequence[float]) -> int:
    """The place of the first time that is as good as the best: the plans come in the order of what a rule expects."""
    best = min(times)
    return next(place for place, time in enumerate(times) if time <= max(TIE * best, best + RESOLUTION))


def _has_a_clock(device: torch.device) -> bool:
    return device.type == "cuda"


def _may_search() -> bool:
    return not torch.cuda.is_current_stream_capturing()


@functools.cache
def _conditions(device: torch.device) -> dict[str, Any]:
    """What a timing depends on beside the kernels' source: the device, its driver and the software."""
    properties = torch.cuda.get_device_properties(device)
    versions = {}
    for name in SOFTWARE:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "device": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "driver": _driver(),
    } | versions


def _driver() -> str | None:
    """The version of NVIDIA's driver; None where Linux does not show it."""
    try:
        found = re.search(r"\d+\.\d[\d.]*", DRIVER.read_text())
    except OSError:
        return None
    return found[0] if found else None


@functools.cache
def _known(operation: str, device: torch.device) -> dict[str, int]:
    """The places of the plans chosen on this device, by class of shapes. Empty if the file cannot be read, is damaged,
    or was measured under other conditions."""
    try:
        path = cache.find("tuning", _name(operation, device), ".json")
        content = json.loads(path.read_text()) if path else None
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict) or content.get("measured_on") != _conditions(device):
        return {}
    plans: Any = content.get("plans")
    if not isinstance(plans, dict) or not all(type(place) is int and place >= 0 for place in plans.values()):
        return {}
    return plans


def _name(operation: str, device: torch.device) -> str:
    """The name of the file of a kind of device for the current source of the kernels: timings of other source do not
    apply."""
    slug = re.sub(r"\W+", "-", _conditions(device)["device"]).strip("-").lower()
    return f"{operation}-{slug}-{_source_hash(operation)}"


@functools.cache
def _source_hash(operation: str) -> str:
    """12 hexadecimal digits for the source of the operation's kernels and of rows/."""
    folders = (KERNELS / "rows", KERNELS / operation)
    files = sorted(file for folder in folders for pattern in SOURCES for file in folder.glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
