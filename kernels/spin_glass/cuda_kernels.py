"""Launches `spin_glass.cu` and `links.cu`: the annealing of spin glasses by bonds in bit planes, and by links."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

from ..common.shared_memory import most_shared_bytes
from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..machines.packed_spins import WORD, mean_groups
from ..philox import round_keys
from .bonds import BONDS, CLASSES, RULES, Bonds
from .request import LaunchRequest

FEWEST_THREADS, MOST_THREADS = 32, 128
"""Of a block of `spin_glass.cu`."""
BITS = 32
WARPS = 8
"""The most warps of a block of `links.cu`."""
BLOCK_BYTES = 56 * 1024
"""Shared memory of a block, so that a multiprocessor holds four; a block that needs more has fewer threads."""


class BondSettings(ctypes.Structure):
    """`Settings` in spin_glass.cu."""

    _fields_ = (
        ("keys", ctypes.c_uint32 * 20),
        ("groups", ctypes.c_longlong),
        ("first_group", ctypes.c_longlong),
        ("sites", ctypes.c_uint32),
        ("pairs", ctypes.c_uint32),
        ("first_sweep", ctypes.c_uint32),
        ("sweeps", ctypes.c_uint32),
        ("bonds", ctypes.c_uint32),
    )


class LinkSettings(ctypes.Structure):
    """`Settings` in links.cu."""

    _fields_ = (
        ("keys", ctypes.c_uint32 * 20),
        ("groups", ctypes.c_longlong),
        ("first_walker", ctypes.c_longlong),
        ("unit", ctypes.c_double),
        ("sites", ctypes.c_uint32),
        ("first_sweep", ctypes.c_uint32),
        ("sweeps", ctypes.c_uint32),
        ("exponent", ctypes.c_int),
    )


@functools.cache
def bonds_module() -> CudaModule:
    names = [
        bonds_kernel(classes, rule, shared)
        for shared in (True, False) for rule in RULES for classes in CLASSES[rule]
    ]  # fmt: skip
    return CudaModule(Path(__file__).with_name("spin_glass.cu"), names)


@functools.cache
def links_module() -> CudaModule:
    names = [links_kernel(rule, shared) for rule in RULES for shared in (True, False)]
    return CudaModule(Path(__file__).with_name("links.cu"), names)


def bonds_kernel(classes: int, rule: str, shared: bool) -> str:
    return f"anneal_bonds<{classes}, {str(rule == 'heat_bath').lower()}, {str(shared).lower()}>"


def links_kernel(rule: str, shared: bool) -> str:
    return f"anneal_links<{str(rule == 'heat_bath').lower()}, {str(shared).lower()}>"


def mask_bytes(classes: int) -> int:
    """Shared memory for the masks of a block of `spin_glass.cu`."""
    return 2 * BITS * 4 * (4 if classes == 3 else classes)  # padded for vector loads


def shared_bytes(sites: int, pairs: int, classes: int, threads: int) -> int:
    """Shared memory of a block of `spin_glass.cu` for masks, pairs, starts and spins."""
    return mask_bytes(classes) + sites * pairs * 8 + sites * 4 + sites * threads * 4


def anneal(request: LaunchRequest) -> None:
    """Write ``request.out`` and ``request.energies``, in one launch."""
    keys = [key for keys in zip(*round_keys(request.seed), strict=True) for key in keys]
    bonds = request.glass.bonds
    if bonds is None:
        _anneal_links(request, keys)
    else:
        _anneal_bonds(request, bonds, keys)


def _anneal_bonds(request: LaunchRequest, bonds: Bonds, keys: list[int]) -> None:
    sites, groups = request.spins.shape
    pairs, classes = bonds.pairs.shape[1], CLASSES[request.rule][bonds.size]
    threads = MOST_THREADS
    while threads > FEWEST_THREADS and (
        groups <= threads // 2 or shared_bytes(sites, pairs, classes, threads) > BLOCK_BYTES
    ):
        threads //= 2
    needed = shared_bytes(sites, pairs, classes, threads)
    shared = needed <= most_shared_bytes(request.spins.device)
    settings = BondSettings(
        tuple(keys), groups, request.first_walker // WORD, sites, pairs, request.first_sweep, request.schedule.sweeps,
        bonds.total,
    )  # fmt: skip
    bonds_module().launch(
        bonds_kernel(classes, request.rule, shared), (-(-groups // threads),), (threads,),
        [
            request.spins, request.out, request.energies, bonds.pairs, bonds.starts,
            request.schedule.thresholds[request.rule], settings,
        ],
        shared_bytes=needed if shared else mask_bytes(classes), device=request.spins.device,
    )  # fmt: skip


def _anneal_links(request: LaunchRequest, keys: list[int]) -> None:
    sites, groups = request.spins.shape
    links, shared = request.glass.links, 4 * sites <= BLOCK_BYTES
    warps = WARPS
    while warps > 1 and (groups <= warps // 2 or (shared and 4 * sites * warps > BLOCK_BYTES)):
        warps //= 2
    settings = LinkSettings(
        tuple(keys), groups, request.first_walker, links.unit, sites, request.first_sweep, request.schedule.sweeps,
        links.exponent,
    )  # fmt: skip
    links_module().launch(
        links_kernel(request.rule, shared), (-(-groups // warps),), (32 * warps,),
        [
            request.spins, request.out, request.energies, links.first, links.links, links.fields,
            request.schedule.rates, settings,
        ],
        shared_bytes=4 * sites * warps if shared else 0, device=request.spins.device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """By bonds, for each rule and number of classes, named by the most bonds: 64 spins (a torus of 8 x 8), or 32, in
    shared memory, or more in device memory. By links, for each rule, 1024 spins in shared memory, or more in device
    memory."""
    bonds_variants = [
        CudaVariant(
            name=f"{_named(rule)}, {bonds} bonds{'' if shared else ', spins in device memory'}",
            threads=MOST_THREADS,
            items=32,
            unit="flips",
            bytes_per_item=0.0,
            module=bonds_module(),
            kernel=bonds_kernel(classes, rule, shared),
            inner_passes=mean_groups(32 * WORD),
            shared_bytes=(
                shared_bytes(32 if bonds == 31 else 64, (bonds + 1) // 2, classes, MOST_THREADS)
                if shared
                else mask_bytes(classes)
            ),
        )
        for shared in (True, False)
        for rule in RULES
        for bonds, classes in zip(BONDS, CLASSES[rule], strict=True)
    ]
    links_variants = [
        CudaVariant(
            name=f"{_named(rule)}, links, spins in {'shared' if shared else 'device'} memory",
            threads=32 * WARPS,
            items=4,
            unit="links",
            bytes_per_item=0.0,
            access_bytes=16,
            module=links_module(),
            kernel=links_kernel(rule, shared),
            shared_bytes=4 * 1024 * WARPS if shared else 0,
        )
        for rule in RULES
        for shared in (True, False)
    ]
    return [*bonds_variants, *links_variants]


def _named(rule: str) -> str:
    return rule.replace("_", " ")
