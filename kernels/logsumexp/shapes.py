"""Which threads share a row, and into how many parts it is split: the same choice for Triton and CUDA C."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .rows import Rows

THREADS = 256
CHUNK = 4
"""Loads in flight per thread; both as in `rows.cuh`."""
WIDE_LANES = (2, 4, 8, 16, 32, THREADS)
NARROW_LANES = (2, 8, 32, THREADS)
"""Threads that may share a row, where loads are of 128 bits and where they are of one element."""
LANES_WHERE_CLOSER = 8
STEPS_OF_A_WARP = 8
"""A warp takes rows of up to so many chunks alone, if there are enough of them."""
ROWS_FOR_WARPS = 132 * 48
"""Rows that are enough: 48 warps on each of 132 multiprocessors."""
BLOCKS_WANTED = 132 * 24
"""Blocks enough for a large device: three times the 2048 threads of each of 132 multiprocessors. The last to run leave
little of it idle, and few parts are left to combine."""
PART_BYTES = 65536
"""A part is at least this long, so that combining stays negligible: four rounds of loads of a block."""


@dataclass(frozen=True)
class Shape:
    """``lanes`` threads share a row, each of which loads ``width`` elements at once."""

    lanes: int
    width: int

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return THREADS // self.lanes


@dataclass(frozen=True)
class Plan:
    """How rows are shared out: among threads, and to so many blocks in all if rows are too few."""

    shape: Shape
    blocks: int = BLOCKS_WANTED


def choose(view: Rows, itemsize: int, wide: bool) -> Shape:
    """As few lanes as take a row in one chunk. Longer rows go to a warp each where rows abound, else to a block."""
    if view.are_closer:
        return Shape(LANES_WHERE_CLOSER, 1)
    width = 16 // itemsize if wide else 1
    fitting = (lanes for lanes in (WIDE_LANES if wide else NARROW_LANES) if view.n <= lanes * width * CHUNK)
    lanes = next(fitting, THREADS)
    if lanes == THREADS and view.n <= 32 * width * CHUNK * STEPS_OF_A_WARP and view.count >= ROWS_FOR_WARPS:
        lanes = 32
    return Shape(lanes, width)


def plans(view: Rows, itemsize: int, wide: bool, splitting: bool) -> list[Plan]:
    """What may be best for rows like these, first of all what is chosen where nothing can be tried.

    The other number of lanes where a warp and a block are both at hand; and half and twice as many blocks for rows
    that may be split (``splitting``).
    """
    shape = choose(view, itemsize, wide)
    found = [Plan(shape)]
    if not view.are_closer and 32 * shape.width * CHUNK < view.n <= 32 * shape.width * CHUNK * STEPS_OF_A_WARP:
        found.append(Plan(Shape(32 if shape.lanes == THREADS else THREADS, shape.width)))
    if splitting and view.n * itemsize >= 2 * PART_BYTES:
        found += [Plan(shape, BLOCKS_WANTED // 2), Plan(shape, 2 * BLOCKS_WANTED)]
    return found


def shape_class(name: str, x: Tensor, view: Rows, wide: bool) -> str:
    """Rows for which the same plan will do: of one dtype and layout, and in number and length alike to a factor 2."""
    layout = "closer" if view.are_closer else "wide" if wide else "narrow"
    rows, columns = view.count.bit_length() - 1, view.n.bit_length() - 1
    return f"{name} {x.dtype} {layout} 2^{rows} x 2^{columns}"


def split_rows(view: Rows, groups: int, step: int, itemsize: int, blocks: int) -> tuple[int, int]:
    """``(parts of a row, steps of a part)`` of rows that would take ``groups`` blocks, ``step`` elements at a time."""
    wanted = max(1, min(-(-blocks // groups), view.n * itemsize // PART_BYTES))
    steps = -(-view.n // (wanted * step))
    return -(-view.n // (steps * step)), steps


_counters: dict[tuple[torch.device, int], Tensor] = {}


def counters(count: int, device: torch.device) -> Tensor:
    """``count`` 32-bit counters that are 0, for one launch which leaves them at 0.

    Launches of one stream follow each other and share theirs. What a CUDA graph holds may run beside anything, so a
    launch that is captured gets its own, from the graph's memory, and the graph sets them to 0 each time.
    """
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(count, dtype=torch.int32, device=device)
    key = (device, torch.cuda.current_stream(device).cuda_stream)
    if key not in _counters or len(_counters[key]) < count:
        _counters[key] = torch.zeros(max(count, BLOCKS_WANTED), dtype=torch.int32, device=device)
    return _counters[key]
