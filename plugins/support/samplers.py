"""Helpers of the samplers: random draws by chain and element, states, temperatures, gradients, step sizes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from boltzbench.harness import Dynamics, Sampler, Target, Temperature
from boltzbench.kernels import draws
from boltzbench.kernels.common.dispatch import backends_of, choose_backend, unavailable
from boltzbench.kernels.philox import Stream
from torch import Tensor

State = Mapping[str, Any]


class Purpose(IntEnum):
    """The use of a draw in a torch sampler; it stands in the stream's counter in place of the tensor's number."""

    PROPOSAL = 0
    ACCEPTANCE = 1
    MOMENTUM = 2


def normal_draws(x: Tensor, state: State, step: int, purpose: Purpose = Purpose.PROPOSAL) -> Tensor:
    """Standard normals of the shape and dtype of ``x`` (chains, ...).

    Element j of chain c is draw ``c n + j`` of the step, with n elements in a chain. So the draws do not depend on how
    the chains are split over calls.
    """
    precision = torch.float64 if x.dtype is torch.float64 else torch.float32
    first = int(state["first_chain"]) * math.prod(x.shape[1:])
    drawn = draws.normal_draws(first, x.numel(), state["seed"], step, Stream.SAMPLER, purpose, precision, x.device)
    return drawn.view(x.shape).to(x.dtype)


def uniform_draws(x: Tensor, elements: int, state: State, step: int, purpose: Purpose) -> Tensor:
    """Uniforms in [0, 1) for the test ``u < p``: float32 (chains, elements), numbered as in `normal_draws`."""
    first, count = int(state["first_chain"]) * elements, len(x) * elements
    drawn = draws.uniform_draws(first, count, state["seed"], step, Stream.SAMPLER, purpose, x.device)
    return drawn.view(len(x), elements)


def begin(target: Target, start: Tensor, seed: int, first_chain: int) -> dict[str, Any]:
    """The initial state of every sampler; ``start`` is copied."""
    if start.shape[1:] != target.shape or start.dtype is not target.torch_dtype:
        want = f"{target.dtype} (chains, {', '.join(map(str, target.shape))})"
        raise ValueError(f"start must be {want} for target {target.name!r}, got {start.dtype} {tuple(start.shape)}")
    if first_chain < 0 or (first_chain + len(start)) * max(1, math.prod(target.shape)) >= 1 << 62:
        raise ValueError(f"first_chain must be at least 0, and all elements must lie below 2**62; got {first_chain}")
    x = start.detach().clone(memory_format=torch.contiguous_format)
    return {"x": x, "target": target, "seed": seed, "first_chain": first_chain, "step": 0}


def begin_counting(target: Target, start: Tensor, seed: int, first_chain: int) -> dict[str, Any]:
    """`begin` with a count of accepted proposals, ``"accepted"``, for `acceptance_rate`."""
    accepted = torch.zeros(len(start), dtype=torch.float64, device=start.device)
    return begin(target, start, seed, first_chain) | {"accepted": accepted}


def acceptance_rate(state: State) -> Tensor:
    """The accepted fraction of the proposals so far, float64 (chains,)."""
    fraction: Tensor = state["accepted"] / max(1, state["step"])
    return fraction


def continuous_sampler(
    name: str, summary: str, source: str, dynamics: Callable[[Target], Dynamics],
    advance: Callable[[State, int, Temperature], State], *, backend: str = "torch", adjusted: bool = False, **more: Any,
) -> Sampler:  # fmt: skip
    """A sampler of floating-point positions. Its initial state also holds the numbers of its ``dynamics``.

    An ``adjusted`` sampler accepts or rejects, and counts under ``"accepted"``.
    """
    first = begin_counting if adjusted else begin

    def init(target: Target, start: Tensor, seed: int, first_chain: int) -> State:
        return first(target, start, seed, first_chain) | dict(dynamics(target).numbers)

    return Sampler(
        name=name,
        summary=summary,
        source=source,
        backend=backend,
        init=init,
        advance=advance,
        dynamics=dynamics,
        refuses=needs_a_gradient,
        accepted=acceptance_rate if adjusted else None,
        **more,
    )


REPLACED = {"triton": "interpreted", "cupy": "emulated"}
"""What happens to the kernels of a backend on a CPU."""


def by_backends(
    sampler: Callable[[str], Sampler], package: str, backends: Sequence[str] | None = None
) -> list[Sampler]:
    """The sampler by each of ``backends`` (all) for which the operation in ``package`` has kernels.

    On a CPU, kernels for a GPU take up to a minute. Where native ones run there, only those are judged: `check`
    compares all kernels of an operation element by element.
    """

    def reason(backend: str, device: torch.device) -> str | None:
        if device.type == "cpu" and choose_backend("auto", device, package) == "native":
            return f"{REPLACED[backend]} on a CPU, where {sampler('native').name} runs"
        return unavailable(backend, device)

    found = [sampler(each) for each in backends_of(package) if backends is None or each in backends]
    return [
        replace(each, unavailable=partial(reason, each.backend)) if each.backend in REPLACED else each for each in found
    ]


def temperatures(temperature: Temperature, x: Tensor, steps: int, *, zero: bool = False) -> Tensor:
    """``temperature`` for each step and chain of ``x``: float64 (steps, chains). 0 is allowed only with ``zero``."""
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
    """First and end of each run of steps with constant ``heat`` (steps, chains)."""
    changes = (heat[1:] != heat[:-1]).any(1).nonzero().flatten() + 1
    return list(pairwise([0, *changes.tolist(), len(heat)])) if len(heat) else []


def by_temperature(
    x: Tensor, heat: Tensor, state: State, move: Callable[[Tensor, int, int, int, float], Tensor]
) -> Tensor:
    """Positions after ``move``, for kernels that take the temperature as one number.

    ``move(x, first_chain, first_step, steps, temperature)`` is called once for each temperature in each run of steps
    with constant ``heat`` (steps, chains). It receives the chains from the first to the last at that temperature, and
    the results of chains at other temperatures between them are discarded. Sorted temperatures cost nothing extra;
    k interleaved ones cost k times as much.
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
    """``energy(x)`` in float64, (chains,), and its gradient, with the shape and dtype of ``x``."""
    with torch.enable_grad():
        position = x.detach().requires_grad_()
        energy = target.energy(position)
        (slope,) = torch.autograd.grad(energy.sum(), position)
    return energy.detach().double(), slope


