"""Which threads share a row, and into how many parts it is split: the same choice for Triton and CUDA C."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .layout import Rows

THREADS = 256
"""Of a block; as in `rows.cuh`."""
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
    """``lanes`` threads share a row; each has ``chunk`` loads in flight, of ``width`` elements."""

    lanes: int
    width: int
    chunk: int

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return THREADS // self.lanes

    @property
    def step(self) -> int:
        """Elements of a row that are read at once."""
        return self.lanes * self.width * self.chunk


def chunk_of(width: int, itemsize: int) -> int:
    """Loads in flight per thread, as in `rows.cuh`: more of them where they are narrow, as registers allow."""
    return 4 if width > 1 or itemsize == 8 else 8


@dataclass(frozen=True)
class Plan:
    """How rows are shared out: among threads, and to so many blocks in all if rows are too few."""

    shape: Shape
    blocks: int = BLOCKS_WANTED


def choose(view: Rows, itemsize: int, wide: bool) -> Shape:
    """As few lanes as take a row in one chunk. Longer rows go to a warp each where rows abound, else to a block."""
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
    """What may be best for rows like these, first of all what is chosen where nothing can be tried.

    The other number of lanes where a warp and a block are both at hand; and half and twice as many blocks for rows
    that may be split (``splitting``).
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
    """Rows for which the same plan will do: of one dtype, layout and first plan, in number and length alike to 2."""
    layout = "closer" if view.are_closer else "wide" if wide else "narrow"
    rows, columns = view.count.bit_length() - 1, view.n.bit_length() - 1
    lanes = choose(view, x.element_size(), wide).lanes
    return f"{name} {x.dtype} {layout} 2^{rows} x 2^{columns}, {lanes} lanes"


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
