"""The torch implementation of an operation, for a plugin that begins with its results."""

import functools

from .api.operations import Implementation
from .discovery.registry import load_registry


@functools.cache
def torch_implementation(operation: str) -> Implementation:
    """The implementation ``torch`` of the operation of this name.

    Call it in ``prepare``, not on import: the plugins are then being read. Raises UnknownName if there is none.
    """
    ((_, (found,)),) = load_registry().select([operation], ["torch"])
    return found
