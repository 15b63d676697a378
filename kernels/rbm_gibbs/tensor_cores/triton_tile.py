"""Shared by the Triton kernels of block Gibbs: packed states, draws from sums of products, launch arguments."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...common.triton_math import bits_of, from_bits
from ...common.triton_runtime import helper
from ...philox import signed_seed
from ..request import LaunchRequest

MOST_INTERPRETED = 1 << 16
"""The most elements of a tile in the interpreter, where a program costs some milliseconds whatever their number."""


@helper
def inverse_temperature(betas, chain, chain_mask, beta_bits, BETAS: tl.constexpr):
    """Float64: (chains, 1), or one number for all chains."""
    if BETAS:
        return tl.load(betas + chain, mask=chain_mask, other=0.0)[:, None]
    else:
        return from_bits(beta_bits, tl.float64)


@helper
def unpacked(words, chain_mask, words_left, CHAINS: tl.constexpr, UNITS: tl.constexpr):
    """The states, int32 0 or 1 (chains, units), from packed words of 32 units.

    ``words``: pointers (chains, 1) to the first word of each chain. ``words_left``: the number of words from there on.
    """
    number = tl.arange(0, UNITS // 32)[None, :]
    word = tl.load(words + number, mask=chain_mask[:, None] & (number < words_left), other=0)
    return tl.reshape(word[:, :, None] >> tl.arange(0, 32)[None, None, :] & 1, (CHAINS, UNITS))


@helper
def packed(states, CHAINS: tl.constexpr, UNITS: tl.constexpr):
    """States 0 or 1 as words of 32 units, int32 (chains, units / 32)."""
    bits = tl.reshape(states.to(tl.int32), (CHAINS, UNITS // 32, 32))
    return tl.sum(bits << tl.arange(0, 32)[None, None, :], 2)


@helper
def number_of(first, second, third):
    """The exact sum, int64, from the sums of three digits."""
    return (first * 256 + second).to(tl.int64) * 256 + third


@helper
def logit_of(first, second, third, scale, offset, DIGITS: tl.constexpr):
    """From the sums of products: one sum of bfloat16, or three of int8 digits with the ``scale`` of each unit."""
    if DIGITS:
        return number_of(first, second, third).to(tl.float32) * scale + offset
    else:
        return first + offset


@helper
def exponential(logit, beta):
    """``exp(-beta logit)``; ``beta`` in float64."""
    return tl.exp2(logit * (beta * -1.4426950408889634).to(tl.float32))


@helper
def are_drawn(first, second, third, scale, offset, beta, words, DIGITS: tl.constexpr):
    """Whether the units of the random ``words`` are 1: the test is ``u (1 + exp(-beta logit)) < 1``, times 2**24."""
    logit = logit_of(first, second, third, scale, offset, DIGITS)
    u = (words >> 8).to(tl.float32)
    test = tl.fma(u, exponential(logit, beta), u)
    drawn = test < 16777216.0
    if DIGITS:
        # The error of float32 is 4 roundings of `size`, and 2**-22 of the exponential; the margin is twice that. The
        # NaN of 0 * inf counts as near.
        whole = number_of(first, second, third)
        size = tl.abs(whole.to(tl.float32) * scale) + tl.abs(offset)
        near = ~(tl.abs(test - 16777216.0) > 16.0 + 8.0 * beta.to(tl.float32) * size)
        if tl.max(near.to(tl.int32)) > 0:
            exact = beta * (offset.to(tl.float64) + whole.to(tl.float64) * scale.to(tl.float64))
            drawn = u.to(tl.float64) * (1.0 + tl.exp(-exact)) < 16777216.0
    return drawn


def as_words(states: Tensor) -> Tensor:
    """Packed words of 64 units as two of 32: a 64-bit shift takes two instructions or more in Triton."""
    return states.view(torch.int32) if states.dtype is torch.int64 else states


def betas_of(half: LaunchRequest) -> Tensor:
    """The inverse temperature of each chain, or a tensor in its place, which the kernel then does not read."""
    return half.bias if half.betas is None else half.betas


def numbers_of(half: LaunchRequest) -> tuple[int | Tensor | None, ...]:
    """The arguments ``beta_bits`` to ``first_chain``, in the order of every kernel."""
    return bits_of(half.common_beta), signed_seed(half.seed), half.step, half.first_step, half.first_chain


def tile_interpreted(chains: int, units: int, least_units: int, most_units: int) -> tuple[int, int]:
    """Chains and units of a program in the interpreter: little padding, and few programs."""
    width = min(max(int(triton.next_power_of_2(units)), least_units), most_units)
    return min(max(int(triton.next_power_of_2(chains)), 16), MOST_INTERPRETED // width), width
