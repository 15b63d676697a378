"""Annealing of spin glasses with any couplings and fields in Triton: all sweeps in one launch, as in `links.cu`.

A program of one warp has a block of words of every spin, 32 walkers each, in global memory. It unpacks them where it
sums the local field, and packs the 32 new spins of a word by a sum. A barrier of the warp separates a write from the
reads that depend on it.
"""

from collections.abc import Sequence

import triton
import triton.language as tl

from ..common.philox_triton import random_words
from ..common.triton_blocks import block_for
from ..common.triton_math import bits_of, from_bits
from ..common.triton_runtime import helper
from ..common.variants import KernelVariant, TritonVariant
from ..philox import Stream, signed_seed
from .bonds import RULES
from .links import FRACTION_BITS, LINKS_OF_A_LOAD, POWERS
from .request import LaunchRequest

_GLASS_LINKS = tl.constexpr(int(Stream.GLASS_LINKS))
_POWERS, _FRACTION_BITS = tl.constexpr(POWERS), tl.constexpr(FRACTION_BITS)
_LINKS_OF_A_LOAD = tl.constexpr(LINKS_OF_A_LOAD)

WORDS = 2
"""Words of a program."""


@helper
def _high_product(a, b):
    """The upper 32 bits of the product of uint32 numbers."""
    return ((a.to(tl.uint64) * b.to(tl.uint64)) >> 32).to(tl.uint32)


@helper
def _power(t):
    """``2**32 2**-(t / 2**26)``, at most ``2**32 - 1``, for uint64 ``t``."""
    low = (t & 0xFFFFFFFF).to(tl.uint32)
    x = low << (32 - _FRACTION_BITS)
    value = tl.zeros_like(low) + _POWERS[6]
    for i in tl.static_range(6):
        value = _POWERS[5 - i] - _high_product(value, x)
    return tl.where((t >> 31) == 0, value >> ((low >> _FRACTION_BITS) & 31), 0)


@helper
def _local_field(state, links, first, fields, stride, group, inside, lane, i):
    """The local field of spin ``i``, int32 (words, 32); ``state`` holds the words of all spins."""
    total = tl.zeros((group.shape[0], 32), tl.int32)
    begin, end = tl.load(first + i).to(tl.int64), tl.load(first + i + 1).to(tl.int64)
    for at in range(begin * _LINKS_OF_A_LOAD, end * _LINKS_OF_A_LOAD):
        other = tl.load(links + 2 * at)
        coupling = tl.load(links + 2 * at + 1)
        word = tl.load(state + other * stride + group, mask=inside, other=0)
        total += tl.where((word[:, None] >> lane) & 1 != 0, coupling, 0)
    return tl.load(fields + 2 * i) + 2 * total


