"""Sweeps of a Boltzmann machine in CUDA C: launching `boltzmann_gibbs.cu`."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..philox import round_keys
from .prepared import PreparedMachine
from .request import LaunchRequest

WARPS, QUAD, CHAINS = 8, 4, 32
"""Warps of a block, units that share a Philox call, chains of a block; as in the .cu."""
PARTS_BYTES = QUAD * WARPS * 32 * 4
MOST_SHARED_BYTES = 227 * 1024
"""Of a block in the emulator, as on sm_90 and sm_100."""
LONG_LIST = 32
"""With at least so many links for each unit, and few units of a colour, the warps of a block share each unit: every
warp then has a load. An assumption, not measured."""


class Settings(ctypes.Structure):
    """`Settings` of the .cu."""

    _fields_ = (
        ("keys", ctypes.c_uint32 * 20),
        ("chains", ctypes.c_longlong),
        ("first_chain", ctypes.c_longlong),
        ("clamped_stride_chain", ctypes.c_longlong),
        ("clamped_stride_unit", ctypes.c_longlong),
        ("beta", ctypes.c_double),
        ("units", ctypes.c_int),
        ("colours", ctypes.c_int),
        ("first_step", ctypes.c_uint32),
        ("sweeps", ctypes.c_uint32),
        ("low", ctypes.c_uint32),
    )

    @classmethod
    def of(cls, work: LaunchRequest) -> "Settings":
        low, high = zip(*round_keys(work.seed), strict=True)
        strides = (0, 0) if work.clamped is None else work.clamped.stride()
        return cls(
            (*low, *high), len(work.out), work.first_chain, *strides,
            0.0 if isinstance(work.beta, Tensor) else work.beta, work.machine.units, len(work.machine.sizes),
            work.first_sweep, work.sweeps, work.low,
        )  # fmt: skip


@functools.cache
def module() -> CudaModule:
    return CudaModule(
        Path(__file__).with_name("boltzmann_gibbs.cu"), ["sweeps_by_colour<false>", "sweeps_by_colour<true>"]
    )


def shares_units(machine: PreparedMachine) -> bool:
    """Whether all warps of a block work on every unit: for few units of a colour and long lists of links."""
    quads = sum(-(-size // QUAD) for size in machine.sizes)
    return quads < WARPS * len(machine.sizes) and len(machine.links) >= LONG_LIST * machine.units


def run(work: LaunchRequest) -> None:
    """Write ``work.out``, which is not empty."""
    machine = work.machine
    shared = shares_units(machine)
    room = MOST_SHARED_BYTES
    if work.out.device.type == "cuda":
        properties = torch.cuda.get_device_properties(work.out.device)
        room = int(getattr(properties, "shared_memory_per_block_optin"))  # noqa: B009
    most_units = (room - PARTS_BYTES) // 16 * 4
    if machine.units > most_units:
        raise ValueError(
            f"machine must have at most {most_units} units for backend cupy, which keeps states in shared memory, "
            f"got {machine.units}: use backend triton or torch"
        )
    quads = max(-(-size // QUAD) for size in machine.sizes) + 1  # a colour may begin within four
    module().launch(
        f"sweeps_by_colour<{str(shared).lower()}>",
        (-(-len(work.out) // CHAINS),),
        (32 * (WARPS if shared else min(WARPS, quads)),),
        [
            work.states, work.out, machine.order, machine.colours, machine.first, machine.links, machine.weights,
            machine.biases, work.clamped, work.beta if isinstance(work.beta, Tensor) else None, Settings.of(work),
        ],
        shared_bytes=16 * -(-machine.units // 4),
        device=work.out.device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """Both kernels: units by warps on a lattice of 64 x 64, and rows by blocks for 1024 units that are all coupled."""
    return [
        CudaVariant(
            name=name,
            threads=32 * WARPS,
            items=4,
            unit="links",
            bytes_per_item=0.0,
            access_bytes=16,
            module=module(),
            kernel=f"sweeps_by_colour<{shared}>",
            shared_bytes=4 * units,
        )
        for name, shared, units in (("units by warps", "false", 4096), ("rows by blocks", "true", 1024))
    ]
