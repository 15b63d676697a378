"""The limits of a device that the suite knows, and what drives them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from .operations import always_available


@dataclass(frozen=True)
class Ceiling:
    """A way to drive one limit of the hardware as hard as it goes; the best one for a resource is its ceiling.

    ``resource`` is one of `RESOURCES`. ``amount`` is what one launch does, in that resource's unit.
    ``prepare(device)`` returns the launch and a check, to be called after it: None if the work was really done, else
    what was wrong. ``unavailable(device)`` is as for an implementation.
    """

    resource: str
    name: str
    backend: str
    amount: int
    prepare: Callable[[torch.device], tuple[Callable[[], object], Callable[[], str | None]]]
    unavailable: Callable[[torch.device], str | None] = always_available
    plugin: str = ""


RESOURCES: Mapping[str, str] = {
    "read": "B/s",
    "write": "B/s",
    "copy": "B/s",
    "bfloat16 matrix": "flop/s",
    "float16 matrix": "flop/s",
    "tf32 matrix": "flop/s",
    "int8 matrix": "op/s",
    "float32 matrix": "flop/s",
    "fma": "flop/s",
    "exp2": "calls/s",
    "wide multiply": "products/s",
    "philox": "words/s",
    "launch": "launches/s",
}
"""The limits of a device that the suite knows, and their units. ``copy`` counts bytes read and bytes written."""