@triton.jit(do_not_specialize=["seed", "first_sweep", "first_walker", "sweeps", "sites", "exponent", "unit_bits"])
def links_kernel(
    spins,  # int32 (sites, groups)
    out,  # int32 (sites, groups)
    energies,  # float64 (32 groups,)
    links,  # int32 (links, 2): another spin, and the coupling
    first,  # int32 (sites + 1,): the first of each spin's loads of links
    fields,  # int32 (sites, 2): the local field without spins +1, and the spin's own
    rates,  # int32 (sweeps, 2): m and e of 2 log2(e) / T = m 2**(e - 32)
    groups,
    sites,
    sweeps,
    seed,
    first_sweep,
    first_walker,
    exponent,
    unit_bits,  # of 2**-exponent
    HEAT_BATH: tl.constexpr,
    WORDS: tl.constexpr,
):
    group = tl.program_id(0).to(tl.int64) * WORDS + tl.arange(0, WORDS)
    inside = group < groups
    stride = tl.cast(groups, tl.int64)
    sites, sweeps = tl.cast(sites, tl.int32), tl.cast(sweeps, tl.int32)
    lane = tl.arange(0, 32)[None, :]
    for i in range(sites):
        place = i * stride + group
        tl.store(out + place, tl.load(spins + place, mask=inside, other=0), mask=inside)
    tl.debug_barrier()
    quads = (sites + 3) // 4
    drawn = (first_walker + group[:, None] * 32 + lane) * quads
    for sweep in range(sweeps):
        rate = tl.load(rates + 2 * sweep).to(tl.uint32, bitcast=True).to(tl.uint64)
        shift = 32 - _FRACTION_BITS + exponent - tl.load(rates + 2 * sweep + 1)
        shift = tl.minimum(tl.maximum(shift, 0), 63).to(tl.uint64)
        for quad in range(quads):
            w0, w1, w2, w3 = random_words(drawn + quad, seed, first_sweep + sweep, _GLASS_LINKS)
            for i in range(4 * quad, tl.minimum(4 * quad + 4, sites)):
                odd = (i & 1) == 1
                number = tl.where((i & 2) == 2, tl.where(odd, w3, w2), tl.where(odd, w1, w0))
                field = _local_field(out, links, first, fields, stride, group, inside, lane, i)
                limit = _power((tl.abs(field).to(tl.uint64) * rate) >> shift)
                own_at = out + i * stride + group
                if HEAT_BATH:
                    up = (field >= 0) ^ (number < _high_product(limit, number ^ 0xFFFFFFFF))
                else:
                    was = ((tl.load(own_at, mask=inside, other=0)[:, None] >> lane) & 1) != 0
                    up = was ^ ((tl.where(was, field, -field) <= 0) | (number < limit))
                word = tl.sum(up.to(tl.uint32) << lane.to(tl.uint32), axis=1).to(tl.uint32)
                tl.debug_barrier()
                tl.store(own_at, word.to(tl.int32, bitcast=True), mask=inside)
                tl.debug_barrier()
    total = tl.zeros((WORDS, 32), tl.int64)  # twice the energy, without its sign
    for i in range(sites):
        field = _local_field(out, links, first, fields, stride, group, inside, lane, i)
        both = field.to(tl.int64) + tl.load(fields + 2 * i + 1)
        own = tl.load(out + i * stride + group, mask=inside, other=0)
        total += tl.where((own[:, None] >> lane) & 1 != 0, both, -both)
    half = -0.5 * from_bits(unit_bits, tl.float64)
    tl.store(energies + group[:, None] * 32 + lane, half * total.to(tl.float64), mask=inside[:, None])


def anneal(request: LaunchRequest) -> None:
    """Write ``request.out`` and ``request.energies``, in one launch."""
    sites, groups = request.spins.shape
    links, words = request.glass.links, block_for(groups, WORDS)
    links_kernel[(triton.cdiv(groups, words),)](
        request.spins, request.out, request.energies, links.links, links.first, links.fields, request.schedule.rates,
        groups, sites, request.schedule.sweeps, signed_seed(request.seed), request.first_sweep, request.first_walker,
        links.exponent, bits_of(links.unit), HEAT_BATH=request.rule == "heat_bath", WORDS=words, num_warps=1,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """One for each rule."""
    return [
        TritonVariant(
            name=f"{rule.replace('_', ' ')}, links",
            threads=32,
            items=WORDS,
            unit="flips",
            bytes_per_item=0.0,
            kernel=links_kernel,
            signature={
                **dict.fromkeys(("spins", "out"), "*i32:16"),
                "energies": "*fp64:16",
                **dict.fromkeys(("links", "first", "fields", "rates"), "*i32:16"),
                "groups": "i32:16",
                **dict.fromkeys(("sites", "sweeps", "first_sweep", "exponent"), "i32"),
                **dict.fromkeys(("seed", "first_walker", "unit_bits"), "i64"),
                "HEAT_BATH": rule == "heat_bath",
                "WORDS": WORDS,
            },
        )
        for rule in RULES
    ]
