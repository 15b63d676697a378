"""A plan on many machines: its shards, their jobs on a cluster, and the merging of their results."""

from .submission import submit

__all__ = ["submit"]
