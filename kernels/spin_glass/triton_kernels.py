"""Annealing of spin glasses of few bonds in Triton: all sweeps in one launch, 32 walkers to a word, as `spin_glass.cu`.

A program of one warp has a block of words of every spin. It reads and writes them in global memory, where each has its
own address, and the L1 cache serves the reads. A barrier of the warp separates a write from the reads that depend on
it.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from ..common.philox_triton import random_words
from ..common.triton_blocks import block_for
from ..common.triton_runtime import helper
from ..common.variants import KernelVariant, TritonVariant
from ..machines.packed_spins import WORD, mean_groups
from ..machines.triton_spins import PARTS, any_bit, bit_mask, compare_bit, inverted
from ..philox import Stream, signed_seed
from . import triton_links
from .bonds import BONDS, CLASSES, MOST_CLASSES, RULES, Bonds
from .request import LaunchRequest

_GLASS_SITES, _MOST_CLASSES = tl.constexpr(int(Stream.GLASS_SITES)), tl.constexpr(MOST_CLASSES)
_COUNT_PLANES = tl.constexpr(17)
"""Twice the bonds of a glass are fewer than 2**17: see `bonds.MOST_BONDS`."""

BLOCK = 64
"""Words of a program."""


@helper
def _picked(choice, low, high):
    return (low & inverted(choice)) | (high & choice)


@helper
def _row(table, CLASSES: tl.constexpr):
    """The thresholds of all classes."""
    if CLASSES == 1:
        return (tl.load(table).to(tl.uint32, bitcast=True),)
    elif CLASSES == 3:
        return _row(table, 2) + _row(table + 2, 1)
    else:
        return _row(table, CLASSES // 2) + _row(table + CLASSES // 2, CLASSES // 2)


@helper
def _threshold(row, first: tl.constexpr, shift, p0, p1, p2, p3, CLASSES: tl.constexpr):
    """Bit ``shift`` of the threshold of each walker's class, which the planes encode."""
    if CLASSES == 1:
        return bit_mask((row[first] >> shift) & 1)
    elif CLASSES == 3:
        low = _threshold(row, first, shift, p0, p1, p2, p3, 2)
        return _picked(p1, low, bit_mask((row[first + 2] >> shift) & 1))
    else:
        HALF: tl.constexpr = CLASSES // 2
        low = _threshold(row, first, shift, p0, p1, p2, p3, HALF)
        high = _threshold(row, first + HALF, shift, p0, p1, p2, p3, HALF)
        if CLASSES == 2:
            return _picked(p0, low, high)
        elif CLASSES == 4:
            return _picked(p1, low, high)
        elif CLASSES == 8:
            return _picked(p2, low, high)
        else:
            return _picked(p3, low, high)


@helper
def _zeros(BLOCK: tl.constexpr, PLANES: tl.constexpr):
    """Bit planes of a number 0 in each of 32 walkers."""
    lowest = (tl.zeros((BLOCK,), tl.int32),)
    if PLANES == 1:
        return lowest
    else:
        return lowest + _zeros(BLOCK, PLANES - 1)


@helper
def _added(planes, word, PLANES: tl.constexpr):
    """The planes after adding a bit to the number of each walker."""
    lowest = (planes[0] ^ word,)
    if PLANES == 1:
        return lowest
    else:
        return lowest + _added(planes[1:], planes[0] & word, PLANES - 1)


