"""Calls `ising.cpp`: sweeps of the Ising model on a CPU."""

import ctypes
from pathlib import Path

from ..native import Keys, NativeModule
from .request import LaunchRequest

MODULE = NativeModule(Path(__file__).with_name("ising.cpp"))


class Settings(ctypes.Structure):
    """`Settings` in ising.cpp."""

    _fields_ = (
        ("keys", Keys),
        *(
            (name, ctypes.c_int64)
            for name in ("lattices", "first_word", "height", "words", "columns", "first_row", "rows")
        ),
        ("unsatisfied", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
    )


def all_sweeps(half: LaunchRequest, sweeps: int) -> None:
    """Write the spins after ``sweeps`` sweeps to ``half.spins``; ``half`` is the first half sweep."""
    half.spins.copy_(half.own)
    _advance(half, 2 * sweeps)


def half_sweep(half: LaunchRequest) -> None:
    """Write the spins of the colour to ``half.spins``, which must be ``half.own`` and ``half.around``, too."""
    _advance(half, 1)


def _advance(half: LaunchRequest, halves: int) -> None:
    """Advance ``half.spins`` by this many half sweeps, from that of ``half.colour`` on."""
    lattices, _, height, words = half.spins.shape
    unsatisfied = (1 << 32) - 1 if half.satisfied > 0 else 0
    settings = Settings(
        Keys.of(half.seed), lattices, half.first_word, height, words, half.width // 2, half.first_row, half.rows,
        unsatisfied, half.step,
    )  # fmt: skip
    classes = half.thresholds.shape[1]
    MODULE.call("advance_lattices", half.spins, half.thresholds, classes, half.colour, half.colour + halves, settings)
