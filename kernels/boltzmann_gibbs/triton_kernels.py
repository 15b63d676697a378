"""All sweeps of a Boltzmann machine by colours in one launch, in Triton; see reference.py for the model.

Bound by the loads of states: for each link one byte of each chain. They come from the cache as long as the states of
all chains fit in it; a state is a byte, and the chains of a unit are neighbours. Links, sums and random numbers stay in
registers.

A program advances a block of chains through all sweeps, with a barrier between two colours. It draws sixteen
neighbouring units of a colour at a time, of which four share a Philox call, and sums one link of each unit in a step.
Where colours are small, it draws one unit at a time and sums sixteen of its links in a step. Launches before and after
it move the states to the machine's order, chains beside each other, and back.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..common.philox_triton import interleave4, random_words, uniform
from ..common.triton_blocks import block_for
from ..common.triton_math import bits_of, from_bits
from ..common.triton_runtime import INTERPRETS, helper
from ..common.variants import KernelVariant, TritonVariant
from ..philox import Stream, signed_seed
from .request import LaunchRequest

_BOLTZMANN_UNITS = tl.constexpr(int(Stream.BOLTZMANN_UNITS))

BLOCK_CHAINS = 64
WARPS = 4
TILES = {False: (16, 1), True: (1, 16)}
"""Units drawn at a time and links summed in a step. The key: whether units are drawn one by one."""
MOVED = 64
"""Chains, and units, of a tile of states that moves to the machine's order or back."""
INTERPRETED = 1 << 20
"""Elements of a tile in the interpreter, where a step costs some milliseconds for any tile."""


