"""The Langevin updates in torch: the ``torch`` backend, and the reference for the kernels."""

import torch
from torch import Tensor

from ..philox import Stream, halves, normals, random_words
from .request import LaunchRequest, Numbers, Place, computing_dtype


def noise(elements: int, dtype: torch.dtype, seed: int, step: int, number: int, device: torch.device) -> Tensor:
    """The standard normals of one tensor, float64 (elements,), computed from uniforms rounded to ``dtype``."""
    groups = torch.arange((elements + 3) // 4, dtype=torch.int64, device=device)
    return normals(random_words(groups, seed, step, Stream.NOISE, number), dtype).flatten()[:elements]


def rounding_bits(elements: int, seed: int, step: int, number: int, device: torch.device) -> Tensor:
    """The 16 bits that round each element of one tensor stochastically: int64 (elements,) in [0, 2**16)."""
    groups = torch.arange((elements + 7) // 8, dtype=torch.int64, device=device)
    return halves(random_words(groups, seed, step, Stream.ROUNDING, number)).flatten()[:elements]


def rounded_stochastically(value: Tensor, bits: Tensor) -> Tensor:
    """Round float32 ``value`` to bfloat16: away from zero if adding ``bits`` to the 16 bits that are cut off carries.

    For uniform bits, the probability of either neighbour is proportional to the distance from the other one, so the
    mean is exactly ``value``. Numbers that bfloat16 holds, infinities and NaN stay unchanged. The neighbour beyond the
    largest number is infinity.
    """
    whole = value.view(torch.int32).to(torch.int64) & 0xFFFFFFFF
    carried = torch.where(value.isnan(), 0x7FFF0000, whole + bits) >> 16
    return (carried - (carried >> 15 << 16)).to(torch.int16).view(torch.bfloat16)


def updated(x: Tensor, g: Tensor, state: Tensor, xi: Tensor, numbers: Numbers) -> tuple[Tensor, Tensor]:
    """The new position and the new state by the formulas of `Numbers`, in the dtype of ``x``; a noise of 0 adds none.

    If the formula has no state (V or p), ``state`` is returned unchanged.
    """
    scale = numbers.noise
    if numbers.kind == "preconditioned":
        state = numbers.keep * state + numbers.take * g * g
        preconditioner = 1 / (numbers.damping + torch.sqrt(state))
        x = x - numbers.drift * preconditioner * g
        return (x + torch.sqrt(preconditioner) * (scale * xi) if scale else x), state
    if numbers.kind == "hamiltonian":
        state = numbers.keep * state - numbers.drift * g
        state = state + scale * xi if scale else state
        return x + state, state
    x = x - numbers.drift * g
    return (x + scale * xi if scale else x), state


def update(updates: LaunchRequest, numbers: Numbers, place: Place) -> None:
    """Update every parameter, and its state, in place."""
    step = place.step if place.device_step is None else int(place.device_step)
    states = updates.states or updates.parameters  # without states any tensors will do: the formula does not use them
    for x, g, state, number in zip(updates.parameters, updates.gradients, states, updates.numbers, strict=True):
        wide = computing_dtype(x.dtype)
        xi = noise(x.numel(), wide, place.seed, step, number, x.device).view_as(x).to(wide) if numbers.noise else x
        moved, new_state = updated(x.to(wide), g.to(wide), state, xi, numbers)
        if updates.stochastic and x.dtype is torch.bfloat16:
            bits = rounding_bits(x.numel(), place.seed, step, number, x.device).view_as(x)
            moved = rounded_stochastically(moved, bits)
        x.copy_(moved)
        if updates.states:
            state.copy_(new_state)
