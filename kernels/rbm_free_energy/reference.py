"""The free energy in torch: the ``torch`` backend and, with float64 parameters, the reference of the kernels."""

import torch
from torch import Tensor

from ..common.dispatch import without_autocast

PIECE = 1 << 24
"""Numbers in the largest tensor of a piece of the gradient, approximately."""


@without_autocast
def free_energy(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor
) -> Tensor:
    """The free energies (chains,) in the dtype of the parameters.

    ``softplus(z) = -log sigmoid(-z)``, as torch computes it, does not overflow, and its derivative at 0 is 1/2.
    """
    given = visible.to(weights.dtype)
    scale = beta[:, None].to(weights.dtype) if isinstance(beta, Tensor) else beta
    softplus = -torch.nn.functional.logsigmoid(-scale * (hidden_bias + given @ weights))
    return -(given @ visible_bias) - (softplus / scale).sum(1)


def forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, out: Tensor
) -> None:
    """Write ``out``. Sums are float32, for 16-bit parameters too."""
    out.copy_(wide_free_energy(visible, weights, visible_bias, hidden_bias, beta))


def wide_free_energy(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor
) -> Tensor:
    """`free_energy` in float32, which autograd, forward mode and ``torch.func`` differentiate any number of times."""
    wide, b, c = (part.to(torch.float32) for part in (weights, visible_bias, hidden_bias))
    return free_energy(visible, wide, b, c, beta)


@without_autocast
def gradient(
    grad: Tensor, visible: Tensor, weights: Tensor, hidden_bias: Tensor, beta: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The sums of ``grad`` times the gradients of each chain's free energy: for all backends, in float32.

    With ``x_j = c_j + sum_i v_i W_ij``, ``z = beta x`` and the logistic function ``s``,

        dF/dW_ij = -v_i s(z_j)    dF/db_i = -v_i    dF/dc_j = -s(z_j)
        dF/dbeta = sum_j (softplus(z_j) - z_j s(z_j)) / beta**2

    The last result has one number for each chain, also if ``beta`` is one number.
    """
    w, c = weights.to(torch.float32), hidden_bias.to(torch.float32)
    of_weights, of_visible = w.new_zeros(w.shape), w.new_zeros(len(w))
    of_hidden, of_beta = torch.zeros_like(c), w.new_zeros(len(visible))
    for first in range(0, len(visible), rows := max(1, PIECE // max(*w.shape, 1))):
        piece = slice(first, first + rows)
        v = visible[piece].to(torch.float32)
        scale = beta[piece, None].to(torch.float32) if isinstance(beta, Tensor) else beta
        z = scale * (c + v @ w)
        p = torch.sigmoid(z)
        weighted = grad[piece, None] * p
        of_weights -= v.t() @ weighted
        of_visible -= grad[piece] @ v
        of_hidden -= weighted.sum(0)
        if isinstance(beta, Tensor):
            softplus = -torch.nn.functional.logsigmoid(-z)
            of_beta[piece] = grad[piece] * ((softplus - z * p) / scale / scale).sum(1)
    return of_weights, of_visible, of_hidden, of_beta
