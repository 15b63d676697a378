"""What small right samplers share, whose pieces can be replaced by wrong ones: their random numbers and states.

`small_well.py` and `small_discrete.py` have the samplers. Their random numbers are a function of seed, chain, step and
element.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...api.samplers import Target, temperature_at

State = dict[str, Any]
Step = Callable[[State, Any], Tensor]
"""``step(state, temperature) -> x``."""
Advance = Callable[[Any, int, Any], State]
Noise = Callable[[State], Tensor]

# A random stream that is a function of seed, chain, step and element: splitmix64 (Steele et al. 2014), nested.

GOLDEN = -7046029254386353131


def _mixed(z: Tensor) -> Tensor:
    """The finaliser of SplitMix64, in place."""
    z ^= (z >> 30) & (2**34 - 1)
    z *= -4658895280553007687
    z ^= (z >> 27) & (2**37 - 1)
    z *= -7723592293110705685
    z ^= (z >> 31) & (2**33 - 1)
    return z


def uniforms(seed: int, chain: int | Tensor, step: int | Tensor, elements: int) -> Tensor:
    """(chains, elements), float64, between 0 and 1. ``chain`` and ``step`` are numbers or (chains,)."""
    word = torch.tensor(seed)
    for part in (torch.as_tensor(step), torch.as_tensor(chain)):
        word = _mixed((word + 1) * GOLDEN + part)
    word = _mixed((word.reshape(-1, 1) + 1) * GOLDEN + torch.arange(elements))
    word >>= 11
    word &= 2**53 - 1
    return word.double().add_(0.5).mul_(2.0**-53)


def chains_of(state: State) -> Tensor:
    numbers: Tensor = state["first"] + torch.arange(len(state["x"]))
    return numbers


def uniform_noise(state: State) -> Tensor:
    return uniforms(state["seed"], chains_of(state), state["step"], state["x"][0].numel() + 1)


def as_normal(u: Tensor) -> Tensor:
    normal: Tensor = torch.special.erfinv(2 * u - 1)
    return math.sqrt(2) * normal


def begin(target: Target, start: Tensor, seed: int, first_chain: int) -> State:
    return {"x": start, "target": target, "seed": seed, "first": first_chain, "step": 0, "temperature": None}


def advance_by(step: Step) -> Advance:
    """``advance`` from ``step(state, temperature) -> x``, the temperature (chains, 1) or a number."""

    def advance(state: Any, steps: int, temperature: Any) -> State:
        for number in range(steps):
            t = temperature_at(temperature, number)
            state["x"] = step(state, t[:, None].double() if isinstance(t, torch.Tensor) else t)
            state["step"] += 1
        advanced: State = state
        return advanced

    return advance


def only(kind: str) -> Callable[[Target], str | None]:
    return lambda target: None if target.kind == kind else f"made for {kind}"
