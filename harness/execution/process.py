"""Prepares a process for its device, before it loads any plugin; and its age."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..results.environment import cuda_unusable

if TYPE_CHECKING:
    import torch


def prepare_process_for(device: torch.device) -> None:
    """Choose whether Triton interprets (CPU) or compiles (GPU) its kernels. Triton reads the choice on import.

    Raises RuntimeError if the GPU cannot be used.
    """
    if device.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        return
    # Set in the user's environment, it would make the GPU's times those of the interpreter.
    os.environ.pop("TRITON_INTERPRET", None)
    if reason := cuda_unusable():
        raise RuntimeError(f"{device} cannot be used: {reason}")
    import torch

    torch.cuda.set_device(device)


def seconds_since_start() -> float:
    """The age of this process, with the time that its imports took; 0 if /proc does not say."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return 0.0
