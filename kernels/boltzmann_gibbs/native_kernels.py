"""Sweeps of a Boltzmann machine on a CPU: calling `boltzmann_gibbs.cpp`."""

import ctypes
from pathlib import Path

from torch import Tensor

from ..native import Keys, NativeModule
from .prepared import PreparedMachine
from .request import LaunchRequest

MODULE = NativeModule(Path(__file__).with_name("boltzmann_gibbs.cpp"))


class Settings(ctypes.Structure):
    """`Settings` in boltzmann_gibbs.cpp."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("states", "out", "clamped", "betas", "order", "first", "links", "rows", "biases")
        ),
        *((name, ctypes.c_int64) for name in ("chains", "units", "row_stride")),
        ("clamped_strides", ctypes.c_int64 * 2),
        *((name, ctypes.c_int64) for name in ("first_chain", "sweeps")),
        ("beta", ctypes.c_double),
        ("keys", Keys),
        ("first_step", ctypes.c_uint32),
        ("bytes", ctypes.c_uint8 * 2),
    )


def has_many_bonds(machine: PreparedMachine) -> bool:
    """Whether sums by tables take less time than a multiply-add for each link.

    Tables take a quarter of an addition for each unit, and what else they take is as much as for some 512 more units.
    """
    return 4 * len(machine.links) > machine.units * (machine.units + 512)


def run(work: LaunchRequest) -> None:
    """Write ``work.out``, which is not empty."""
    machine = work.machine
    betas, beta = (work.beta, 0.0) if isinstance(work.beta, Tensor) else (None, work.beta)
    tensors = (
        work.states, work.out, work.clamped, betas, machine.order, machine.first, machine.links, machine.weights,
        machine.biases,
    )  # fmt: skip
    settings = Settings(
        *(None if each is None else each.data_ptr() for each in tensors),
        len(work.out), machine.units, machine.weights.stride(0),
        (0, 0) if work.clamped is None else work.clamped.stride(),
        work.first_chain, work.sweeps, beta, Keys.of(work.seed), work.first_sweep, (work.low, 1),
    )  # fmt: skip
    MODULE.call("advance", settings, int(has_many_bonds(machine)))
