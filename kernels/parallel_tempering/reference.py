"""A round of replica exchange in torch."""

import torch

from ..philox import Stream, random_words, uniforms
from .request import LaunchRequest


def swap(given: LaunchRequest) -> None:
    """Write ``given.new_replica_at`` and ``given.accepted``."""
    ladders, rungs = given.replica_at.shape
    device = given.replica_at.device
    energy = given.energies.gather(1, given.replica_at.long())  # by rung
    lower = torch.arange(rungs - 1, device=device)[given.step % 2 :: 2]
    log_ratio = (given.betas[lower] - given.betas[lower + 1]) * (energy[:, lower] - energy[:, lower + 1])
    number = (given.first_ladder + torch.arange(ladders, device=device))[:, None] * rungs + lower
    words = random_words(number >> 2, given.seed, given.step, Stream.SWAP)
    u = uniforms(words.gather(-1, (number & 3)[..., None])[..., 0]).double()
    exchanged = u < torch.exp(log_ratio.clamp(max=0))
    result, accepted = given.replica_at.clone(), torch.zeros_like(given.accepted)
    result[:, lower] = torch.where(exchanged, given.replica_at[:, lower + 1], given.replica_at[:, lower])
    result[:, lower + 1] = torch.where(exchanged, given.replica_at[:, lower], given.replica_at[:, lower + 1])
    accepted[:, lower] = exchanged.to(torch.int32)
    given.new_replica_at.copy_(result)
    given.accepted.copy_(accepted)
