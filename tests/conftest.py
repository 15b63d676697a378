"""Keeps plugins of other distributions out of the tests, which judge what boltzbench brings itself, and chance.

`support/` holds no tests: those in `support/one_room/` run in a copy of the tree, where their operation exists.
"""

import os
import random
import sys
from importlib import metadata

import pytest
from boltzbench.harness.discovery.registry import ENTRY_POINT_GROUP, PLUGINS_VARIABLE

collect_ignore = ["support"]

# Set here, before any test is collected, and inherited by processes that tests start.
os.environ[PLUGINS_VARIABLE] = ",".join(
    each.name
    for each in metadata.entry_points(group=ENTRY_POINT_GROUP)
    if each.dist is not None and each.dist.name == "boltzbench"
)

SEED = 20_251_130
"""Of torch's own generator; no test gives this seed to a generator of its own."""


@pytest.fixture(autouse=True)
def _draws_do_not_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run of a test draw the same numbers, whatever ran before it in the same process.

    The harness draws the lengths of blocks and the values of launches from the system, so that no kernel foresees them.
    A test that looks for one wrong launch, or at one interval, would fail now and then although the harness is right.
    """
    numbers = random.Random(0)
    for name in ("stopwatch", "launch_audit"):
        if module := sys.modules.get(f"boltzbench.harness.timing.{name}"):
            monkeypatch.setattr(module, "_random", numbers)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(SEED)
