"""What a sampler is held to: targets, which are laws with exact facts, and samplers, which advance chains towards them.

A `Target` and a `Sampler` are registered by the hooks ``register_targets`` and ``register_samplers``. Every sampler is
tried on every target that it does not refuse. Plain frozen dataclasses; nothing here runs a chain.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import InstanceOf
from torch import Tensor

from .operations import always_available

Temperature = float | Tensor
"""A number; or a tensor (chains,), one for each chain; or a schedule (steps, chains), one for each step as well."""

State = Mapping[str, Any]
"""A sampler's chains in progress. ``state["x"]`` are their positions, (chains, *target.shape), on the sampler's device
and of the target's dtype. All else (momenta, counters, the seed) is the sampler's own."""


@dataclass(frozen=True)
class Dynamics:
    """Which chain a sampler simulates, as far as the law that it leaves alone depends on it.

    ``exact``: the target's own law is stationary (Gibbs, Metropolis). Others are named by their equation, such as
    ``langevin`` with its ``step_size``: the discretised chain has a stationary law of its own, near the target's.
    """

    name: str = "exact"
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Projection:
    """Something that is seen of a state, ``of(x)``, one value for each chain, and its exact law.

    ``probabilities`` are those of the values 0, 1, ... (``of`` then gives integers); ``cdf`` is the distribution
    function of a number; ``mean`` is its exact expectation. At least one of the three is known.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    probabilities: Tensor | None = None
    cdf: Callable[[np.ndarray[Any, np.dtype[np.float64]]], np.ndarray[Any, np.dtype[np.float64]]] | None = None
    mean: float | None = None


@dataclass(frozen=True)
class ExactLaw:
    """The law that some dynamics leaves alone on a target at one temperature.

    ``draw(chains, generator)`` gives independent exact draws, (chains, *shape), on the CPU. ``log_z`` is the logarithm
    of the partition function, where it is defined and known.
    """

    draw: Callable[[int, torch.Generator], Tensor]
    projections: tuple[Projection, ...]
    log_z: float | None = None


@dataclass(frozen=True)
class Target:
    """A law to sample from: probability (density) proportional to ``exp(-energy(x) / temperature)``.

    - ``kind`` says how to read ``parameters``, for samplers made for such targets: ``rbm`` (weights, visible_bias,
      hidden_bias; x are the units, visible first), ``boltzmann`` (weights, biases; x are the units), ``ising`` (length,
      coupling), ``continuous`` (none needed), or a word of your own.
    - ``shape`` and ``dtype`` (torch name) are those of one chain's position. ``uint8`` are units 0 and 1, ``int8``
      spins -1 and 1; floating-point positions have a gradient, by autograd of ``energy``.
    - ``energy(x)`` takes (chains, *shape) on any device and gives (chains,).
    - ``law(temperature, dynamics)`` is what these dynamics leave alone, or None where nobody knows it. Where it has a
      ``log_z`` it is asked at 1.1 times each temperature as well.
    - ``temperatures`` are those at which samplers are tried.
    - ``clamped``, bool of that shape, names elements that stay as they are at a chain's start; the law is then that of
      the others given these. Only samplers that say so (``Sampler.clamps``) are tried on it.
    """

    name: str
    summary: str
    formula: str
    source: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    parameters: Mapping[str, Any]
    energy: Callable[[Tensor], Tensor]
    law: Callable[[float, Dynamics], ExactLaw | None]
    temperatures: tuple[float, ...] = (1.0,)
    clamped: InstanceOf[Tensor] | None = None
    plugin: str = ""

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class Sampler:
    """Something that advances many chains at once.

    - ``init(target, start, seed, first_chain)`` makes a state of chains that begin at ``start`` (chains, *shape), on
      its device. They are numbered from ``first_chain``.
    - ``advance(state, steps, temperature)`` makes that many steps, in place or not, and returns the state.
      ``temperature`` is a `Temperature`; `temperature_at` gives that of each step.
    - Its randomness is a function of seed, chain, step and element alone: the same seed gives the same states, and so
      does any split of the chains over calls of ``init``, or of the steps over calls of ``advance``.
    - ``dynamics(target)`` says which chain it simulates. ``refuses(target)`` gives the reason why it is not made for a
      target, or None; ``unavailable(device)`` why it cannot run for tensors there.
    - ``accepted(state)``, if there is one, is the fraction of proposals accepted so far, (chains,).
    - ``clamps`` says that it holds the clamped elements of a target where they are.
    """

    name: str
    summary: str
    source: str
    backend: str
    init: Callable[[Target, Tensor, int, int], State]
    advance: Callable[[State, int, Temperature], State]
    dynamics: Callable[[Target], Dynamics] = lambda target: Dynamics()
    refuses: Callable[[Target], str | None] = lambda target: None
    unavailable: Callable[[torch.device], str | None] = always_available
    accepted: Callable[[State], Tensor] | None = None
    clamps: bool = False
    plugin: str = ""


def temperature_at(temperature: Temperature, step: int) -> float | Tensor:
    """Of step ``step`` (from 0) of a call of ``advance``: a number, or a tensor (chains,)."""
    if isinstance(temperature, Tensor) and temperature.dim() == 2:
        return temperature[step]
    return temperature


def reason_against(sampler: Sampler, target: Target, device: torch.device) -> str | None:
    """Why ``sampler`` is not tried on ``target``, with tensors on ``device``; None if it is."""
    if target.clamped is not None and not sampler.clamps:
        return "it does not hold elements clamped"
    return sampler.refuses(target) or sampler.unavailable(device)
