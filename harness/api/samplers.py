"""Targets, which are distributions with known exact properties, and samplers, which run chains that sample them.

The hooks ``register_targets`` and ``register_samplers`` register them. `validate` runs every sampler on every target
that it does not refuse. These are plain frozen dataclasses; nothing here runs a chain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from pydantic import InstanceOf

from .operations import always_available

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

Temperature = Union[float, "Tensor"]
"""A number; a tensor (chains,) with one for each chain; or a schedule (steps, chains) with one for each step too."""

State = Mapping[str, Any]
"""The state of a sampler's chains. ``state["x"]`` holds their positions, (chains, *target.shape), on the sampler's
device and in the target's dtype. Other entries (momenta, counters, the seed) are the sampler's own."""


@dataclass(frozen=True)
class Dynamics:
    """The Markov chain that a sampler simulates, as far as its invariant distribution depends on it.

    ``exact``: the invariant distribution is the target (Gibbs, Metropolis). Others are named by their equation, such
    as ``langevin`` with its ``step_size``: the discretised chain has an invariant distribution near the target.
    """

    name: str = "exact"
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Projection:
    """An observable with a known exact marginal. ``of(x)`` gives one value for each chain.

    ``probabilities`` are those of the values 0, 1, ... if ``of`` gives integers; ``cdf`` is the distribution function
    if it gives real numbers; ``mean`` is the exact expectation. Give at least one of the three.
    """

    name: str
    of: Callable[[Tensor], Tensor]
    probabilities: Tensor | None = None
    cdf: Callable[[np.ndarray[Any, np.dtype[np.float64]]], np.ndarray[Any, np.dtype[np.float64]]] | None = None
    mean: float | None = None


@dataclass(frozen=True)
class ExactLaw:
    """The invariant distribution of some dynamics on a target at one temperature.

    ``draw(chains, generator)`` returns independent exact draws, (chains, *shape), on the CPU. ``log_z`` is the
    logarithm of the partition function, if it is defined and known.
    """

    draw: Callable[[int, torch.Generator], Tensor]
    projections: tuple[Projection, ...]
    log_z: float | None = None


@dataclass(frozen=True)
class Target:
    """A target distribution: probability (density) proportional to ``exp(-energy(x) / temperature)``.

    - ``kind`` says what ``parameters`` contains, for samplers specialized on such targets: ``rbm`` (weights,
      visible_bias, hidden_bias; x holds the units, visible first), ``boltzmann`` (weights, biases; x holds the units),
      ``ising`` (length, coupling), ``continuous`` (nothing), or another word of your choice.
    - ``shape`` and ``dtype`` (torch name) are those of one chain's position. ``uint8`` holds units 0 and 1, ``int8``
      spins -1 and 1; floating-point positions have a gradient, by autograd of ``energy``.
    - ``energy(x)`` takes (chains, *shape) on any device and returns (chains,).
    - ``law(temperature, dynamics)`` is the invariant distribution of these dynamics, or None if it is unknown. If the
      law has a ``log_z``, the harness also calls it at 1.1 times each temperature.
    - ``temperatures`` are those at which `validate` runs samplers.
    - ``clamped``, bool of the same shape, marks elements that keep their initial values; ``law`` is then the
      conditional distribution of the others. `validate` runs only samplers with ``Sampler.clamps`` on such a target.
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
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class Sampler:
    """A Markov chain Monte Carlo method that advances many chains at once.

    - ``init(target, start, seed, first_chain)`` makes the state of chains that begin at ``start`` (chains, *shape), on
      the device of ``start``. The chains are numbered from ``first_chain``.
    - ``advance(state, steps, temperature)`` makes that many steps, in place or not, and returns the state.
      ``temperature`` is a `Temperature`; `temperature_at` gives that of each step.
    - Random numbers are a function of seed, chain, step and element alone. The same seed therefore gives the same
      states, however the chains are split over calls of ``init`` or the steps over calls of ``advance``.
    - ``dynamics(target)`` says which chain it simulates.
    - ``refuses(target)`` returns the reason why it does not support a target, or None.
    - ``unavailable(device)`` returns the reason why it cannot run on a device, or None.
    - ``accepted(state)``, if given, is the acceptance rate of each chain so far, (chains,).
    - ``clamps`` says that it keeps the clamped elements of a target fixed.
    - ``reversible`` says that its steps satisfy detailed balance, with respect to the law of its dynamics.
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
    reversible: bool = False
    plugin: str = ""


def temperature_at(temperature: Temperature, step: int) -> float | Tensor:
    """The temperature of step ``step`` (from 0) in a call of ``advance``: a number, or a tensor (chains,)."""
    import torch

    if isinstance(temperature, torch.Tensor) and temperature.dim() == 2:
        return temperature[step]
    return temperature


def reason_against(sampler: Sampler, target: Target, device: torch.device) -> str | None:
    """Why `validate` does not run ``sampler`` on ``target`` and ``device``; None if it does."""
    if target.clamped is not None and not sampler.clamps:
        return "it does not support clamped elements"
    return sampler.refuses(target) or sampler.unavailable(device)
