"""Tells devices of one kind apart: the time of fixed work on each of them."""

import torch

from .clocks import clock_for
from .roofline import median_seconds

ELEMENTS, SIZE = {"cuda": 1 << 27, "cpu": 1 << 22}, {"cuda": 4096, "cpu": 512}
"""Of the copied tensor, and of the multiplied matrices (float32)."""


def reference_seconds(device: torch.device) -> dict[str, float]:
    """The seconds of a ``copy``, which the memory bounds, and of a matrix ``product``, which clocks and power bound.

    Each is timed twice, with the other in between, and the shorter median counts: in the first a GPU may still raise
    its clocks.
    """
    x = torch.rand(ELEMENTS[device.type], device=device)
    y = torch.empty_like(x)
    n = SIZE[device.type]
    a, b, c = x[: n * n].view(n, n), x[-n * n :].view(n, n), torch.empty(n, n, device=device)
    works = {"copy": lambda: y.copy_(x), "product": lambda: torch.mm(a, b, out=c)}
    clock = clock_for(device)
    found = [{name: median_seconds(work, clock) for name, work in works.items()} for _ in range(2)]
    return {name: min(each[name] for each in found) for name in works}
