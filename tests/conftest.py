"""Keeps plugins of other distributions out of the tests, which judge what boltzbench brings itself.

`support/` holds no tests: those in `support/one_room/` run in a copy of the tree, where their operation exists.
"""

import os
from importlib import metadata

from boltzbench.harness.discovery.registry import ENTRY_POINT_GROUP, PLUGINS_VARIABLE

collect_ignore = ["support"]

# Set here, before any test is collected, and inherited by processes that tests start.
os.environ[PLUGINS_VARIABLE] = ",".join(
    each.name
    for each in metadata.entry_points(group=ENTRY_POINT_GROUP)
    if each.dist is not None and each.dist.name == "boltzbench"
)
