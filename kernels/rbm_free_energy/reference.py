"""The free energy in torch: the reference of the kernels when its parameters are float64, and the ``torch`` backend."""

import torch
from torch import Tensor


def free_energy(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor
) -> Tensor:
    """In the parameters' own dtype, (chains,). ``softplus(z) = max(z, 0) + log1p(exp(-|z|))`` never overflows."""
    given = visible.to(weights.dtype)
    scale = beta[:, None].to(weights.dtype) if isinstance(beta, Tensor) else beta
    z = scale * (hidden_bias + given @ weights)
    softplus = z.clamp(min=0) + torch.log1p(torch.exp(-z.abs()))
    return -(given @ visible_bias) - (softplus / scale).sum(1)


def forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, out: Tensor
) -> None:
    """The ``torch`` backend: ``out`` is written. 16-bit parameters are summed in float32."""
    wide, b, c = (part.to(torch.float32) for part in (weights, visible_bias, hidden_bias))
    out.copy_(free_energy(visible, wide, b, c, beta))
