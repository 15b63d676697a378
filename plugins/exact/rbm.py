"""Exact answers for restricted Boltzmann machines: a small machine with known log Z, and log Z by enumeration."""

import torch
from boltzbench.plugins.exact.states import all_units
from torch import Tensor

LOG_Z = 15.116010115197419
"""log Z of `fixture` at beta 1, enumerated in extended precision."""


def fixture() -> dict[str, Tensor]:
    """The weights and biases of a machine with 10 visible and 8 hidden units; float64."""
    i, j = torch.arange(10, dtype=torch.float64), torch.arange(8, dtype=torch.float64)
    return {
        "weights": torch.sin(1.7 * i[:, None] + 0.9 * j + 0.3),
        "visible_bias": 0.3 * torch.cos(i),
        "hidden_bias": -0.2 * torch.sin(j + 1),
    }


def log_partition(weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor) -> Tensor:
    """``log sum_v exp(-F(v))`` at beta 1, in float64 over all states of the smaller layer at once."""
    w, b, c = (part.double() for part in (weights, visible_bias, hidden_bias))
    if w.shape[0] > w.shape[1]:
        w, b, c = w.t(), c, b
    x = all_units(len(w), w.device).double()
    return torch.logsumexp(x @ b + torch.nn.functional.softplus(c + x @ w, threshold=100.0).sum(1), 0)
