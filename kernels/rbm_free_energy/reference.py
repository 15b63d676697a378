"""The free energy in torch: the ``torch`` backend and, with float64 parameters, the reference of the kernels."""

import torch
from torch import Tensor


def free_energy(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor
) -> Tensor:
    """The free energies (chains,) in the dtype of the parameters.

    ``softplus(z) = max(z, 0) + log1p(exp(-|z|))`` does not overflow.
    """
    given = visible.to(weights.dtype)
    scale = beta[:, None].to(weights.dtype) if isinstance(beta, Tensor) else beta
    z = scale * (hidden_bias + given @ weights)
    softplus = z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))
    return -(given @ visible_bias) - (softplus / scale).sum(1)


def forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, out: Tensor
) -> None:
    """Write ``out``. Sums are float32, for 16-bit parameters too."""
    wide, b, c = (part.to(torch.float32) for part in (weights, visible_bias, hidden_bias))
    out.copy_(free_energy(visible, wide, b, c, beta))
