"""The state that a GPU reports through NVML during timing: clocks, temperature, power, reasons for throttling, and what
other processes use of it.

NVML finds the device by its UUID or PCI address, because its device numbers ignore CUDA_VISIBLE_DEVICES and those of
torch do not. A slice of a card (MIG) has the readings of the whole card. Readings are None without NVML, or if the
device does not provide them.
"""

import contextlib
import functools
import importlib
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import torch

from ..api.records import DeviceState
from ..results.environment import card_names

THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown by software",
    0x40: "thermal slowdown by hardware",
    0x80: "power brake",
}
"""NVML's throttling reasons by bit. Its other reasons are not throttling: an idle GPU (0x01), clocks set by a user
(0x02, 0x100), and a synchronised group of GPUs (0x10)."""


NO_SAMPLES = (0, 6)  # nvmlReturn_t: success with nothing, and not found: no process has used the GPU
RECENT_SECONDS = 1.0
"""NVML samples the use of the multiprocessors a few times a second."""

_SM, _MEMORY = 1, 2  # nvmlClockType_t
_ON_THE_CHIP = 0  # nvmlTemperatureSensors_t


def read_device_state(device: torch.device, first_sample: int) -> DeviceState:
    """The current state of a CUDA device. Never raises. An idle device reports no throttling."""
    nvml, handle = _nvml_handle(card_names(torch.cuda.get_device_properties(device)))
    if nvml is None:
        return DeviceState(first_sample)

    def reading(name: str, *what: int) -> Any:
        try:
            return getattr(nvml, name)(handle, *what)
        except (nvml.NVMLError, AttributeError):  # some devices and versions lack some readings
            return None

    reasons = reading("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # the name before driver 535
        reasons = reading("nvmlDeviceGetCurrentClocksThrottleReasons")
    milliwatts = reading("nvmlDeviceGetPowerUsage")
    return DeviceState(
        first_sample,
        sm_clock_mhz=reading("nvmlDeviceGetClockInfo", _SM),
        memory_clock_mhz=reading("nvmlDeviceGetClockInfo", _MEMORY),
        temperature_c=reading("nvmlDeviceGetTemperature", _ON_THE_CHIP),
        power_w=None if milliwatts is None else milliwatts / 1000,
        throttled=throttling(reasons or 0),
        others=_used_by_others(nvml, handle),
    )


def throttling(reasons: int) -> tuple[str, ...]:
    """The throttling reasons in NVML's bit mask of clock event reasons, in words."""
    return tuple(words for bit, words in THROTTLING.items() if reasons & bit)


def _used_by_others(nvml: Any, handle: Any) -> float | None:
    """The fraction of the multiprocessors' time that processes of no part of this command used in the last second.

    None if the driver does not say: on slices of a card, and in a container, where it numbers processes otherwise.
    """
    try:
        present = {each.pid for each in nvml.nvmlDeviceGetComputeRunningProcesses(handle)}
        if os.getpid() not in present:
            return None
        if all(map(_is_ours, present)):
            return 0.0
        since = int((time.time() - RECENT_SECONDS) * 1e6)
        used: dict[int, int] = {}
        for sample in nvml.nvmlDeviceGetProcessUtilization(handle, since):
            if sample.smUtil <= 100:  # larger: the driver does not know
                used[sample.pid] = max(used.get(sample.pid, 0), sample.smUtil)
    except AttributeError:
        return None
    except nvml.NVMLError as error:
        return 0.0 if getattr(error, "value", None) in NO_SAMPLES else None
    return min(sum(percent for pid, percent in used.items() if not _is_ours(pid)) / 100, 1.0)


def _is_ours(pid: int) -> bool:
    """Whether a process is this one, the command that started it, or another one that the command started."""
    parent = multiprocessing.parent_process()
    command = parent.pid if parent else os.getpid()
    while pid > 1:
        if pid in (command, os.getpid()):
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):  # it has ended, or belongs to another container
            return False
    return False


@functools.cache
def _nvml_handle(names: tuple[str, ...]) -> tuple[Any, Any]:
    """The NVML module and its handle of the card with the first of these names that it knows; (None, None) without."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # no package, no driver, or another version: they share no exception class
        return None, None
    for name in names:
        with contextlib.suppress(Exception):
            by_uuid = name.startswith("GPU-")
            return nvml, (nvml.nvmlDeviceGetHandleByUUID if by_uuid else nvml.nvmlDeviceGetHandleByPciBusId)(name)
    return None, None
