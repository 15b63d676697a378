"""Reads the reports of profilers: Nsight Compute's and Nsight Systems' CSV, Proton's and torch's JSON."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..api.messages import UsageError

METRICS = {
    "gpu__time_duration.sum": "seconds",
    "dram__bytes_read.sum": "bytes_read",
    "dram__bytes_write.sum": "bytes_written",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory_share",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "compute_share",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy",
    "launch__registers_per_thread": "registers",
}
"""The metrics of Nsight Compute that are read, by field of `Kernel`."""

UNITS = {
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "ns": 1e-9,
    "second": 1.0,
    "msecond": 1e-3,
    "usecond": 1e-6,
    "nsecond": 1e-9,
    "byte": 1.0,
    "Kbyte": 1e3,
    "Mbyte": 1e6,
    "Gbyte": 1e9,
    "Tbyte": 1e12,
    "%": 0.01,
    "": 1.0,
    "register/thread": 1.0,
    "register/block": 1.0,
}
"""What Nsight Compute's units are worth in seconds, bytes and shares; its prefixes are powers of 1000."""


class Unreadable(UsageError):
    """A profiler's report that cannot be read. The message says why."""


@dataclass(frozen=True)
class Kernel:
    """A kernel that ran: ``seconds`` is the mean of its launches. None is unknown to the profiler, or not available on
    this device. Shares are of the device's peak."""

    name: str
    launches: int
    seconds: float | None = None
    bytes_read: float | None = None
    bytes_written: float | None = None
    memory_share: float | None = None
    compute_share: float | None = None
    occupancy: float | None = None
    registers: float | None = None


def of_nsight_compute(text: str) -> list[Kernel]:
    """The kernels in the output of ``ncu --csv``: a line for each launch and metric, after lines of other kinds.

    Numbers have commas between thousands. Launches of one kernel are averaged. Raises Unreadable.
    """
    lines = text.splitlines()
    begin = next((place for place, line in enumerate(lines) if line.startswith('"ID",')), None)
    if begin is None:
        raise Unreadable(f"ncu reported no kernel: {_last_error(lines)}")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in csv.DictReader(line for line in lines[begin:] if line.startswith('"')):
        try:
            launch = found.setdefault(row["Kernel Name"], {}).setdefault(row["ID"], {})
            metric, unit, value = row["Metric Name"], row["Metric Unit"], row["Metric Value"]
        except KeyError as error:
            raise Unreadable(f"ncu's report has no column {error}") from error
        if metric in METRICS and value not in ("n/a", "", "nan"):
            if unit not in UNITS:
                raise Unreadable(f"ncu's report has {metric} in {unit!r}, a unit that is not known here")
            launch[METRICS[metric]] = float(value.replace(",", "")) * UNITS[unit]
    return [_mean(name, [*launches.values()]) for name, launches in found.items()]


def _mean(name: str, launches: list[dict[str, float]]) -> Kernel:
    fields = dict.fromkeys(field for launch in launches for field in launch)
    values = {field: [launch[field] for launch in launches if field in launch] for field in fields}
    return Kernel(name, len(launches), **{field: sum(each) / len(each) for field, each in values.items()})


def _last_error(lines: Iterable[str]) -> str:
    errors = [line.strip("= ") for line in lines if line.startswith("==ERROR==")]
    words = errors[-1].removeprefix("ERROR== ") if errors else "the launch has none, or the process failed"
    if "ERR_NVGPUCTRPERM" in words:
        words += "; run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0"
    return words


def of_nsight_systems(text: str) -> list[Kernel]:
    """The kernels in the output of ``nsys stats --report cuda_gpu_kern_sum --format csv``. Raises Unreadable."""
    lines = text.splitlines()
    begin = next((place for place, line in enumerate(lines) if line.startswith("Time (%),")), None)
    if begin is None:
        raise Unreadable("nsys reported no kernel")
    return [
        Kernel(row["Name"], int(row["Instances"]), float(row["Avg (ns)"]) * 1e-9)
        for row in csv.DictReader(line for line in lines[begin:] if line.strip())
    ]


def of_proton(text: str) -> list[Kernel]:
    """The kernels in Proton's tree: the leaves with a time. Raises Unreadable."""
    try:
        roots = json.loads(text)
        found: dict[str, list[float]] = {}
        for name, nanoseconds, count in (leaf for root in roots for leaf in _leaves(root)):
            total = found.setdefault(name, [0.0, 0])
            total[0] += nanoseconds * 1e-9
            total[1] += count
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise Unreadable(f"Proton's report cannot be read: {error}") from error
    if not found:
        raise Unreadable("Proton reported no kernel")
    return [Kernel(name, int(count), seconds / count) for name, (seconds, count) in found.items()]


def of_torch(text: str) -> list[Kernel]:
    """The kernels in a trace of torch.profiler, which knows their registers. Raises Unreadable."""
    try:
        found: dict[tuple[str, float | None], list[float]] = {}
        for event in json.loads(text)["traceEvents"]:
            if event.get("cat") == "kernel":
                registers = event.get("args", {}).get("registers per thread")
                found.setdefault((event["name"], registers), []).append(float(event["dur"]) * 1e-6)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise Unreadable(f"the trace of torch.profiler cannot be read: {error}") from error
    if not found:
        raise Unreadable("torch.profiler reported no kernel: CUPTI may be missing, or another profiler may use it")
    return [Kernel(name, len(each), sum(each) / len(each), registers=n) for (name, n), each in found.items()]


def _leaves(node: Mapping[str, Any]) -> Iterator[tuple[str, float, int]]:
    if "frame" not in node:  # the description of the devices
        return
    metrics = node.get("metrics", {})
    if not node.get("children") and "time (ns)" in metrics:
        yield node["frame"]["name"], float(metrics["time (ns)"]), int(metrics.get("count", 1))
    for child in node.get("children", ()):
        yield from _leaves(child)
