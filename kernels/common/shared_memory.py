"""How much shared memory a block may use."""

import torch

EMULATED_BYTES = 227 * 1024
"""On the emulator: as on sm_90 and sm_100."""


def most_shared_bytes(device: torch.device) -> int:
    """The most bytes of shared memory that a block on ``device`` can ask for."""
    if device.type != "cuda":
        return EMULATED_BYTES
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin"))  # noqa: B009
