"""Samplers over many processes, with `torch.distributed`."""

from .ranks import TIMEOUT, RankError, Ranks, join

__all__ = ["TIMEOUT", "RankError", "Ranks", "join"]
