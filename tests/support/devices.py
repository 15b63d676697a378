"""The device that tests of kernels use, and the backends that run on it."""

import torch
from boltzbench.kernels.common import dispatch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
"""The GPU if there is one. Tests create their tensors here, so that the same test covers the compiled kernels."""

BACKENDS = [name for name in dispatch.BACKENDS if dispatch.unavailable(name, DEVICE) is None]


def backends_of(operation: str) -> list[str]:
    """The backends of an operation, named by the folder of its kernels, that run on `DEVICE`."""
    known = dispatch.backends_of(f"boltzbench.kernels.{operation}")
    return [name for name in known if dispatch.unavailable(name, DEVICE) is None]
