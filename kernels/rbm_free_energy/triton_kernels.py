"""The free energy of each chain in Triton: product, bias, softplus and sum in one kernel; fields are never stored.

Arithmetic bounds the speed: 2 * visible units operations for each hidden unit of a chain, on tensor cores (three times
that for float32 weights, as three bfloat16 products), against one byte for each state. After the product each hidden
unit takes one ex2 and five other instructions: softplus in base 2 is ``max(z, 0) + log2(1 + 2**-|z|)``, and one lg2 of
the product of their terms serves all units of a tile. The terms are ``3/4 (1 + 2**-|z|)``, in [0.75, 1.5], so that the
product of 128 terms neither overflows nor underflows.

If hidden units span several tiles, the program that finishes last adds the parts in the order of the units, so that
the result does not depend on which program that is.
"""

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from ..common.binary_product_triton import fields
from ..common.triton_math import from_bits, log2_of_product
from ..common.variants import KernelVariant
from ..machines.product_tiles import SMALLER, field_tile, largest_field_tile, triton_variant
from ..rows.triton_rows import power_of_two
from .launch import arranged


@triton.jit(do_not_specialize=["beta_bits"])
def free_energy_kernel(
    visible,  # uint8 (chains, visible_units) contiguous
    weights,  # (visible_units, hidden_units), strides below
    visible_bias,  # (visible_units,) contiguous
    hidden_bias,  # (hidden_units,) contiguous
    betas,  # float64 (chains,), read if BETAS; otherwise beta_bits holds the beta of all chains
    out,  # float32 (chains,)
    parts,  # float32 (tiles of hidden units, chains), if SPLIT
    counters,  # one for each tile of chains, 0 before and after, if SPLIT
    chains,
    visible_units,
    hidden_units,
    weight_stride_visible,
    weight_stride_hidden,
    beta_bits,
    BETAS: tl.constexpr,
    SPLIT: tl.constexpr,
    BLOCK_CHAINS: tl.constexpr,
    BLOCK_HIDDEN: tl.constexpr,
    BLOCK_VISIBLE: tl.constexpr,
):
    place = tl.program_id(1)
    chain = tl.program_id(0).to(tl.int64) * BLOCK_CHAINS + tl.arange(0, BLOCK_CHAINS)
    unit = place.to(tl.int64) * BLOCK_HIDDEN + tl.arange(0, BLOCK_HIDDEN)
    inside = chain < chains
    field = fields(
        visible, weights, hidden_bias, chain, unit, chains, visible_units, hidden_units, weight_stride_visible,
        weight_stride_hidden, BLOCK_CHAINS, BLOCK_HIDDEN, BLOCK_VISIBLE,
    )  # fmt: skip
    if BETAS:
        beta = tl.load(betas + chain, mask=inside, other=1.0)
    else:
        beta = tl.zeros((BLOCK_CHAINS,), tl.float64) + from_bits(beta_bits, tl.float64)
    z = field * (beta * 1.4426950408889634).to(tl.float32)[:, None]
    terms = 0.75 + 0.75 * power_of_two(-tl.abs(z))
    total = log2_of_product(tl.where((unit < hidden_units)[None, :], terms, 1.0))
    present = tl.minimum(hidden_units - place * BLOCK_HIDDEN, BLOCK_HIDDEN)
    total += present.to(tl.float32) * 0.4150374992788438  # log2 of 4/3
    total += tl.sum(tl.maximum(z, 0.0), axis=1)  # fields beyond the edge are 0
    share = total * (-0.6931471805599453 / beta).to(tl.float32)
    if place == 0:
        for start in range(0, visible_units, BLOCK_VISIBLE):
            k = start + tl.arange(0, BLOCK_VISIBLE).to(tl.int64)
            known = (k < visible_units)[None, :]
            states = tl.load(
                visible + chain[:, None] * visible_units + k[None, :], mask=inside[:, None] & known, other=0
            )
            bias = tl.load(visible_bias + k, mask=k < visible_units, other=0.0).to(tl.float32)
            share -= tl.sum(tl.where(states != 0, bias[None, :], 0.0), axis=1)
    if SPLIT:
        tl.store(parts + place.to(tl.int64) * chains + chain, share, mask=inside)
        tl.debug_barrier()  # all threads store before one of them counts
        finished_before = tl.atomic_add(counters + tl.program_id(0), 1, sem="acq_rel")
        if finished_before == tl.num_programs(1) - 1:
            tl.store(counters + tl.program_id(0), 0)
            total = tl.zeros((BLOCK_CHAINS,), tl.float32)
            for other in range(tl.num_programs(1)):
                # Bypass the L1 cache, which may hold stale values.
                given = parts + tl.cast(other, tl.int64) * chains + chain
                total += tl.load(given, mask=inside, other=0.0, cache_modifier=".cg")
            tl.store(out + chain, total, mask=inside)
    else:
        tl.store(out + chain, share, mask=inside)


def forward(
    visible: Tensor, weights: Tensor, visible_bias: Tensor, hidden_bias: Tensor, beta: float | Tensor, out: Tensor
) -> None:
    """Write ``out`` for at least one chain."""
    tile = field_tile(len(visible), weights.shape[1], weights.dtype)
    launch = arranged(tile, visible, weights, visible_bias, hidden_bias, beta, out)
    free_energy_kernel[launch.grid](
        *launch.triton_arguments(unread=out), BETAS=isinstance(beta, Tensor), SPLIT=launch.grid[1] > 1,
        **tile.sizes("CHAINS", "HIDDEN", "VISIBLE"), num_warps=tile.warps,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """The largest tile for each dtype of the weights; for float32 also a beta for each chain and the smaller tiles."""
    found: list[KernelVariant] = []
    for dtype, size in (("fp32", 4), ("fp16", 2), ("bf16", 2)):
        kinds = [(largest_field_tile(size), False)]
        if dtype == "fp32":
            kinds += [(largest_field_tile(size), True), *((smaller, False) for smaller in SMALLER)]
        for tile, betas in kinds:
            given = {
                "visible": "*u8:16",
                **dict.fromkeys(("weights", "visible_bias", "hidden_bias"), f"*{dtype}:16"),
                "betas": "*fp64:16",
                **dict.fromkeys(("out", "parts"), "*fp32:16"),
                "counters": "*i32:16",
                "weight_stride_hidden": 1,
                "beta_bits": "i64",
                "BETAS": betas,
                "SPLIT": True,
                **tile.sizes("CHAINS", "HIDDEN", "VISIBLE"),
            }
            name = f"{dtype}, {tile.rows} x {tile.columns}{', beta for each chain' if betas else ''}"
            found.append(triton_variant(name, free_energy_kernel, tile, size, given))
    return found
