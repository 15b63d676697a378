"""Sweeps of a Boltzmann machine in torch: the ``torch`` backend, and the random numbers of all backends.

One sweep draws ``x_i ~ Bernoulli(sigmoid(beta (b_i + sum_j W_ij x_j)))`` for each unit, colour by colour.
"""

import torch
from torch import Tensor

from ..machines import unit_draws
from ..philox import Stream
from .request import LaunchRequest


def draw_uniforms(shape: torch.Size, seed: int, step: int, first_chain: int, device: torch.device) -> Tensor:
    """The float32 uniform of each unit of each chain, in the order of the machine; ``shape`` is (chains, units)."""
    return unit_draws.draw_uniforms(shape, seed, step, Stream.BOLTZMANN_UNITS, first_chain, device)


def run(sweeps: LaunchRequest) -> None:
    """Write ``sweeps.out``, which is not empty. Sums are float32."""
    machine = sweeps.machine
    x = sweeps.in_order().to(torch.float32)
    clamped = None if sweeps.clamped is None else sweeps.clamped[:, machine.order]
    beta = sweeps.beta[:, None].to(torch.float32) if isinstance(sweeps.beta, Tensor) else sweeps.beta
    for step in range(sweeps.first_sweep, sweeps.first_sweep + sweeps.sweeps):
        u = draw_uniforms(x.shape, sweeps.seed, step, sweeps.first_chain, x.device)
        end = 0
        for size in machine.sizes:
            begin, end = end, end + size
            logit = machine.biases[begin:end] + x @ machine.weights[:, begin:end]
            drawn = (u[:, begin:end] * (1 + torch.exp(-beta * logit)) < 1).to(torch.float32)
            x[:, begin:end] = drawn if clamped is None else torch.where(clamped[:, begin:end], x[:, begin:end], drawn)
    sweeps.put(x)
