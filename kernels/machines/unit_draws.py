"""The random numbers of the units of many chains: four units share a group of the stream."""

import torch
from torch import Tensor

from ..philox import Stream, normals, random_words, uniforms
from .chain_checks import require_chains


def draw_uniforms(
    shape: torch.Size, seed: int, step: int | Tensor, stream: Stream, first_chain: int, device: torch.device
) -> Tensor:
    """The float32 uniform of each unit of each chain; ``shape`` is (chains, units)."""
    return uniforms(_words(shape, seed, step, stream, first_chain, device)).flatten(1)[:, : shape[1]]


def draw_normals(
    shape: torch.Size, seed: int, step: int | Tensor, stream: Stream, first_chain: int, device: torch.device
) -> Tensor:
    """The standard normal number of each unit of each chain: float64, from uniforms rounded to float32."""
    return normals(_words(shape, seed, step, stream, first_chain, device)).flatten(1)[:, : shape[1]]


def _words(
    shape: torch.Size, seed: int, step: int | Tensor, stream: Stream, first_chain: int, device: torch.device
) -> Tensor:
    chains, units = shape
    groups = (units + 3) // 4
    first_chain = require_chains(first_chain, chains, units)
    chain = torch.arange(first_chain, first_chain + chains, dtype=torch.int64, device=device)
    group = chain[:, None] * groups + torch.arange(groups, dtype=torch.int64, device=device)
    return random_words(group, seed, step, stream)