def energy(target: Target, x: Tensor) -> Tensor:
    """``energy(x)`` in float64, (chains,), without autograd."""
    with torch.no_grad():
        return target.energy(x).double()


def needs_a_gradient(target: Target) -> str | None:
    """Why a sampler of floating-point positions refuses ``target``, or None."""
    if target.torch_dtype.is_floating_point:
        return None
    return f"its positions are {target.dtype}; the sampler needs floating-point ones"


_CURVATURES: dict[int, tuple[Target, Tensor]] = {}
"""The results of `curvatures` by the address of the target, which is kept, so that no other one gets its address."""


def curvatures(target: Target) -> Tensor:
    """The largest absolute eigenvalue of the energy's Hessian at typical points, float64 (points,), for step sizes.

    Power iteration on differences of the gradient, at exact draws for the highest temperature, or at standard normal
    points if no exact law is known. The points are the same in every call. All are 1 if the energy has no curvature.
    Each target is asked once.
    """
    if id(target) not in _CURVATURES:
        _CURVATURES[id(target)] = target, _curvatures(target)
    return _CURVATURES[id(target)][1]


def _curvatures(target: Target) -> Tensor:
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
    """``number`` to two significant digits, so that step sizes do not depend on the machine's rounding."""
    return float(f"{number:.1e}")
