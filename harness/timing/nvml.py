"""The state that a GPU reports through NVML during timing: clocks, temperature, power, and reasons for throttling.

NVML finds the device by its UUID or PCI address, because its device numbers ignore CUDA_VISIBLE_DEVICES and those of
torch do not. A slice of a card (MIG) has the readings of the whole card. Readings are None without NVML, or if the
device does not provide them.
"""

import contextlib
import functools
import importlib
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
    )


def throttling(reasons: int) -> tuple[str, ...]:
    """The throttling reasons in NVML's bit mask of clock event reasons, in words."""
    return tuple(words for bit, words in THROTTLING.items() if reasons & bit)


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
