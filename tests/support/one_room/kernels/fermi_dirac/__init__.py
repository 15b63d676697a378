"""The Fermi-Dirac occupation of independent levels: ``y = 1 / (1 + exp(-x))`` with ``x = (mu - E) / T``.

Source: Fermi, Rend. Lincei 3 (1926); Dirac, Proc. R. Soc. A 112 (1926).
"""

import torch
from torch import Tensor

from ..common.dispatch import backend_module, choose_backend, note_written, require_output, require_tensor, running_on

__all__ = ["fermi_dirac"]


def fermi_dirac(x: Tensor, *, out: Tensor | None = None, backend: str = "auto") -> Tensor:
    """The mean number of fermions in each level.

    Args:
        x: float32, contiguous, of any shape: chemical potential minus energy, in units of the temperature.
        out: contiguous float32 of the shape of ``x``, sharing no memory with it.
        backend: ``auto``, ``torch``, ``triton`` or ``cupy``.

    Returns:
        ``out``, or a new tensor. Levels at -inf are empty, those at inf are full, NaN stays NaN.

    Raises:
        TypeError: a tensor is not float32.
        ValueError: a tensor is not contiguous, ``out`` does not fit, or ``backend`` is unknown or cannot run here.
    """
    require_tensor("x", x, (torch.float32,), None)
    if not x.is_contiguous():
        raise ValueError(f"x must be contiguous, got strides {x.stride()}")
    if out is None:
        out = torch.empty_like(x)
    require_tensor("out", out, (torch.float32,), x.device)
    require_output("out", out, x.shape, {"x": x})
    chosen = choose_backend(backend, x.device)
    if x.numel():
        with running_on(x.device):
            backend_module(chosen, __name__).occupation(x, out)
    note_written(out)
    return out
