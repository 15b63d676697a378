"""No test is flagged for what the test runner does meanwhile."""

import pytest
from support.attacks import ignore_present_threads


@pytest.fixture(autouse=True)
def _ignore_present_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    ignore_present_threads(monkeypatch)
