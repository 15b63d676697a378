"""Calls `logsumexp.cpp`: log-sum-exp on a CPU."""

from pathlib import Path

from torch import Tensor

from ..native import NativeModule
from ..rows.native_rows import CODES, native_rows

MODULE = NativeModule(Path(__file__).with_name("logsumexp.cpp"))


def forward(x: Tensor, dim: int, beta: float, y: Tensor, log_total: Tensor | None, peak: Tensor | None) -> None:
    """Write ``y`` and, if given, ``log_total`` and ``peak`` in the precision of accumulation. ``x`` is not empty."""
    x, rows = native_rows(dim, x)
    MODULE.call("forward", x, CODES[x.dtype], y, log_total, peak, rows, beta)


def backward(grad: Tensor, x: Tensor, log_total: Tensor, peak: Tensor, dim: int, beta: float, out: Tensor) -> None:
    """Write the gradient with respect to ``x``, which is not empty, into ``out`` (contiguous)."""
    x, rows = native_rows(dim, x, out)
    MODULE.call("backward", grad, log_total, peak, x, CODES[x.dtype], out, rows, beta)