@triton.jit(do_not_specialize=["seed", "first_sweep", "first_group", "sweeps", "sites", "pairs", "total"])
def bonds_kernel(
    spins,  # int32 (sites, groups)
    out,  # int32 (sites, groups)
    energies,  # float64 (32 groups,)
    bonds,  # int32 (sites, pairs, 2): 2 neighbour + (J > 0)
    starts,  # int32 (sites,): 2 start + (the number of bonds is odd)
    table,  # int32 (sweeps, 2, MOST_CLASSES)
    groups,
    sites,
    pairs,
    sweeps,
    seed,
    first_sweep,
    first_group,
    total,  # bonds of the glass
    CLASSES: tl.constexpr,
    HEAT_BATH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    group = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = group < groups
    present = bit_mask(inside.to(tl.int32))
    first = (group + first_group) * sites * PARTS
    stride = tl.cast(groups, tl.int64)
    for i in range(sites):
        place = i * stride + group
        tl.store(out + place, tl.load(spins + place, mask=inside, other=0), mask=inside)
    tl.debug_barrier()
    for sweep in range(sweeps):
        for i in range(sites):
            own_at = out + i * stride + group
            own = tl.load(own_at, mask=inside, other=0).to(tl.uint32, bitcast=True)
            start = tl.load(starts + i)
            zero = tl.zeros((BLOCK,), tl.uint32)
            p0, p1 = zero | bit_mask((start >> 1) & 1), zero | bit_mask((start >> 2) & 1)
            p2 = zero | bit_mask((start >> 3) & 1)
            p3, p4 = zero | bit_mask((start >> 4) & 1), zero | bit_mask((start >> 5) & 1)
            for k in range(2 * pairs):
                bond = tl.load(bonds + i * 2 * pairs + k)
                other_at = out + (bond >> 1) * stride + group
                other = tl.load(other_at, mask=inside, other=0).to(tl.uint32, bitcast=True)
                c0 = own ^ other ^ bit_mask(bond & 1)
                c1 = p0 & c0
                c2 = p1 & c1
                c3 = p2 & c2
                p0, p1, p2 = p0 ^ c0, p1 ^ c1, p2 ^ c2
                if CLASSES > 4:
                    c4 = p3 & c3
                    p3, p4 = p3 ^ c3, p4 ^ c4
            # The highest plane is the sign of the class: a flip does not raise the energy.
            if CLASSES <= 4:
                cheap = p2
            elif CLASSES == 8:
                cheap = p3
            else:
                cheap = p4
            if HEAT_BATH:  # the class of |dE|: the planes' complement, or for an even number of bonds one more
                flips, undecided = zero, present
                m0, m1, m2, m3 = p0 ^ cheap, p1 ^ cheap, p2 ^ cheap, p3 ^ cheap
                c0 = inverted(cheap) & bit_mask((start & 1) ^ 1)
                c1 = m0 & c0
                c2 = m1 & c1
                c3 = m2 & c2
                p0, p1, p2, p3 = m0 ^ c0, m1 ^ c1, m2 ^ c2, m3 ^ c3
            else:
                flips, undecided = cheap, present & inverted(cheap)
            row = _row(table + (sweep * 2 + (start & 1)) * _MOST_CLASSES, CLASSES)
            part = 0
            while any_bit(undecided) & (part < PARTS):
                w0, w1, w2, w3 = random_words(first + i * PARTS + part, seed, first_sweep + sweep, _GLASS_SITES)
                drawn = (w0, w1, w2, w3)
                for j in tl.static_range(4):
                    threshold = _threshold(row, 0, 31 - 4 * part - j, p0, p1, p2, p3, CLASSES)
                    flips, undecided = compare_bit(flips, undecided, threshold, drawn[j])
                part += 1
            flips = flips & inverted(undecided)
            if HEAT_BATH:
                flips = flips ^ cheap
            tl.debug_barrier()
            tl.store(own_at, (own ^ flips).to(tl.int32, bitcast=True), mask=inside)
            tl.debug_barrier()
    planes = _zeros(BLOCK, _COUNT_PLANES)  # the number of satisfied bonds, each counted for both of its spins
    for i in range(sites):
        own = tl.load(out + i * stride + group, mask=inside, other=0)
        for k in range(2 * pairs):
            bond = tl.load(bonds + i * 2 * pairs + k)
            other = tl.load(out + (bond >> 1) * stride + group, mask=inside, other=0)
            planes = _added(planes, own ^ other ^ (0 - (bond & 1)), _COUNT_PLANES)
    for walker in tl.static_range(32):
        satisfied = tl.zeros((BLOCK,), tl.int32)
        for plane in tl.static_range(_COUNT_PLANES):
            satisfied += ((planes[plane] >> walker) & 1) << plane
        tl.store(energies + group * 32 + walker, (total - satisfied).to(tl.float64), mask=inside)


def anneal(request: LaunchRequest) -> None:
    """Write ``request.out`` and ``request.energies``, in one launch."""
    bonds = request.glass.bonds
    if bonds is None:
        triton_links.anneal(request)
    else:
        _anneal_bonds(request, bonds)


def _anneal_bonds(request: LaunchRequest, bonds: Bonds) -> None:
    sites, groups = request.spins.shape
    block = block_for(groups, BLOCK)
    bonds_kernel[(triton.cdiv(groups, block),)](
        request.spins, request.out, request.energies, bonds.pairs, bonds.starts,
        request.schedule.thresholds[request.rule], groups, sites, bonds.pairs.shape[1], request.schedule.sweeps,
        signed_seed(request.seed), request.first_sweep, request.first_walker // WORD, bonds.total,
        CLASSES=CLASSES[request.rule][bonds.size], HEAT_BATH=request.rule == "heat_bath", BLOCK=block, num_warps=1,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """By bonds, one for each rule and number of classes, named by the most bonds; by links, one for each rule."""
    bonds_variants = [
        TritonVariant(
            name=f"{rule.replace('_', ' ')}, {bonds} bonds",
            threads=32,
            items=BLOCK,
            unit="flips",
            bytes_per_item=0.0,
            kernel=bonds_kernel,
            inner_passes=mean_groups(BLOCK * WORD),
            signature={
                **dict.fromkeys(("spins", "out"), "*i32:16"),
                "energies": "*fp64:16",
                **dict.fromkeys(("bonds", "starts", "table"), "*i32:16"),
                "groups": "i32:16",
                **dict.fromkeys(("sites", "pairs", "sweeps", "first_sweep", "first_group", "total"), "i32"),
                "seed": "i64",
                "CLASSES": classes,
                "HEAT_BATH": rule == "heat_bath",
                "BLOCK": BLOCK,
            },
        )
        for rule in RULES
        for bonds, classes in zip(BONDS, CLASSES[rule], strict=True)
    ]
    return [*bonds_variants, *triton_links.variants()]
