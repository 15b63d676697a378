"""Half a sweep of block Gibbs in torch: the ``torch`` backend, and the probabilities that the kernels are held to."""

import torch
from torch import Tensor

from ..philox import Stream, random_words, uniforms
from .half_sweep import HalfSweep


def probabilities(given: Tensor, weights: Tensor, bias: Tensor, beta: float) -> Tensor:
    """``sigmoid(beta (bias + given @ weights))`` in ``weights``'s dtype; shape (chains, units)."""
    return torch.sigmoid(beta * (bias + given.to(weights.dtype) @ weights))


def draw_uniforms(
    shape: torch.Size, seed: int, step: int, stream: Stream, first_chain: int, device: torch.device
) -> Tensor:
    """The float32 uniform of each unit of each chain; ``shape`` is (chains, units)."""
    chains, units = shape
    groups = (units + 3) // 4
    chain = torch.arange(first_chain, first_chain + chains, dtype=torch.int64, device=device)
    group = chain[:, None] * groups + torch.arange(groups, dtype=torch.int64, device=device)
    return uniforms(random_words(group, seed, step, stream)).flatten(1)[:, :units]


def half_sweep(half: HalfSweep) -> None:
    """Write ``half.out``. 16-bit weights are summed in float32."""
    p = probabilities(half.given, half.weights.to(torch.float32), half.bias.to(torch.float32), half.beta)
    if half.out.dtype is not torch.uint8:
        half.out.copy_(p)
        return
    u = draw_uniforms(half.out.shape, half.seed, half.step, half.stream, half.first_chain, half.out.device)
    drawn = (u < p).to(torch.uint8)
    if half.clamped is not None and half.previous is not None:
        drawn = torch.where(half.clamped, half.previous, drawn)
    half.out.copy_(drawn)