@triton.jit(do_not_specialize=["beta_bits", "seed", "first_step", "first_chain", "sweeps", "colours"])
def sweeps_kernel(
    state,  # uint8 (units, chains), 0 or 1, in the machine's order; in place
    colour_begin,  # int32 (colours + 1,)
    first,  # int32 (units + 1,), half of the number of each unit's first link
    links,  # int32 (links, 2): 4 times the other unit, and the bits of the weight
    weights,  # float32 (links, 2), the same memory
    biases,  # float32 (units,)
    clamped,  # uint8 (units, chains), 1 if a unit keeps its state; read if CLAMPED
    betas,  # float64 (chains,), read if BETAS; otherwise beta_bits holds the common one
    chains,
    units,
    colours,
    sweeps,
    beta_bits,
    seed,
    first_step,
    first_chain,
    CLAMPED: tl.constexpr,
    BETAS: tl.constexpr,
    CHAINS: tl.constexpr,
    UNITS: tl.constexpr,
    LINKS: tl.constexpr,
):
    chain = tl.program_id(0).to(tl.int64) * CHAINS + tl.arange(0, CHAINS)
    inside = chain < chains
    if BETAS:
        beta = tl.load(betas + chain, mask=inside, other=0.0)
    else:
        beta = tl.zeros((CHAINS,), tl.float64) + from_bits(beta_bits, tl.float64)
    scale = (beta * -1.4426950408889634).to(tl.float32)[:, None]
    group = (first_chain + chain) * ((units + 3) // 4)
    for sweep in range(sweeps):
        for colour in range(colours):
            begin = tl.load(colour_begin + colour)
            end = tl.load(colour_begin + colour + 1)
            for at in range(begin // UNITS * UNITS, end, UNITS):
                unit = at + tl.arange(0, UNITS)
                drawn = (unit >= begin) & (unit < end)
                start = 2 * tl.load(first + unit, mask=drawn, other=0)
                stop = 2 * tl.load(first + unit + 1, mask=drawn, other=0)
                total = tl.zeros((CHAINS, UNITS), tl.float32)
                for k in range(0, tl.max(stop - start, axis=0), LINKS):
                    link = (start + k)[:, None] + tl.arange(0, LINKS)[None, :]
                    linked = link < stop[:, None]
                    other = tl.load(links + 2 * link, mask=linked, other=0).to(tl.int64) // 4
                    weight = tl.load(weights + 2 * link + 1, mask=linked, other=0.0)
                    at_1 = tl.load(
                        state + (other * chains)[None, :, :] + chain[:, None, None],
                        mask=inside[:, None, None] & linked[None, :, :],
                        other=0,
                    )
                    total += tl.sum(at_1.to(tl.float32) * weight[None, :, :], axis=2)
                x = scale * (total + tl.load(biases + unit, mask=drawn, other=0.0)[None, :])
                quad = group[:, None] + (at // 4 + tl.arange(0, (UNITS + 3) // 4))[None, :]
                w0, w1, w2, w3 = random_words(quad, seed, first_step + sweep, _BOLTZMANN_UNITS)
                if UNITS == 1:
                    odd = at % 2 == 1
                    word = tl.where(at % 4 >= 2, tl.where(odd, w3, w2), tl.where(odd, w1, w0))
                else:
                    word = interleave4(w0, w1, w2, w3)
                up = (uniform(word) * (1.0 + tl.exp2(x)) < 1.0).to(tl.uint8)
                place = (unit.to(tl.int64) * chains)[None, :] + chain[:, None]
                mask = inside[:, None] & drawn[None, :]
                if CLAMPED:
                    held = tl.load(clamped + place, mask=mask, other=0)
                    up = tl.where(held != 0, tl.load(state + place, mask=mask, other=0), up)
                tl.store(state + place, up, mask=mask)
            tl.debug_barrier()  # all of a colour is drawn before the next


@helper
def _tile(order, chains, units, CHAINS: tl.constexpr, UNITS: tl.constexpr):
    """Chains, the caller's numbers of units, places in the machine's order, and which of them exist: a tile of each."""
    chain = (tl.program_id(0).to(tl.int64) * CHAINS + tl.arange(0, CHAINS))[:, None]
    unit = tl.program_id(1) * UNITS + tl.arange(0, UNITS)
    number = tl.load(order + unit, mask=unit < units, other=0)[None, :]
    return chain, number, (unit.to(tl.int64) * chains)[None, :] + chain, (chain < chains) & (unit < units)[None, :]


@triton.jit(do_not_specialize=["chain_stride", "unit_stride"])
def order_kernel(
    given,  # uint8, an element for each chain and unit of the caller's; 1 becomes 1, any other number 0
    chain_stride,
    unit_stride,
    ordered,  # uint8 (units, chains), in the machine's order
    order,  # int64 (units,), the caller's number of each unit
    chains,
    units,
    CHAINS: tl.constexpr,
    UNITS: tl.constexpr,
):
    chain, number, place, mask = _tile(order, chains, units, CHAINS, UNITS)
    value = tl.load(given + chain * chain_stride + number * unit_stride, mask=mask, other=0)
    tl.store(ordered + place, (value == 1).to(tl.uint8), mask=mask)


@triton.jit(do_not_specialize=["low"])
def restore_kernel(
    ordered,  # uint8 (units, chains), in the machine's order, 0 or 1
    out,  # uint8 (chains, units), in the caller's order: low or 1
    order,
    chains,
    units,
    low,
    CHAINS: tl.constexpr,
    UNITS: tl.constexpr,
):
    chain, number, place, mask = _tile(order, chains, units, CHAINS, UNITS)
    value = tl.load(ordered + place, mask=mask, other=0)
    tl.store(out + chain * units + number, tl.where(value != 0, 1, low).to(tl.uint8), mask=mask)


def run(work: LaunchRequest) -> None:
    """Write ``work.out``, which is not empty."""
    machine, chains = work.machine, len(work.out)
    tile = (block_for(chains, MOVED), block_for(machine.units, MOVED))
    grid = (triton.cdiv(chains, tile[0]), triton.cdiv(machine.units, tile[1]))

    def ordered(given: Tensor) -> Tensor:
        result = given.new_empty((machine.units, chains))
        order_kernel[grid](given, *given.stride(), result, machine.order, chains, machine.units, *tile, num_warps=WARPS)
        return result

    state = ordered(work.states)
    clamped = None if work.clamped is None else ordered(work.clamped.view(torch.uint8))
    each = isinstance(work.beta, Tensor)
    one_by_one = machine.units < 4 * len(machine.sizes)
    (units, links), block = TILES[one_by_one], BLOCK_CHAINS
    if INTERPRETS:
        links = triton.next_power_of_2(max(1, machine.longest))
        block = min(max(1, INTERPRETED // (units * links)), triton.next_power_of_2(chains))
    sweeps_kernel[(triton.cdiv(chains, block),)](
        state, machine.colours, machine.first, machine.links, machine.links.view(torch.float32), machine.biases,
        state if clamped is None else clamped, work.beta if each else machine.biases, chains, machine.units,
        len(machine.sizes), work.sweeps, 0 if isinstance(work.beta, Tensor) else bits_of(work.beta),
        signed_seed(work.seed), work.first_sweep, work.first_chain,
        CLAMPED=clamped is not None, BETAS=each, CHAINS=block, UNITS=units, LINKS=links, num_warps=WARPS,
    )  # fmt: skip
    restore_kernel[grid](state, work.out, machine.order, chains, machine.units, work.low, *tile, num_warps=WARPS)


def variants() -> Sequence[KernelVariant]:
    """Both tiles of sweeps, sixteen units at a time and one; and the kernels that reorder the states."""
    states = {"order": "*i64:16", "chains": "i32:16", "units": "i32:16", "CHAINS": MOVED, "UNITS": MOVED}
    strides = {"chain_stride": "i32", "unit_stride": "i32"}
    moves: list[tuple[str, Any, dict[str, Any]]] = [
        ("to the machine's order", order_kernel, {"given": "*u8:16", "ordered": "*u8:16", **strides, **states}),
        ("to the caller's order", restore_kernel, {"ordered": "*u8:16", "out": "*u8:16", "low": "i32", **states}),
    ]
    return [
        TritonVariant(
            name=name,
            threads=32 * WARPS,
            items=BLOCK_CHAINS * units * links // (32 * WARPS),
            unit="links",
            bytes_per_item=1.0,
            kernel=sweeps_kernel,
            signature={
                "state": "*u8:16",
                **dict.fromkeys(("colour_begin", "first", "links"), "*i32:16"),
                **dict.fromkeys(("weights", "biases"), "*fp32:16"),
                "clamped": "*u8:16",
                "betas": "*fp32:16",
                **dict.fromkeys(("chains", "units"), "i32:16"),
                **dict.fromkeys(("colours", "sweeps", "first_step"), "i32"),
                **dict.fromkeys(("beta_bits", "first_chain", "seed"), "i64"),
                "CLAMPED": False,
                "BETAS": False,
                "CHAINS": BLOCK_CHAINS,
                "UNITS": units,
                "LINKS": links,
            },
        )
        for name, (units, links) in (("sixteen units at a time", TILES[False]), ("one unit at a time", TILES[True]))
    ] + [
        TritonVariant(
            name=name, threads=32 * WARPS, items=MOVED * MOVED // (32 * WARPS), unit="states", bytes_per_item=2.0,
            kernel=kernel, signature=signature,
        )
        for name, kernel, signature in moves
    ]  # fmt: skip
