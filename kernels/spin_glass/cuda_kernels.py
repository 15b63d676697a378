"""Launches `spin_glass.cu`: the annealing of spin glasses."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

from ..common.shared_memory import most_shared_bytes
from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..philox import round_keys
from .bonds import BONDS, CLASSES, RULES
from .request import LaunchRequest

MOST_THREADS, FEWEST_THREADS = 128, 32
BITS = 32
BLOCK_BYTES = 56 * 1024
"""Shared memory of a block, so that a multiprocessor holds four; a block that needs more has fewer threads."""


class Settings(ctypes.Structure):
    """`Settings` in spin_glass.cu."""

    _fields_ = (
        ("keys", ctypes.c_uint32 * 20),
        ("groups", ctypes.c_longlong),
        ("first_group", ctypes.c_longlong),
        ("sites", ctypes.c_uint32),
        ("pairs", ctypes.c_uint32),
        ("first_sweep", ctypes.c_uint32),
        ("sweeps", ctypes.c_uint32),
    )

    @classmethod
    def of(cls, anneal: LaunchRequest) -> "Settings":
        low, high = zip(*round_keys(anneal.seed), strict=True)
        sites, groups = anneal.spins.shape
        pairs, sweeps = anneal.bonds.pairs.shape[1], len(anneal.table)
        return cls((*low, *high), groups, anneal.first_group, sites, pairs, anneal.first_sweep, sweeps)


@functools.cache
def module() -> CudaModule:
    return CudaModule(
        Path(__file__).with_name("spin_glass.cu"),
        [kernel_name(classes, rule == "heat_bath") for rule in RULES for classes in CLASSES[rule]],
    )


def kernel_name(classes: int, heat_bath: bool) -> str:
    return f"anneal<{classes}, {str(heat_bath).lower()}>"


def shared_bytes(sites: int, pairs: int, classes: int, threads: int) -> int:
    """Shared memory of a block: masks, pairs, starts and spins."""
    masks = 4 if classes == 3 else classes  # padded for vector loads
    return 2 * BITS * masks * 4 + sites * pairs * 8 + sites * 4 + sites * threads * 4


def anneal(anneal: LaunchRequest) -> None:
    """Update ``anneal.spins`` in place, in one launch. Raises ValueError if the glass does not fit in shared memory."""
    sites, groups = anneal.spins.shape
    pairs, classes = anneal.bonds.pairs.shape[1], anneal.table.shape[2]
    device, threads = anneal.spins.device, MOST_THREADS
    while threads > FEWEST_THREADS and (
        groups <= threads // 2 or shared_bytes(sites, pairs, classes, threads) > BLOCK_BYTES
    ):
        threads //= 2
    needed, room = shared_bytes(sites, pairs, classes, threads), most_shared_bytes(device)
    if needed > room:
        raise ValueError(
            f"spins: {sites} spins need {needed} bytes of shared memory, and a block has {room}: use another backend"
        )
    module().launch(
        kernel_name(classes, anneal.heat_bath), (-(-groups // threads),), (threads,),
        [anneal.spins, anneal.bonds.pairs, anneal.bonds.starts, anneal.table, Settings.of(anneal)],
        shared_bytes=needed, device=device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """One for each rule and number of classes, named by the most bonds: for 64 spins (a torus of 8 x 8), or 32."""
    return [
        CudaVariant(
            name=f"{rule.replace('_', ' ')}, {bonds} bonds",
            threads=MOST_THREADS,
            items=32,
            unit="flips",
            bytes_per_item=0.0,
            module=module(),
            kernel=kernel_name(classes, rule == "heat_bath"),
            shared_bytes=shared_bytes(32 if bonds == 31 else 64, (bonds + 1) // 2, classes, MOST_THREADS),
        )
        for rule in RULES
        for bonds, classes in zip(BONDS, CLASSES[rule], strict=True)
    ]
