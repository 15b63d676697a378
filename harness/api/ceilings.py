"""Ceilings: measurable limits of a device, and the kernels that reach them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .operations import always_available

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Ceiling:
    """A kernel that saturates one resource of the hardware. The fastest one for a resource sets its limit.

    ``resource`` is one of `RESOURCES`. ``amount`` is the work of one launch in that resource's unit.
    ``prepare(device)`` returns the launch and a check. The harness calls the check after the launch: it returns None
    if the work was done, otherwise a description of the fault. ``unavailable(device)`` is as for an implementation.
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
    "float64 fma": "flop/s",
    "exp2": "calls/s",
    "wide multiply": "products/s",
    "philox": "words/s",
    "logic": "op/s",
    "launch": "launches/s",
}
"""The resources of a device that can have a ceiling, with their units. ``copy`` counts bytes read plus bytes
written, ``exp2`` calls of any special function, ``logic`` operations of three operands on words of 32 bits."""
