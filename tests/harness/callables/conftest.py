"""A clock that does not depend on the load of the machine, and no measured limits, which take seconds."""

import boltzbench.harness.callables.measure
import boltzbench.harness.callables.save
import pytest
from boltzbench.harness.timing import stopwatch
from support.attacks import SteadyClock, ignore_present_threads

LIMITS = {"read": 1e15, "write": 1e15, "copy": 1e15, "fma": 1e15, "float32 matrix": 1e16}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: SteadyClock())
    ignore_present_threads(monkeypatch)
    for module in (boltzbench.harness.callables.measure, boltzbench.harness.callables.save):
        monkeypatch.setattr(module, "limits_of", lambda device: LIMITS)
