"""Probabilities of a flip as whole numbers, which is what the kernels compare random bits with."""

import torch
from torch import Tensor

RULES = ("metropolis", "heat_bath")
CLASSES = {2: "Metropolis", 5: "heat bath", 10: "field"}
"""The numbers of classes that `thresholds` makes, each with a name."""
CERTAIN = 1 << 32
"""The threshold of a flip that always happens."""


def thresholds(beta: Tensor, coupling: float, field: float, rule: str) -> Tensor:
    """A spin flips if 32 random bits, as a whole number, are less than its threshold: ``2**32 P(flip)``, rounded.

    ``P = min(1, exp(-beta dE))`` (Metropolis) or ``1 / (1 + exp(beta dE))`` (heat bath: the new spin does not depend on
    the old one). ``beta`` is float64 (lattices,), infinity included. Returns int64 (lattices, classes), the classes of

    - no field, Metropolis: 3 and 4 satisfied bonds; with less a flip costs nothing and is certain;
    - no field, heat bath: 0 to 4 satisfied bonds, ``dE = 2 |J| (2 satisfied - 4)``;
    - a field: 0 to 4 neighbours up for a spin that is down, then for one that is up.
    """
    count = torch.arange(5, dtype=torch.float64, device=beta.device)
    if field:
        along = coupling * (2 * count - 4) + field
        change = torch.cat((-2 * along, 2 * along))
    else:
        change = 2 * abs(coupling) * (2 * count - 4)
        change = change[3:] if rule == "metropolis" else change
    exponent = torch.where(change == 0, 0.0, beta[:, None] * change)  # infinity times 0 is 0 here
    exponent = torch.where(beta[:, None] == 0, 0.0, exponent)
    p = torch.exp(-exponent.clamp(min=0)) if rule == "metropolis" else torch.sigmoid(-exponent)
    return (p * CERTAIN).round().to(torch.int64)
