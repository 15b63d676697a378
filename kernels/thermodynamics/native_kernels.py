"""Calls `thermodynamics.cpp`: thermodynamics on a CPU."""

from pathlib import Path

from torch import Tensor

from ..native import NativeModule
from ..rows.native_rows import CODES, native_rows

MODULE = NativeModule(Path(__file__).with_name("thermodynamics.cpp"))


def forward(x: Tensor, dim: int, beta: float, log_z: Tensor, energy: Tensor, variance: Tensor) -> None:
    """Write all three results, contiguous in the precision of accumulation. ``x`` is not empty."""
    x, rows = native_rows(dim, x)
    MODULE.call("forward", x, CODES[x.dtype], log_z, energy, variance, rows, beta)
