"""The state of a GPU, read from a fake NVML, since most machines have none."""

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from boltzbench.harness.api.records import DeviceState
from boltzbench.harness.timing import nvml as device_state
from boltzbench.harness.timing.nvml import read_device_state, throttling

GPU = torch.device("cuda", 0)


class NVMLError(Exception):
    pass


def refuse(*_: object) -> None:
    raise NVMLError("not supported")


class Nvml(SimpleNamespace):
    """Two devices of one machine; the second is hot."""

    NVMLError = NVMLError

    def __init__(self, **replaced: Any) -> None:
        super().__init__(
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=["GPU-cool", "GPU-hot"].index,
            nvmlDeviceGetHandleByPciBusId=["00000000:1A:00.0", "00000000:E1:00.0"].index,
            nvmlDeviceGetClockInfo=lambda handle, which: {1: 1980, 2: 3201}[which] - 100 * handle,
            nvmlDeviceGetTemperature=lambda handle, sensor: (41, 88)[handle],
            nvmlDeviceGetPowerUsage=lambda handle: (120_500, 699_000)[handle],
            nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: (0x1, 0x4 | 0x20)[handle],
        )
        self.__dict__.update(replaced)


@pytest.fixture(autouse=True)
def _no_handle_is_kept() -> Iterator[None]:
    device_state._nvml_handle.cache_clear()
    yield
    device_state._nvml_handle.cache_clear()


def read(monkeypatch: pytest.MonkeyPatch, nvml: Any, uuid: str = "hot", **address: int) -> DeviceState:
    properties = SimpleNamespace(uuid=uuid, **address)
    monkeypatch.setattr(device_state, "time", SimpleNamespace(time=lambda: 1700.0))
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    return read_device_state(GPU, 30)


@pytest.mark.parametrize("uuid", ["hot", "GPU-hot"])
def test_the_device_is_found_by_its_uuid_and_not_by_its_number(monkeypatch: pytest.MonkeyPatch, uuid: str) -> None:
    assert read(monkeypatch, Nvml(), uuid) == DeviceState(
        30, 1880, 3101, 88, 699.0, ("power cap", "thermal slowdown by software")
    )
    assert read(monkeypatch, Nvml(), "cool") == DeviceState(30, 1980, 3201, 41, 120.5, ())


def test_a_slice_of_a_card_has_the_readings_of_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A MIG device has a UUID of its own, which NVML does not know as a card's."""
    address = {"pci_domain_id": 0, "pci_bus_id": 0xE1, "pci_device_id": 0}
    assert read(monkeypatch, Nvml(), "slice", **address).temperature_c == 88
    assert read(monkeypatch, Nvml(), "slice") == DeviceState(30), "nor its address, in an older torch"


def test_newer_drivers_have_another_name_for_the_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    newer = Nvml(
        nvmlDeviceGetCurrentClocksEventReasons=lambda handle: 0x40, nvmlDeviceGetCurrentClocksThrottleReasons=refuse
    )
    assert read(monkeypatch, newer).throttled == ("thermal slowdown by hardware",)


def test_other_clock_reasons_are_not_called_throttling() -> None:
    assert throttling(0x1 | 0x2 | 0x10 | 0x100) == ()
    assert throttling(0) == ()
    assert throttling(0x1FF) == tuple(device_state.THROTTLING.values())
    assert throttling(0x8 | 0x40 | 0x80) == ("hardware slowdown", "thermal slowdown by hardware", "power brake")


def test_a_reading_that_the_device_refuses_is_none_and_others_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml(nvmlDeviceGetPowerUsage=refuse, nvmlDeviceGetCurrentClocksThrottleReasons=refuse)
    del nvml.nvmlDeviceGetTemperature
    assert read(monkeypatch, nvml) == DeviceState(30, 1880, 3101)


@pytest.mark.parametrize(
    "nvml",
    [None, Nvml(nvmlInit=refuse), Nvml(nvmlDeviceGetHandleByUUID=refuse), SimpleNamespace()],
    ids=["not installed", "no driver", "unknown device", "another package of that name"],
)
def test_without_nvml_all_readings_are_none(monkeypatch: pytest.MonkeyPatch, nvml: Any) -> None:
    assert read(monkeypatch, nvml) == DeviceState(30)


def processes(present: list[int], used: dict[int, int] | NVMLError) -> Nvml:
    """An NVML that sees these processes on the GPU, with these percentages of the multiprocessors' time."""

    def utilization(handle: int, since: int) -> list[SimpleNamespace]:
        if isinstance(used, NVMLError):
            raise used
        assert since == 1699e6, "microseconds, a second ago"
        return [SimpleNamespace(pid=pid, smUtil=percent) for pid, percent in used.items()]

    return Nvml(
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [SimpleNamespace(pid=pid) for pid in present],
        nvmlDeviceGetProcessUtilization=utilization,
    )


ME, STRANGER = os.getpid(), 1
NOT_FOUND, NOT_SUPPORTED = NVMLError("not found"), NVMLError("not supported")
NOT_FOUND.value, NOT_SUPPORTED.value = 6, 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("present", "used", "others"),
    [
        ([ME], {ME: 90}, 0.0),
        ([ME, STRANGER], {ME: 60, STRANGER: 34}, 0.34),
        ([ME, STRANGER], {ME: 60}, 0.0),
        ([ME, STRANGER], {ME: 60, STRANGER: 2**32 - 1}, 0.0),
        ([ME, STRANGER], NOT_FOUND, 0.0),
        ([ME, STRANGER], NOT_SUPPORTED, None),
        ([STRANGER], {STRANGER: 34}, None),  # in a container this process has another number
    ],
)
def test_what_other_processes_use_of_the_gpu(
    monkeypatch: pytest.MonkeyPatch, present: list[int], used: dict[int, int] | NVMLError, others: float | None
) -> None:
    state = read(monkeypatch, processes(present, used))
    assert state.others == others
    assert state.is_disturbed is True, "the hot GPU throttles"
    assert read(monkeypatch, processes(present, used), "cool").is_disturbed is (others == 0.34)


def test_a_process_that_the_same_command_started_is_no_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    sibling = subprocess.Popen(["sleep", "60"])
    try:
        seen = processes([ME, sibling.pid], {ME: 50, sibling.pid: 50})
        assert read(monkeypatch, seen).others == 0.0
        parent = SimpleNamespace(pid=sibling.pid)  # as if another command had started this process
        monkeypatch.setattr(device_state.multiprocessing, "parent_process", lambda: parent)
        assert read(monkeypatch, seen).others == 0.0
        monkeypatch.setattr(device_state.os, "getpid", lambda: sibling.pid)
        monkeypatch.setattr(device_state.multiprocessing, "parent_process", lambda: None)
        assert read(monkeypatch, seen).others == 0.5
    finally:
        sibling.kill()
        sibling.wait()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_real_device_reports_its_temperature() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    state = read_device_state(GPU, 0)
    assert state.temperature_c is not None
    assert 0 < state.temperature_c < 120
    assert state.sm_clock_mhz
