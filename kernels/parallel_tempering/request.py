"""What the backends are asked for: one round of exchanges on all ladders."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LaunchRequest:
    """Contiguous tensors of shape (ladders, rungs), but for ``betas`` (rungs,); the last two are written."""

    replica_at: Tensor
    energies: Tensor
    betas: Tensor
    new_replica_at: Tensor
    accepted: Tensor
    seed: int
    step: int
    first_ladder: int
