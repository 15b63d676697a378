"""All states of a small machine, and the number of each: bit i of the number is unit or spin i, 1 for spin +1."""

import torch
from torch import Tensor


def all_units(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The 2^n states of n units, 0 and 1, in the order of their numbers: uint8 (2^n, n)."""
    return (torch.arange(1 << n, device=device)[:, None] >> torch.arange(n, device=device) & 1).to(torch.uint8)


def all_spins(n: int, device: torch.device | str = "cpu") -> Tensor:
    """The 2^n states of n spins, -1 and +1, in the order of their numbers: int8 (2^n, n)."""
    return 2 * all_units(n, device).to(torch.int8) - 1


def number_of(units: Tensor) -> Tensor:
    """The numbers of states of units, 0 and 1 or bool, (..., n): int64 (...). Pass spins as ``spins > 0``."""
    return (units.long() << torch.arange(units.shape[-1], device=units.device)).sum(-1)
