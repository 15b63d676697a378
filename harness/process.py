"""What a process settles about its device before it loads any plugin."""

import os

import torch


def prepare_process_for(device: torch.device) -> None:
    """Settle, before any plugin can import Triton, whether its kernels are interpreted (CPU) or compiled (GPU)."""
    if device.type == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        # Left over in the user's environment it would give the interpreter's times as the GPU's.
        os.environ.pop("TRITON_INTERPRET", None)
        torch.cuda.set_device(device)
