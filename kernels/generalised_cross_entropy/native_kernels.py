"""Calls `generalised_cross_entropy.cpp`: generalised cross-entropy on a CPU."""

from pathlib import Path

from torch import Tensor

from ..native import NativeModule
from ..rows.native_rows import CODES, native_rows

MODULE = NativeModule(Path(__file__).with_name("generalised_cross_entropy.cpp"))


def forward(
    logits: Tensor, labels: Tensor, dim: int, q: float, ignore_index: int,
    loss: Tensor, lse: Tensor, peak: Tensor | None = None,
) -> None:  # fmt: skip
    """Write ``loss``, ``lse`` and, if given, ``peak``, contiguous in the precision of accumulation.

    ``logits`` is not empty. ``lse`` is relative to the peak if there is one.
    """
    logits, rows = native_rows(dim, logits)
    MODULE.call("forward", logits, CODES[logits.dtype], labels, loss, lse, peak, rows, q, ignore_index)


def backward(
    grad: Tensor, logits: Tensor, labels: Tensor, log_total: Tensor, peak: Tensor,
    dim: int, q: float, ignore_index: int, out: Tensor,
) -> None:  # fmt: skip
    """Write the gradient with respect to ``logits``, which is not empty, into ``out`` (contiguous)."""
    logits, rows = native_rows(dim, logits, out)
    of_rows = (grad, labels, log_total, peak)
    MODULE.call("backward", *of_rows, logits, CODES[logits.dtype], out, rows, q, ignore_index)
