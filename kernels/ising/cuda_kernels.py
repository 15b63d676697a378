"""Launches `ising.cu`: a half sweep of the Ising model, or all sweeps of small lattices."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..common.shared_memory import most_shared_bytes
from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..machines.packed_spins import WORD, mean_groups
from ..philox import round_keys
from .acceptance import CLASSES
from .request import LaunchRequest

THREADS = 256
MOST_THREADS = 1024
WORDS_OF_A_THREAD = 4
"""For a large lattice, so that making the masks pays off."""
BITS = 32
SHARED_BYTES = 48 * 1024
"""The most shared memory of a block that has several lattices."""


class Settings(ctypes.Structure):
    """`Settings` in ising.cu."""

    _fields_ = (
        ("keys", ctypes.c_uint32 * 20),
        ("late_keys", ctypes.c_uint32 * 20),
        ("lattices", ctypes.c_longlong),
        ("first_word", ctypes.c_longlong),
        ("last_row", ctypes.c_uint32),
        ("words", ctypes.c_uint32),
        ("columns", ctypes.c_uint32),
        ("unsatisfied", ctypes.c_uint32),
        ("step", ctypes.c_uint32),
        ("colour", ctypes.c_uint32),
        ("sweeps", ctypes.c_uint32),
        ("first_cell", ctypes.c_uint32),
        ("end_cell", ctypes.c_uint32),
        ("stride", ctypes.c_uint32),
    )

    @classmethod
    def of(cls, half: LaunchRequest, sweeps: int, threads: int) -> "Settings":
        """``threads`` of each lattice, at least two rows."""
        lattices, _, height, words = half.spins.shape
        low, high = zip(*round_keys(half.seed), strict=True)
        keys = (*low, *high)
        unsatisfied = (1 << 32) - 1 if half.satisfied > 0 else 0
        return cls(
            keys, keys, lattices, half.first_word, (height - 1) * words, words, half.width // 2, unsatisfied, half.step,
            half.colour, sweeps, half.first_row * words, (half.first_row + half.rows) * words,
            threads - threads % (2 * words),
        )  # fmt: skip


@functools.cache
def module() -> CudaModule:
    return CudaModule(
        Path(__file__).with_name("ising.cu"),
        [f"{kernel}<{classes}>" for kernel in ("half_sweep", "resident_sweeps") for classes in CLASSES],
    )


def mask_bytes(classes: int) -> int:
    """Shared memory for the masks of a lattice: `Masks` in ising.cu."""
    return -(-(BITS + 1) * classes // 4) * 16


def block_of(cells: int, bytes_of_a_lattice: int, most_threads: int) -> tuple[int, int]:
    """``(threads for each lattice, lattices)`` of a block; the first is a power of two."""
    across = min(most_threads, 1 << (cells - 1).bit_length())
    return across, max(1, min(THREADS // across, SHARED_BYTES // bytes_of_a_lattice))


def half_sweep(half: LaunchRequest) -> None:
    """Write the spins of the colour to ``half.spins``. There is at least one lattice."""
    lattices, _, _, words = half.spins.shape
    classes = half.thresholds.shape[1]
    cells = max(half.rows, 2) * words  # a thread's words are an even number of rows apart
    across, rows = block_of(cells, mask_bytes(classes), THREADS)
    blocks = -(-max(-(-cells // WORDS_OF_A_THREAD), 2 * words) // across)
    module().launch(
        f"half_sweep<{classes}>",
        (blocks, min(-(-lattices // rows), 65535)),
        (across, rows),
        [half.own, half.around, half.spins, half.thresholds, Settings.of(half, 1, blocks * across)],
        shared_bytes=rows * mask_bytes(classes),
        device=half.spins.device,
    )


def resident_fits(spins: Tensor, classes: int) -> bool:
    """Whether a lattice fits in the shared memory of a block, and two of its rows have a thread for each word."""
    _, _, height, words = spins.shape
    fits = mask_bytes(classes) + 8 * height * words <= most_shared_bytes(spins.device)
    return fits and 2 * words <= MOST_THREADS


def resident_pays(spins: Tensor) -> bool:
    """Whether one block for each lattice keeps the device busy: small lattices, or many.

    Not measured yet. It assumes that a launch takes longer than one word for each thread, and that a device has about
    a hundred multiprocessors.
    """
    return spins.shape[2] * spins.shape[3] <= MOST_THREADS or len(spins) >= 128


def resident_sweeps(half: LaunchRequest, sweeps: int) -> None:
    """All sweeps in one launch, with the result of ``sweeps`` pairs of `half_sweep`; ``half`` is the first of them."""
    lattices, _, height, words = half.spins.shape
    classes, cells = half.thresholds.shape[1], height * words
    each = mask_bytes(classes) + 8 * cells
    across, rows = block_of(cells, each, MOST_THREADS)
    module().launch(
        f"resident_sweeps<{classes}>", (-(-lattices // rows),), (across, rows),
        [half.own, half.spins, half.thresholds, Settings.of(half, sweeps, across)], shared_bytes=rows * each,
        device=half.spins.device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """Each kernel for each number of classes; the resident one for a lattice of 256 x 256."""
    found = []
    for classes, what in CLASSES.items():
        masks = mask_bytes(classes)
        for name, kernel, threads, shared_bytes, traffic in (
            (what, "half_sweep", THREADS, masks, 0.375),
            (f"{what}, resident", "resident_sweeps", MOST_THREADS, masks + 8 * 256 * 4, 0.0),
        ):
            found.append(
                CudaVariant(
                    name=name,
                    threads=threads,
                    items=32,
                    unit="flips",
                    bytes_per_item=traffic,
                    module=module(),
                    kernel=f"{kernel}<{classes}>",
                    shared_bytes=shared_bytes,
                    inner_passes=mean_groups(32 * WORD) - 2,  # the first two are drawn outside of the loop
                )
            )
    return found
