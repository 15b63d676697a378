"""The occupation in torch."""

import torch
from torch import Tensor


def occupation(x: Tensor, out: Tensor) -> None:
    """Write ``out``."""
    torch.sigmoid(x, out=out)
