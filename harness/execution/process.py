"""Prepares a process for its device, before it loads any plugin; and its age."""

from __future__ import annotations

import _thread
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..results.environment import cuda_unusable

if TYPE_CHECKING:
    import torch


def prepare_to_load_plugins(device: torch.device) -> None:
    """Choose whether Triton interprets (CPU) or compiles (GPU) its kernels. Triton reads the choice on import.

    The device stays free: in compute mode Exclusive_Process a command that held it would lock out its workers. Raises
    RuntimeError if the GPU cannot be used.
    """
    if device.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        return
    # Set in the user's environment, it would make the GPU's times those of the interpreter.
    os.environ.pop("TRITON_INTERPRET", None)
    if reason := cuda_unusable():
        raise RuntimeError(f"{device} cannot be used: {reason}")


def prepare_to_run_kernels(device: torch.device) -> None:
    """The same, and make the GPU current, which reserves part of its memory for this process.

    Raises RuntimeError also if the GPU admits no more processes.
    """
    prepare_to_load_plugins(device)
    if device.type == "cpu":
        return
    import torch

    try:
        torch.cuda.set_device(device)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        hint = "see the compute mode and the processes that nvidia-smi shows"
        raise RuntimeError(f"{device} cannot be used: {reason}: {hint}") from error


def seconds_since_start() -> float:
    """The age of this process, with the time that its imports took; 0 if /proc does not say."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError, AttributeError):  # not Linux
        return 0.0


@dataclass(frozen=True)
class Defaults:
    """What one implementation could change for all others in its process, and how many threads of Python run."""

    values: Mapping[str, object]
    running: int

    @classmethod
    def of_process(cls) -> Defaults:
        return cls(cls.present(), cls.threads())

    @staticmethod
    def present() -> dict[str, object]:
        """The present values by what they are."""
        import torch

        return {
            "torch's default dtype": torch.get_default_dtype(),
            "torch's default device": torch.get_default_device(),
            "torch's number of threads": torch.get_num_threads(),
            "torch's gradient mode": torch.is_grad_enabled(),
            "torch's inference mode": torch.is_inference_mode_enabled(),
            "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
            "torch's precision of float32 products": torch.get_float32_matmul_precision(),
            "the working directory": os.getcwd(),
        }

    @staticmethod
    def threads() -> int:
        return _thread._count()

    def change(self) -> str:
        """What has changed, in words; empty if nothing has."""
        now = self.present()
        changed = [name for name, value in self.values.items() if now[name] != value]
        return ", ".join(f"{name} from {self.values[name]} to {now[name]}" for name in changed)
