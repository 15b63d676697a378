"""Runs the CUDA C kernels of operations in both schedules of the emulator: ``python -m support.sanitized``.

`test_sanitized.py` starts this program under the sanitizers, where imports take seconds. For each line ``NAME FOLDER``
that it reads it forks, and prints the status of the fork, which writes ``results.pt`` and ``report`` to the folder.
The results come from ``results()`` in ``tests/operations/<operation>/sanitized.py``, or, where that file is missing,
from the operation's own check cases.
"""

import mmap
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from boltzbench.harness import Unsupported
from boltzbench.kernels import emulator
from torch import Tensor

from support import operations

FILE = "sanitized.py"
MAP_NORESERVE = 0x4000  # Linux; in `mmap` from Python 3.13
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
FAR = 2**31 + 8
"""A distance that 32 bits do not hold."""


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def unwritten(elements: int, dtype: torch.dtype) -> Tensor:
    """Zeros that take no memory until they are written, and then a page at a time."""
    return torch.frombuffer(
        mmap.mmap(-1, elements * dtype.itemsize, flags=mmap.MAP_PRIVATE | MAP_NORESERVE), dtype=dtype
    )


def far_apart(dtype: torch.dtype) -> Iterator[Tensor]:
    """Rows, or elements of a row, that lie more than 2**31 elements apart."""
    memory = unwritten(3 * FAR, dtype)
    layouts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
        ((2, 1032), (FAR, 1)),
        ((2, 37), (FAR - 3, 1)),
        ((3, 2), (1, FAR)),
        ((2, 40), (FAR, 2**26 + 1)),
        ((2, 3, 40), (FAR, 2**24, 1)),
    )
    for shape, strides in layouts:
        yield memory.as_strided(shape, strides).copy_(random(*shape, dtype=dtype))


def same_as_close_together(function: Callable[[Tensor], Sequence[Tensor]], x: Tensor) -> Sequence[Tensor]:
    """``function(x)``, which must equal the results for the same numbers in contiguous memory."""
    results, close = function(x), function(x.contiguous())
    for one, other in zip(results, close, strict=True):
        torch.testing.assert_close(one, other)
    return results


def has_file(operation: str) -> bool:
    return (operations.folder(operation) / FILE).is_file()


def results_of_check_cases(operation: str) -> list[Tensor]:
    """The outputs of all check cases whose inputs are finite, so that a NaN can only be a mistake."""
    whole = operations.registry().operations[operation]
    implementation = operations.implementation(operation, "cupy")
    found: list[Tensor] = []
    for case in whole.cases:
        if case.purpose != "check":
            continue
        try:
            inputs, launch = operations.prepared(implementation, case)
        except Unsupported:
            continue
        floats = [each for each in inputs.values() if isinstance(each, Tensor) and each.is_floating_point()]
        if all(bool(each.isfinite().all()) for each in floats):
            found += [each.clone() for each in launch().values()]
    return found


def results(operation: str) -> list[Tensor]:
    if not has_file(operation):
        return results_of_check_cases(operation)
    found: list[Tensor] = operations.load(operation, FILE).results()
    return found


def write_results(operation: str, path: Path) -> None:
    found = {}
    for order in ("forward", "reverse"):
        with emulator.schedule(order):
            found[order] = [each.contiguous() for each in results(operation)]
    torch.save(found, path)


def in_a_fork(operation: str, folder: Path) -> int:
    """The exit status of a process that writes the results of an operation, and its report."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            report = os.open(folder / "report", os.O_CREAT | os.O_WRONLY)
            os.dup2(report, 1)
            os.dup2(report, 2)
            write_results(operation, folder / "results.pt")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    assert emulator.is_sanitizing()
    operations.registry()
    for line in sys.stdin:
        operation, folder = line.rstrip("\n").split(" ", 1)
        print(in_a_fork(operation, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
