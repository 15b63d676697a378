"""Langevin walkers in a double well in torch, step by step: the ``torch`` backend.

``E = (x^2 - 1)^2``, ``E' = 4 x (x^2 - 1)``, and ``x' = x - (eps / 2) E'(x) + sqrt(eps T) xi``.
"""

import torch
from torch import Tensor

from ..philox import Stream, normals, random_words
from .request import LaunchRequest


def noise(walkers: int, seed: int, step: int, first_walker: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The normals of one step, float64 (walkers,), from uniforms rounded to float32; and their Box-Muller radii."""
    groups = torch.arange(first_walker // 4, (first_walker + walkers + 3) // 4, device=device)
    z = normals(random_words(groups, seed, step, Stream.WALKERS))
    radii = z.view(-1, 2).norm(dim=1).repeat_interleave(2)
    first = first_walker % 4
    return z.flatten()[first : first + walkers], radii[first : first + walkers]


def walk(walk: LaunchRequest) -> None:
    """Write ``walk.x`` and ``walk.passages``."""
    x, factor = walk.x.copy_(walk.start), -2.0 * walk.step_size
    if walk.passages is not None:
        walk.passages.fill_(-1) if walk.earlier is None else walk.passages.copy_(walk.earlier)
    for number, scale in enumerate(walk.scales):
        z, _ = noise(len(x), walk.seed, walk.first_step + number, walk.first_walker, x.device)
        x.copy_(x + (factor * x) * (x * x - 1.0) + scale * z.float())
        if walk.passages is not None:
            first = (walk.passages < 0) & (x >= walk.threshold)
            walk.passages.masked_fill_(first, walk.first_step + number + 1)
