"""What a GPU says of itself while it is timed: clocks, temperature, power, and why it runs slower than asked.

From NVML, by the device's UUID: NVML counts all devices of the machine, and torch only those that
CUDA_VISIBLE_DEVICES leaves. Without NVML, or where a device keeps a reading to itself, the reading is None.
"""

import functools
import importlib
from typing import Any

import torch

from ..api.records import DeviceState

THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "thermal slowdown by software",
    0x40: "thermal slowdown by hardware",
    0x80: "power brake",
}
"""NVML's reasons for a clock below what was asked for, by bit. Its others are none: an idle GPU (0x01), clocks that
someone set (0x02, 0x100), and a group of GPUs kept in step (0x10)."""


_SM, _MEMORY = 1, 2  # nvmlClockType_t
_ON_THE_CHIP = 0  # nvmlTemperatureSensors_t


def read_device_state(device: torch.device, first_sample: int) -> DeviceState:
    """The state of a CUDA device now. Raises nothing."""
    nvml, handle = _nvml_handle(str(torch.cuda.get_device_properties(device).uuid))
    if nvml is None:
        return DeviceState(first_sample)

    def reading(name: str, *what: int) -> Any:
        try:
            return getattr(nvml, name)(handle, *what)
        except (nvml.NVMLError, AttributeError):  # not every device, nor every version, has every reading
            return None

    milliwatts = reading("nvmlDeviceGetPowerUsage")
    return DeviceState(
        first_sample,
        sm_clock_mhz=reading("nvmlDeviceGetClockInfo", _SM),
        memory_clock_mhz=reading("nvmlDeviceGetClockInfo", _MEMORY),
        temperature_c=reading("nvmlDeviceGetTemperature", _ON_THE_CHIP),
        power_w=None if milliwatts is None else milliwatts / 1000,
        throttled=throttling(reading("nvmlDeviceGetCurrentClocksThrottleReasons") or 0),
    )


def throttling(reasons: int) -> tuple[str, ...]:
    """The words for NVML's bit mask of clock event reasons, without those that are no throttling."""
    return tuple(words for bit, words in THROTTLING.items() if reasons & bit)


@functools.cache
def _nvml_handle(uuid: str) -> tuple[Any, Any]:
    """The NVML module and its handle of the device; (None, None) where there is none."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except Exception:  # the package is absent, or the driver is not there or not of its version: it has no one class
        return None, None
