"""How many threads share a row, and into how many parts a row is split. Triton and CUDA C make the same choice."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..common import prepared
from .layout import Rows

THREADS = 256
"""Threads of a block, as in `rows.cuh`."""
WIDE_LANES = (2, 4, 8, 16, 32, THREADS)
NARROW_LANES = (2, 8, 32, THREADS)
"""How many threads may share a row, with 128-bit loads and with loads of one element."""
LANES_WHERE_CLOSER = 8
STEPS_OF_A_WARP = 8
"""A single warp takes rows of up to this many chunks, if there are `ROWS_FOR_WARPS` rows or more."""
ROWS_FOR_WARPS = 132 * 48
"""48 warps on each of 132 multiprocessors."""
BLOCKS_WANTED = 132 * 24
"""Three times the 2048 threads of each of 132 multiprocessors. With this many blocks the last ones leave little of the
device idle, and there are few parts to combine."""
PART_BYTES = 65536
"""The least size of a part, four rounds of loads of a block: combining parts then costs next to nothing."""


@dataclass(frozen=True)
class Shape:
    """``lanes`` threads share a row. Each has ``chunk`` loads of ``width`` elements in flight."""

    lanes: int
    width: int
    chunk: int

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return THREADS // self.lanes

    @property
    def step(self) -> int:
        """How many elements of a row are read at once."""
        return self.lanes * self.width * self.chunk


def chunk_of(width: int, itemsize: int) -> int:
    """Loads in flight per thread, as in `rows.cuh`: more if loads are narrow and registers allow it."""
    return 4 if width > 1 or itemsize == 8 else 8


@dataclass(frozen=True)
class Plan:
    """How rows are divided among threads. Too few rows are split until there are about ``blocks`` blocks."""

    shape: Shape
    blocks: int = BLOCKS_WANTED


def choose(view: Rows, itemsize: int, wide: bool) -> Shape:
    """The fewest lanes that read a row in one chunk. Longer rows go to a warp if there are many, else to a block."""
    width = 16 // itemsize if wide and not view.are_closer else 1
    chunk = chunk_of(width, itemsize)
    if view.are_closer:
        return Shape(LANES_WHERE_CLOSER, width, chunk)
    fitting = (lanes for lanes in (WIDE_LANES if wide else NARROW_LANES) if view.n <= lanes * width * chunk)
    lanes = next(fitting, THREADS)
    if lanes == THREADS and view.n <= 32 * width * chunk * STEPS_OF_A_WARP and view.count >= ROWS_FOR_WARPS:
        lanes = 32
    return Shape(lanes, width, chunk)


def plans(view: Rows, itemsize: int, wide: bool, splitting: bool) -> list[Plan]:
    """The plans worth trying for such rows. The first one is the default where plans cannot be timed.

    The others exchange a warp for a block or a block for a warp. If ``splitting``, half and twice as many blocks
    follow for long rows.
    """
    shape = choose(view, itemsize, wide)
    found = [Plan(shape)]
    of_a_warp = replace(shape, lanes=32)
    if not view.are_closer and of_a_warp.step < view.n <= of_a_warp.step * STEPS_OF_A_WARP:
        found.append(Plan(replace(shape, lanes=THREADS) if shape == of_a_warp else of_a_warp))
    if splitting and view.n * itemsize >= 2 * PART_BYTES:
        found += [Plan(shape, BLOCKS_WANTED // 2), Plan(shape, 2 * BLOCKS_WANTED)]
    return found


def shape_class(name: str, x: Tensor, view: Rows, wide: bool) -> str:
    """The class of rows that share a plan: same dtype, layout and lanes; number and length within a factor of 2."""
    layout = "closer" if view.are_closer else "wide" if wide else "narrow"
    rows, columns = view.count.bit_length() - 1, view.n.bit_length() - 1
    lanes = choose(view, x.element_size(), wide).lanes
    return f"{name} {x.dtype} {layout} 2^{rows} x 2^{columns}, {lanes} lanes"


def split_rows(view: Rows, groups: int, step: int, itemsize: int, blocks: int) -> tuple[int, int]:
    """``(parts of a row, steps of a part)`` if unsplit rows take ``groups`` blocks. A step is ``step`` elements."""
    wanted = max(1, min(-(-blocks // groups), view.n * itemsize // PART_BYTES))
    steps = -(-view.n // (wanted * step))
    return -(-view.n // (steps * step)), steps


_counters: dict[tuple[torch.device, int], Tensor] = {}


def counters(count: int, device: torch.device) -> Tensor:
    """At least ``count`` 32-bit counters that are 0, for one launch that leaves them at 0.

    Launches on one stream run one after the other and share their counters. A CUDA graph may run beside any other
    launch, so a captured launch has counters of its own: those that its prepared launch keeps, or else new ones in the
    graph's memory, which the graph sets to 0 each time.
    """
    if prepared.is_prepared() or device.type != "cuda" or prepared.is_capturing(device):
        return prepared.keep(f"{count} counters", lambda: torch.zeros(count, dtype=torch.int32, device=device))
    key = (device, prepared.stream_number(device))
    if key not in _counters or len(_counters[key]) < count:
        _counters[key] = torch.zeros(max(count, BLOCKS_WANTED), dtype=torch.int32, device=device)
    return _counters[key]
