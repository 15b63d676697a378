"""The launch request of the backends: one round of replica exchange on all ladders."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class LaunchRequest:
    """Contiguous tensors of shape (ladders, rungs), except ``betas`` (rungs,); the kernel writes the last two."""

    replica_at: Tensor
    energies: Tensor
    betas: Tensor
    new_replica_at: Tensor
    accepted: Tensor
    seed: int
    step: int
    first_ladder: int
