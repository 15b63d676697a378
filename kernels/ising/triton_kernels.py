"""A half sweep of the Ising model in Triton, with 32 spins in a word; `ising.cu` explains what bounds its speed.

A program of one warp handles a block of words of all lattices, and draws random words until all its spins are decided.
Each word loads the thresholds of its own lattice.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from ..common.philox_triton import words_of
from ..common.triton_blocks import block_for
from ..common.triton_runtime import helper
from ..common.variants import KernelVariant, TritonVariant
from ..machines.packed_spins import WORD, mean_groups
from ..machines.triton_spins import PARTS, any_bit, bit_mask, chosen, compare_bit, inverted
from ..philox import Stream, signed_seed
from .acceptance import CLASSES
from .request import LaunchRequest

_EVEN_SITES = tl.constexpr(int(Stream.EVEN_SITES))

BLOCK = 128
"""Words of a program."""


@triton.jit(do_not_specialize=["seed", "step", "first_word", "unsatisfied", "colour"])
def half_sweep_kernel(
    own_spins,  # uint32 (lattices, 2, height, words), read for the colour
    around,  # the same, read for the other colour
    spins,  # the same, written for the colour
    thresholds,  # int64 (lattices, CLASSES)
    total,  # words to update
    count,  # words to update of each lattice
    first_cell,  # the first of them in a lattice
    height,
    words,
    columns,  # sites of a colour in a row
    first_word,  # the number of the first lattice's first word in the stream
    unsatisfied,  # the exclusive or of two spins whose bond is unsatisfied: 0 or -1
    seed,
    step,
    colour,
    CLASSES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < total
    cells = height * words
    lattice = index // count
    cell = (first_cell + index - lattice * count).to(tl.int32)
    row = cell // words
    place = cell - row * words
    own_at = lattice * 2 * cells + colour * cells + cell
    other = around + lattice * 2 * cells + (1 - colour) * cells
    own = tl.load(own_spins + own_at, mask=inside, other=0).to(tl.uint32, bitcast=True)
    a = tl.load(other + cell, mask=inside, other=0).to(tl.uint32, bitcast=True)
    above = tl.where(row == 0, cell + cells - words, cell - words)
    below = tl.where(row == height - 1, place, cell + words)
    c = tl.load(other + above, mask=inside, other=0).to(tl.uint32, bitcast=True)
    d = tl.load(other + below, mask=inside, other=0).to(tl.uint32, bitcast=True)
    right = ((row + colour) & 1) == 1  # the side of the neighbour that is not at the same bit of word a
    last = place == words - 1
    last_bits = columns - 32 * (words - 1)
    bits = tl.where(last, last_bits, 32)
    after = tl.where(last, cell - place, cell + 1)
    before = tl.where(place == 0, cell + words - 1, cell - 1)
    beyond = tl.load(other + tl.where(right, after, before), mask=inside, other=0).to(tl.uint32, bitcast=True)
    before_top = tl.where(place == 0, last_bits - 1, 31).to(tl.uint32)
    to_right = (a >> 1) | ((beyond & 1) << (bits - 1).to(tl.uint32))
    to_left = (a << 1) | ((beyond >> before_top) & 1)
    b = tl.where(right, to_right, to_left)
    if CLASSES < 10:
        wanted = own ^ tl.cast(unsatisfied, tl.int32).to(tl.uint32, bitcast=True)
        a, b, c, d = a ^ wanted, b ^ wanted, c ^ wanted, d ^ wanted
    total_bit, carry = a ^ b ^ c, (a & b) | (c & (a | b))
    ones, second = total_bit ^ d, total_bit & d
    twos, fours = carry ^ second, carry & second
    few = inverted(ones | twos | fours)
    present = tl.full((BLOCK,), 0xFFFFFFFF, tl.uint32) >> (32 - bits).to(tl.uint32)
    present = tl.where(inside, present, 0)
    count = (few, ones & inverted(twos), twos & inverted(ones), ones & twos, fours)
    table = thresholds + lattice * CLASSES
    flips = tl.zeros((BLOCK,), tl.uint32)
    if CLASSES == 2:
        flips = inverted(count[3] | count[4])
    for kind in tl.static_range(0 if CLASSES == 3 else CLASSES):
        certain = tl.load(table + kind, mask=inside, other=0) >> 32
        flips = flips | (_class(count, own, kind, CLASSES) & bit_mask(certain))
    undecided = present & inverted(flips)
    number = (tl.cast(first_word, tl.int64) + lattice * cells + cell) * PARTS
    low, high = (number & 0xFFFFFFFF).to(tl.uint32), ((number >> 32) & 0xFFFFFFFF).to(tl.uint32)
    part = 0
    while any_bit(undecided) & (part < PARTS):
        w0, w1, w2, w3 = words_of(low + part, high, seed, step, _EVEN_SITES + colour)
        drawn = (w0, w1, w2, w3)
        for i in tl.static_range(4):
            threshold = _threshold_bit(table, inside, CLASSES - 1, part, i, CLASSES)
            for kind in tl.static_range(CLASSES - 1):  # an undecided spin is in one class: if in no other, in the last
                here = _class(count, own, kind, CLASSES)
                threshold = chosen(here, _threshold_bit(table, inside, kind, part, i, CLASSES), threshold)
            flips, undecided = compare_bit(flips, undecided, threshold, drawn[i])
        part += 1
    flips = flips & inverted(undecided)
    if CLASSES == 3:  # the heat bath: spins with dE <= 0 flip unless the comparison says otherwise
        flips = flips ^ (count[0] | count[1] | count[2])
    result = (own ^ (flips & present)).to(tl.int32, bitcast=True)
    tl.store(spins + own_at, result, mask=inside)


@helper
def _class(count, own, KIND: tl.constexpr, CLASSES: tl.constexpr):
    """The spins of a class: see `acceptance.thresholds`."""
    if CLASSES == 2:
        return count[KIND + 3]
    elif CLASSES == 3:
        if KIND == 0:
            return count[2]
        else:
            return count[2 - KIND] | count[2 + KIND]
    elif KIND < 5:
        return count[KIND] & inverted(own)
    else:
        return count[KIND - 5] & own


@helper
def _threshold_bit(table, inside, KIND: tl.constexpr, part, PLACE: tl.constexpr, CLASSES: tl.constexpr):
    """Bit ``4 part + PLACE`` of the threshold of a class, in all bits of a word; 1/2 where the heat bath has dE = 0."""
    if CLASSES == 3 and KIND == 0:
        if PLACE == 0:
            return bit_mask((part == 0).to(tl.int32))
        else:
            return 0
    else:
        return bit_mask((tl.load(table + KIND, mask=inside, other=0) >> (31 - 4 * part - PLACE)) & 1)


def half_sweep(half: LaunchRequest) -> None:
    """Write the spins of the colour to ``half.spins``. There is at least one lattice."""
    lattices, _, height, words = half.spins.shape
    count = half.rows * words
    total = lattices * count
    block = block_for(total, BLOCK)
    half_sweep_kernel[(triton.cdiv(total, block),)](
        half.own, half.around, half.spins, half.thresholds, total, count, half.first_row * words, height,
        words, half.width // 2, half.first_word, -1 if half.satisfied > 0 else 0, signed_seed(half.seed), half.step,
        half.colour,
        CLASSES=half.thresholds.shape[1], BLOCK=block, num_warps=1,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """The kernel for each number of classes."""
    return [
        TritonVariant(
            name=what,
            threads=32,
            items=BLOCK,
            unit="flips",
            bytes_per_item=0.375,
            kernel=half_sweep_kernel,
            inner_passes=mean_groups(BLOCK * WORD),
            signature={
                **dict.fromkeys(("own_spins", "around", "spins"), "*i32:16"),
                "thresholds": "*i64:16",
                **dict.fromkeys(("total", "count", "first_cell", "height", "words", "columns"), "i32:16"),
                **dict.fromkeys(("unsatisfied", "step", "colour"), "i32"),
                **dict.fromkeys(("first_word", "seed"), "i64"),
                "CLASSES": classes,
                "BLOCK": BLOCK,
            },
        )
        for classes, what in CLASSES.items()
    ]
