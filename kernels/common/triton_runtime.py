"""Where Triton kernels can run in this process: compiled on a GPU, or interpreted on the CPU.

Triton decides when it is imported: under ``TRITON_INTERPRET=1`` every kernel is interpreted with numpy, otherwise
every kernel is compiled. So a process does one or the other. Unless the variable is set, a machine without a usable
GPU interprets, and one with a GPU compiles. The interpreter checks correctness; it hides races and int32 overflow.
"""

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def _choose() -> bool:
    """Settle, once, whether this process interprets; True if so. Too late for it once Triton has been imported."""
    chosen = os.environ.get("TRITON_INTERPRET")
    if chosen is None and not torch.cuda.is_available() and "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = chosen = "1"
    return chosen not in (None, "", "0")


INTERPRETS = _choose()
"""True if the Triton kernels of this process are interpreted."""

if INTERPRETS:  # exp(-inf), log(0) and the like are meant, and numpy would warn of each
    warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"triton\.runtime\.interpreter")


def helper(function: Function) -> Function:
    """``triton.jit`` for what kernels call. Interpreted it is ``function`` itself: the interpreter would patch Triton's
    language anew at each call, which takes longer than most helpers do."""
    if INTERPRETS:
        return function
    import triton

    return cast(Function, triton.jit(function))


_INSTALLED = importlib.util.find_spec("triton") is not None


def unavailable(device: torch.device) -> str | None:
    """Why Triton kernels cannot run on tensors of ``device`` in this process, or None if they can."""
    if not _INSTALLED:
        return "triton is not installed"
    if device.type == "cuda":
        return "Triton interprets in this process: TRITON_INTERPRET is set" if INTERPRETS else None
    if device.type == "cpu":
        return (
            None
            if INTERPRETS
            else "Triton compiles for the GPU in this process; to interpret, start it with TRITON_INTERPRET=1"
        )
    return f"there are no Triton kernels for {device.type} tensors"
