"""Launches `ceilings.cu`, and recomputes its results in torch to check them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..cuda_module import CudaModule
from ..philox import Stream, random_words
from .prepared import WEYL, Prepared, data, difference, exclusive_or, require_multiple, sum_of_words

THREADS = 256
TILE_BYTES = 16 * 4 * THREADS
"""What a block reads or writes at a time; both constants are as in ceilings.cu."""
THREADS_CHECKED = 16


class Arithmetic(NamedTuple):
    """A unit of work: its operations, the dtype of a thread's sum, and the results of units, computed in torch."""

    operations: int
    dtype: torch.dtype
    results: Callable[[Tensor], Tensor]
    additions: int
    """The number of rounding errors that may add up in a unit; 0 for integers, which are exact."""


def _beginning(unit: Tensor, chains: int) -> Tensor:
    fraction = (unit & 0x7FFFFF).double() * 2.0**-23
    return 1.0 + fraction[..., None] + torch.arange(chains, device=unit.device)


def _fma_results(unit: Tensor) -> Tensor:
    # x <- a x + 1 has the fixed point 1 / (1 - a) = 1024, and the distance from it shrinks by a in each step.
    return (1024.0 + (1.0 - 2.0**-10) ** 512 * (_beginning(unit, 8) - 1024.0)).sum(-1)


def _exp2_results(unit: Tensor) -> Tensor:
    x = _beginning(unit, 16)
    for _ in range(8):
        x = torch.exp2(-x)
    return x.sum(-1)


def _wide_multiply_results(unit: Tensor) -> Tensor:
    # An int64 wraps, so that products are modulo 2^64.
    constant = 0x9E3779B97F4A7C15 - 2**64
    x = ((unit[..., None] * 8 + torch.arange(8, device=unit.device)) & 0xFFFFFFFF) * WEYL + constant
    for _ in range(128):
        x = (x & 0xFFFFFFFF) * (x >> 32 & 0xFFFFFFFF) + constant
    return exclusive_or(x)


def _philox_results(unit: Tensor) -> Tensor:
    groups = unit[..., None] * 4 + torch.arange(4, device=unit.device)
    return exclusive_or(random_words(groups, 0x0123456789ABCDEF, 0, Stream.NOISE).flatten(-2))


ARITHMETIC = {
    "Fma": Arithmetic(8 * 512, torch.float32, _fma_results, 512 + 8),
    "Exp2": Arithmetic(16 * 8, torch.float32, _exp2_results, 8 + 16),
    "WideMultiply": Arithmetic(8 * 128, torch.int64, _wide_multiply_results, 0),
    "Philox": Arithmetic(16, torch.int32, _philox_results, 0),
}
MODULE = CudaModule(
    Path(__file__).with_name("ceilings.cu"),
    ["read", "write", "copy", *(f"arithmetic<{name}>" for name in ARITHMETIC), "empty"],
)


def resident_blocks(device: torch.device) -> int:
    """Blocks that fill every multiprocessor with threads; two in the emulator."""
    if device.type != "cuda":
        return 2
    properties = torch.cuda.get_device_properties(device)
    threads: int = properties.multi_processor_count * properties.max_threads_per_multi_processor
    return threads // THREADS


def read(device: torch.device, size: int, blocks: int | None = None) -> Prepared:
    """Reads ``size`` bytes, a multiple of `TILE_BYTES`, with ``blocks`` blocks (default: one for each tile)."""
    _require_tiles(size)
    x = data(size, device)
    blocks = blocks or size // TILE_BYTES
    sums = torch.zeros(blocks * THREADS // 32, dtype=torch.int32, device=device)

    def launch() -> None:
        MODULE.launch("read", (blocks,), (THREADS,), [x, size // 16, sums], device=device)

    return launch, lambda: sum_of_words(sums, size)


def write(device: torch.device, size: int, blocks: int | None = None) -> Prepared:
    """Writes ``size`` bytes; otherwise as `read`."""
    _require_tiles(size)
    x = torch.zeros(size // 4, dtype=torch.int32, device=device)
    blocks = blocks or size // TILE_BYTES

    def launch() -> None:
        MODULE.launch("write", (blocks,), (THREADS,), [x, size // 16, np.uint32(WEYL)], device=device)

    return launch, lambda: difference(x)


def copy(device: torch.device, size: int, blocks: int | None = None) -> Prepared:
    """Reads ``size`` bytes and writes as many; otherwise as `read`."""
    _require_tiles(size)
    x = data(size, device)
    y = torch.zeros_like(x)
    blocks = blocks or size // TILE_BYTES

    def launch() -> None:
        MODULE.launch("copy", (blocks,), (THREADS,), [x, size // 16, y], device=device)

    return launch, lambda: difference(y)


def arithmetic(device: torch.device, name: str, operations: int) -> Prepared:
    """Runs ``operations`` of the kind ``name`` of `ARITHMETIC`, a multiple of those of a unit, on all threads."""
    kind = ARITHMETIC[name]
    require_multiple("operations", operations, kind.operations, f"operations of {name}")
    units = operations // kind.operations
    blocks = resident_blocks(device)
    threads = blocks * THREADS
    sums = torch.zeros(threads, dtype=kind.dtype, device=device)

    def launch() -> None:
        MODULE.launch(f"arithmetic<{name}>", (blocks,), (THREADS,), [units, sums], device=device)

    def check() -> str | None:
        last = (units - 1) % threads  # the thread of the last unit
        for thread in (*torch.linspace(0, threads - 1, THREADS_CHECKED).long().tolist(), last):
            results = kind.results(torch.arange(thread, units, threads, device=device))
            found = sums[thread].item()
            if kind.dtype.is_floating_point:
                expected = float(results.sum())
                # Half an ulp for each operation, as much again for the approximation of ex2.
                wrong = not abs(found - expected) <= (kind.additions + len(results)) * 2.0**-23 * expected
            else:
                padding = torch.zeros(1 << len(results).bit_length(), dtype=torch.int64, device=device)
                padding[: len(results)] = results
                expected = exclusive_or(padding).to(kind.dtype).item()
                wrong = found != expected
            if wrong:
                return f"thread {thread} found {found}, not {expected}"
        return None

    return launch, check


def empty(device: torch.device, launches: int) -> Prepared:
    """Launches an empty kernel ``launches`` times: on a GPU by replaying a graph, so that the host is no bottleneck.

    A kernel that counted would not be empty, so the check launches as often again, in the same way, with a counter.
    """
    count = torch.zeros(1, dtype=torch.int32, device=device)

    def prepared(counter: Tensor | None) -> Callable[[], None]:
        def launch_all() -> None:
            for _ in range(launches):
                MODULE.launch("empty", (1,), (1,), [counter], device=device)

        if device.type != "cuda":
            return launch_all
        MODULE.launch("empty", (1,), (1,), [counter], device=device)  # compile before capturing
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(graph):
            launch_all()
        return graph.replay

    counted = prepared(count)

    def check() -> str | None:
        count.zero_()
        counted()
        found = int(count)
        return None if found == launches else f"{found} kernels ran, not {launches}"

    return prepared(None), check


def _require_tiles(size: int) -> None:
    require_multiple("size", size, TILE_BYTES, "bytes")
