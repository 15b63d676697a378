"""Calls `annealed_langevin.cpp`: Langevin walkers in a double well on a CPU."""

import ctypes
from pathlib import Path

from ..native import Keys, NativeModule
from .request import LaunchRequest

MODULE = NativeModule(Path(__file__).with_name("annealed_langevin.cpp"))


class Settings(ctypes.Structure):
    """`Settings` in annealed_langevin.cpp."""

    _fields_ = (
        ("keys", Keys),
        *((name, ctypes.c_int64) for name in ("walkers", "groups", "first_group", "offset", "first_step", "steps")),
        ("factor", ctypes.c_float),
        ("threshold", ctypes.c_float),
    )


def walk(walk: LaunchRequest) -> None:
    """Write ``walk.x`` and ``walk.passages``."""
    walk.x.copy_(walk.start)
    if walk.passages is not None:
        walk.passages.fill_(-1) if walk.earlier is None else walk.passages.copy_(walk.earlier)
    settings = Settings(
        Keys.of(walk.seed), len(walk.x), walk.groups, walk.first_group, walk.offset, walk.first_step, len(walk.scales),
        -2.0 * walk.step_size, walk.threshold,
    )  # fmt: skip
    MODULE.call("walk_all", walk.x, walk.passages, walk.scales, settings)
