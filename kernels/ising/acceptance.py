"""Acceptance probabilities as integer thresholds, which the kernels compare with random bits."""

import torch
from torch import Tensor

RULES = ("heat_bath", "metropolis")
CLASSES = {2: "Metropolis", 3: "heat bath", 10: "field"}
"""The possible numbers of classes of `thresholds`, each with a name."""
CERTAIN = 1 << 32
"""The threshold of a flip that always happens."""


def thresholds(beta: Tensor, coupling: float, field: float, rule: str) -> Tensor:
    """``2**32 p``, rounded, for the probability p of each class; the kernels compare it with a random 32-bit number.

    ``beta`` is float64 (lattices,), possibly infinite. Returns int64 (lattices, classes). The classes are

    - Metropolis without a field: 3 and 4 satisfied bonds, ``p = exp(-beta dE)`` of a flip; with fewer, a flip costs no
      energy and is certain;
    - heat bath without a field: 2 satisfied bonds, 1 or 3, 0 or 4, ``p = 1 / (1 + exp(beta |dE|))`` that the spin does
      not lower the energy: it flips if ``dE > 0``, and otherwise stays. With 2 it is exactly 1/2, on which ising.cu
      relies;
    - with a field: 0 to 4 neighbours up for a spin that is down, then the same for a spin that is up, with
      ``p = min(1, exp(-beta dE))`` or ``1 / (1 + exp(beta dE))`` of a flip.
    """
    count = torch.arange(5, dtype=torch.float64, device=beta.device)
    if field:
        along = coupling * (2 * count - 4) + field
        change = torch.cat((-2 * along, 2 * along))
    else:
        change = 2 * abs(coupling) * (2 * count - 4)
        change = change[3:] if rule == "metropolis" else change[2:]
    exponent = torch.where(change == 0, 0.0, beta[:, None] * change)  # infinity * 0 counts as 0
    exponent = torch.where(beta[:, None] == 0, 0.0, exponent)
    p = torch.exp(-exponent.clamp(min=0)) if rule == "metropolis" else torch.sigmoid(-exponent)
    return (p * CERTAIN).round().to(torch.int64)
