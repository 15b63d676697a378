"""What the samplers share: draws named by chain and element, temperatures, gradients, and a rule for step sizes."""

import math
from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import pairwise
from typing import Any

import torch
from boltzbench.harness import Dynamics, Target, Temperature
from boltzbench.kernels.philox import Stream, normals, random_words, uniforms
from torch import Tensor

State = Mapping[str, Any]


class Purpose(IntEnum):
    """What a draw of a torch sampler is for. It takes the place of the tensor's number in the stream's counter."""

    PROPOSAL = 0
    ACCEPTANCE = 1
    MOMENTUM = 2


def _words(x: Tensor, elements: int, state: State, step: int, purpose: Purpose) -> tuple[Tensor, int]:
    """The groups of words that hold ``elements`` draws for each chain of ``x``, and the place of the first draw."""
    first = int(state["first_chain"]) * elements
    end = first + len(x) * elements
    groups = torch.arange(first // 4, (end + 3) // 4, dtype=torch.int64, device=x.device)
    return random_words(groups, state["seed"], step, Stream.NOISE, purpose), first % 4


def normal_draws(x: Tensor, state: State, step: int, purpose: Purpose = Purpose.PROPOSAL) -> Tensor:
    """Standard normals of the shape and dtype of ``x`` (chains, ...).

    Element j of chain c, of n elements, is draw ``c n + j`` of the step: the same however the chains are split.
    """
    words, first = _words(x, math.prod(x.shape[1:]), state, step, purpose)
    precision = torch.float64 if x.dtype is torch.float64 else torch.float32
    return normals(words, precision).flatten()[first : first + x.numel()].view(x.shape).to(x.dtype)


def uniform_draws(x: Tensor, elements: int, state: State, step: int, purpose: Purpose) -> Tensor:
    """Uniforms in [0, 1) for the test ``u < p``: float32 (chains, elements), numbered as in `normal_draws`."""
    words, first = _words(x, elements, state, step, purpose)
    return uniforms(words).flatten()[first : first + len(x) * elements].view(len(x), elements)


def begin(target: Target, start: Tensor, seed: int, first_chain: int) -> dict[str, Any]:
    """The state that every sampler begins with; ``start`` stays the caller's own."""
    if start.shape[1:] != target.shape or start.dtype is not target.torch_dtype:
        want = f"{target.dtype} (chains, {', '.join(map(str, target.shape))})"
        raise ValueError(f"start must be {want} for target {target.name!r}, got {start.dtype} {tuple(start.shape)}")
    if first_chain < 0 or (first_chain + len(start)) * max(1, math.prod(target.shape)) >= 1 << 62:
        raise ValueError(f"first_chain must not be negative nor lead beyond 2**62 elements, got {first_chain}")
    x = start.detach().clone(memory_format=torch.contiguous_format)
    return {"x": x, "target": target, "seed": seed, "first_chain": first_chain, "step": 0}


def temperatures(temperature: Temperature, x: Tensor, steps: int, *, zero: bool = False) -> Tensor:
    """``temperature`` for each step and chain of ``x``: float64 (steps, chains). Positive, or 0 where ``zero``."""
    values = torch.as_tensor(temperature, dtype=torch.float64, device=x.device)
    if values.shape not in ((), (len(x),), (steps, len(x))):
        shapes = f"({len(x)},) or ({steps}, {len(x)})"
        raise ValueError(f"temperature must be a number or have shape {shapes}, got {tuple(values.shape)}")
    sound = values.isfinite() & (values >= 0 if zero else values > 0)
    if not sound.all():
        word = "not negative" if zero else "positive"
        raise ValueError(f"temperature must be finite and {word}, got {values[~sound].flatten()[0].item()}")
    return values.expand(steps, len(x))


def beside(values: Tensor, x: Tensor) -> Tensor:
    """``values`` (chains,) in the dtype of ``x`` and a shape that broadcasts against it."""
    return values.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def stretches(heat: Tensor) -> list[tuple[int, int]]:
    """The first step and the end of each stretch of steps in which ``heat`` (steps, chains) stays as it is."""
    changes = (heat[1:] != heat[:-1]).any(1).nonzero().flatten() + 1
    return list(pairwise([0, *changes.tolist(), len(heat)])) if len(heat) else []


def by_temperature(
    x: Tensor, heat: Tensor, state: State, move: Callable[[Tensor, int, int, int, float], Tensor]
) -> Tensor:
    """``move(x, first_chain, first_step, steps, temperature)`` for kernels that take the temperature as one number.

    Steps that follow each other at the same ``heat`` (steps, chains) go together. Of these, ``move`` is called once
    for each temperature that occurs, with the chains from the first to the last that have it; those between them that
    have another are moved in vain. A ladder in order costs nothing more; k temperatures in turn cost k times as much.
    """
    for step, end_step in stretches(heat):
        result = torch.empty_like(x)
        for value in sorted(set(heat[step].tolist())):
            chosen = heat[step] == value
            places = chosen.nonzero()
            first, end = int(places[0]), int(places[-1]) + 1
            begins = (int(state["first_chain"]) + first, int(state["step"]) + step)
            moved = move(x[first:end], *begins, end_step - step, value)
            result[first:end][chosen[first:end]] = moved[chosen[first:end]]
        x = result
    return x


def energy_and_gradient(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """``energy(x)`` in float64, (chains,), and its gradient, of the shape and dtype of ``x``."""
    with torch.enable_grad():
        position = x.detach().requires_grad_()
        energy = target.energy(position)
        (slope,) = torch.autograd.grad(energy.sum(), position)
    return energy.detach().double(), slope


def energy(target: Target, x: Tensor) -> Tensor:
    """``energy(x)`` in float64, (chains,), without a graph."""
    with torch.no_grad():
        return target.energy(x).double()


def needs_a_gradient(target: Target) -> str | None:
    """The reason of a sampler of continuous positions to refuse ``target``."""
    if target.torch_dtype.is_floating_point:
        return None
    return f"its positions are {target.dtype}, and the sampler moves floating-point ones"


def curvatures(target: Target) -> Tensor:
    """The largest eigenvalue, by size, of the Hessian of the energy at points where the law goes: float64 (points,).

    By power iteration on differences of the gradient, at exact draws for the highest temperature (at normal ones where
    none can be had), always the same. 1 where the energy has no curvature at all. The step sizes follow from it.
    """
    law = target.law(max(target.temperatures), Dynamics())
    points = max(8, min(256, 4096 // math.prod(target.shape)))
    generator = torch.Generator().manual_seed(0)
    if law is None:
        x = torch.randn((points, *target.shape), generator=generator, dtype=torch.float64)
    else:
        x = law.draw(points, generator)
    x = x.to(target.torch_dtype)
    direction = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    reach = torch.finfo(x.dtype).eps ** (1 / 3)
    found = torch.zeros(points, dtype=x.dtype)
    for _ in range(20):
        length = direction.flatten(1).norm(dim=1)
        direction = direction / beside(length.clamp(min=torch.finfo(x.dtype).tiny), x)
        _, ahead = energy_and_gradient(target, x + reach * direction)
        _, behind = energy_and_gradient(target, x - reach * direction)
        direction = (ahead - behind) / (2 * reach)
        found = direction.flatten(1).norm(dim=1)
    curved = bool(found.isfinite().all()) and float(found.max()) > 1e-6
    return found.double() if curved else torch.ones(points, dtype=torch.float64)


def rounded(number: float) -> float:
    """``number`` to two digits, so that another machine's rounding leaves the rule's result as it is."""
    return float(f"{number:.1e}")
