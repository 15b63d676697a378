"""Calls `sgld.cpp`: the Langevin updates on a CPU."""

import ctypes
from pathlib import Path

from ..native import Keys, NativeModule
from .request import LaunchRequest, Numbers, Place

BLOCK = 1 << 15
"""Elements that a thread takes at a time; a multiple of the chunk of sgld.cpp."""

MODULE = NativeModule(Path(__file__).with_name("sgld.cpp"))


class Settings(ctypes.Structure):
    """`Settings` in sgld.cpp."""

    _fields_ = (("numbers", ctypes.c_double * 5), ("keys", Keys), ("step", ctypes.c_uint32))


def update(updates: LaunchRequest, numbers: Numbers, place: Place) -> None:
    """Update every parameter, and its state, in place."""
    tensors, blocks = updates.table(BLOCK)
    step = place.step if place.device_step is None else int(place.device_step)
    factors = (numbers.drift, numbers.noise, numbers.keep, numbers.take, numbers.damping)
    settings = Settings(factors, Keys.of(place.seed), step & 0xFFFFFFFF)
    MODULE.call(numbers.kind, tensors, blocks, len(blocks), BLOCK, settings)
