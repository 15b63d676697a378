"""What a process settles about its device before it loads any plugin."""

import os

import torch

from ..results.environment import cuda_unusable


def prepare_process_for(device: torch.device) -> None:
    """Settle, before any plugin can import Triton, whether its kernels are interpreted (CPU) or compiled (GPU).

    Raises RuntimeError if the GPU cannot be used any more.
    """
    if device.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
        return
    # Left over in the user's environment it would give the interpreter's times as the GPU's.
    os.environ.pop("TRITON_INTERPRET", None)
    if reason := cuda_unusable():
        raise RuntimeError(f"{device} cannot be used: {reason}")
    torch.cuda.set_device(device)
