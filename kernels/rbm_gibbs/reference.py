"""Half a sweep of block Gibbs in torch: the ``torch`` backend, and the exact probabilities for the checks."""

from dataclasses import replace

import torch
from torch import Tensor

from ..common.dispatch import without_autocast
from ..machines.unit_draws import draw_normals, draw_uniforms
from .prepared import Operand
from .request import LaunchRequest
from .states import pack_states, unpack_states


@without_autocast
def probabilities(given: Tensor, weights: Tensor, bias: Tensor, beta: float | Tensor) -> Tensor:
    """``sigmoid(beta (bias + given @ weights))`` in ``weights``'s dtype; shape (chains, units)."""
    return torch.sigmoid(beta * (bias + given.to(weights.dtype) @ weights))


def step_of(half: LaunchRequest) -> int | Tensor:
    return half.step if half.first_step is None else half.first_step + half.step


def half_sweep(half: LaunchRequest) -> None:
    """Write ``half.out``. Sums of 16-bit weights are float32, those of int8 digits exact."""
    if half.packed:
        _packed_half_sweep(half)
        return
    if half.draws_reals:
        _normal_half_sweep(half)
        return
    logit = _logits(half)
    beta = half.beta[:, None].to(logit.dtype) if isinstance(half.beta, Tensor) else half.beta
    if half.out.dtype is not torch.uint8:
        half.out.copy_(torch.sigmoid(beta * logit))
        return
    u = draw_uniforms(half.out.shape, half.seed, step_of(half), half.stream, half.first_chain, half.out.device)
    if isinstance(half.weights, Operand):
        drawn = u.to(logit.dtype) * (1 + torch.exp(-beta * logit)) < 1  # false for the NaN of 0 * inf
    else:
        drawn = u < torch.sigmoid(beta * logit)
    states = drawn.to(torch.uint8)
    if half.clamped is not None and half.previous is not None:
        states = torch.where(half.clamped, half.previous, states)
    half.out.copy_(states)


def _normal_half_sweep(half: LaunchRequest) -> None:
    assert half.sigma is not None
    assert isinstance(half.weights, Tensor)
    mean = half.bias + half.sigma * (half.given.to(torch.float32) @ half.weights)
    z = draw_normals(half.out.shape, half.seed, step_of(half), half.stream, half.first_chain, half.out.device)
    spread = half.beta[:, None] ** -0.5 if isinstance(half.beta, Tensor) else half.beta**-0.5
    states = mean + half.sigma * (spread * z).to(torch.float32)
    if half.clamped is not None and half.previous is not None:
        states = torch.where(half.clamped, half.previous, states)
    half.out.copy_(states)


def _packed_half_sweep(half: LaunchRequest) -> None:
    operand = half.weights
    assert isinstance(operand, Operand)
    given = unpack_states(half.given, operand.given_units)
    previous = half.previous if half.previous is None else unpack_states(half.previous, half.units)
    draws = half.out.dtype is torch.int64
    out = given.new_empty((len(given), half.units)) if draws else half.out
    half_sweep(replace(half, given=given, out=out, previous=previous))
    if draws:
        half.out.copy_(pack_states(out))


def _logits(half: LaunchRequest) -> Tensor:
    """``bias + given @ weights``: float32, or for digits float64, which holds their sum exactly."""
    bias = half.bias.to(torch.float32)
    if not isinstance(half.weights, Operand):
        given = half.given / half.sigma if half.sigma is not None else half.given.to(torch.float32)
        return bias + given @ half.weights.to(torch.float32)
    units, given_units = half.out.shape[1], half.given.shape[1]
    if half.weights.scale is None:
        given = half.given.to(torch.float32)
        parts = half.weights.parts[:, :units, :given_units].to(torch.float32)
        return bias + sum((given @ part.t() for part in parts), start=torch.zeros_like(bias))
    whole = half.given.to(torch.float64) @ half.weights.numbers()[:units, :given_units].t()
    return bias.to(torch.float64) + whole * half.weights.scale[:units].to(torch.float64)
