"""No flush of caches and no measured limits: both take seconds."""

import boltzbench.harness.callables.measure
import boltzbench.harness.callables.save
import pytest
from boltzbench.harness.timing import stopwatch
from support.attacks import QuietClock

LIMITS = {"read": 1e15, "write": 1e15, "copy": 1e15, "fma": 1e15, "float32 matrix": 1e16}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "clock_for", lambda device: QuietClock())
    for module in (boltzbench.harness.callables.measure, boltzbench.harness.callables.save):
        monkeypatch.setattr(module, "limits_of", lambda device: LIMITS)
