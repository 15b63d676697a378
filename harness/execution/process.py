"""Prepares a process for its device, before it loads any plugin."""

import os

import torch

from ..results.environment import cuda_unusable


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
    torch.cuda.set_device(device)
