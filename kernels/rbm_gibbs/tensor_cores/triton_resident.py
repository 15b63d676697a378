"""Many sweeps of block Gibbs in one launch, in Triton, for machines with weights that fit the shared memory of sm_90.

Bound by products and the issue of draws, one after the other; where two programs share a multiprocessor, by issue.

A program advances 64 chains through all sweeps. Both layers are padded to the same number of units, a power of two, so
that a half sweep is one product on tensor cores, with the states on the left and the weights on the right, both in
shared memory. In bfloat16 the backward direction reads the same matrix transposed. Digits of int8 differ between the
two directions, because scales belong to the drawn units.

Between two products nothing leaves the registers, and no data moves between threads. In every 16 columns of the sums,
thread q of four has the columns 2q, 2q + 1, 2q + 8 and 2q + 9, which hold the units 4q to 4q + 3 of one Philox call.
So weights, and the states between two half sweeps, are in the order of `_unit_of`; biases, draws and results are in the
order of the units.

Prediction from the machine code for sm_90, nothing measured; one unit for each clock of a multiprocessor is 261
updates/ns on an H200 at 1.98 GHz. For 256 x 256 units in bf16 the products of a half sweep take 2048 clocks (HGMMA
64x128x16 at the full rate), and the draws of two warps on each scheduler take 2550 (20 instructions for each draw, the
share of the loop included). One after the other, with 300 clocks for barriers and latency, that is 870 updates/ns (the
target is 1000). In `resident.cu`, with mma.sync, products and draws overlap: 990. With 128 units in bf16 two programs
share a multiprocessor: one draws while the other multiplies, and the issue of 21 instructions for each draw is the
limit: 1550. In bf16x3 and int8x3 (24 and 39 instructions, one program) 128 units make some 600.
"""

from collections.abc import Sequence
from functools import partial

import torch
import triton
import triton.language as tl
from torch.nn.functional import pad

from ...common.philox_triton import interleave4, words_of
from ...common.prepared import keep
from ...common.triton_math import exact_dot_operand
from ...common.triton_runtime import INTERPRETS, helper
from ...common.variants import KernelVariant, TritonVariant
from ...philox import Stream
from ..prepared import PRODUCTS, PreparedWeights
from ..request import LaunchRequest
from .triton_tile import are_drawn, as_words, betas_of, inverse_temperature, numbers_of, packed, tile_interpreted

CHAINS = 64
MOST_UNITS = {"bf16": 256, "bf16x3": 128, "int8x3": 128}
"""Units of a layer that fit the shared memory and the registers of sm_90."""

HIDDEN, VISIBLE = tl.constexpr(int(Stream.HIDDEN)), tl.constexpr(int(Stream.VISIBLE))


@helper
def _unit_of(place):
    """The unit of a column of a product: bits 3, 2, 1 of the column's number are bits 1, 3, 2 of the unit's number."""
    return place // 16 * 16 + place // 2 % 4 * 4 + place // 8 % 2 * 2 + place % 2


@helper
def _in_units(columns, CHAINS: tl.constexpr, UNITS: tl.constexpr):
    """From the order of columns to the order of units."""
    pieces = tl.permute(tl.reshape(columns, (CHAINS, UNITS // 16, 2, 4, 2)), (0, 1, 3, 2, 4))
    return tl.reshape(pieces, (CHAINS, UNITS))


@helper
def _in_columns(units, CHAINS: tl.constexpr, UNITS: tl.constexpr):
    """From the order of units to the order of columns."""
    pieces = tl.permute(tl.reshape(units, (CHAINS, UNITS // 16, 4, 2, 2)), (0, 1, 3, 2, 4))
    return tl.reshape(pieces, (CHAINS, UNITS))


@helper
def _first_of_four(units, CHAINS: tl.constexpr, UNITS: tl.constexpr):
    evens, _ = tl.split(tl.reshape(units, (CHAINS, UNITS // 2, 2)))
    firsts, _ = tl.split(tl.reshape(evens, (CHAINS, UNITS // 4, 2)))
    return firsts


@helper
def _operand(states, DIGITS: tl.constexpr):
    """Booleans as the left operand of a product."""
    if DIGITS:
        return states.to(tl.int8)
    else:
        return tl.where(states, 1.0, 0.0).to(tl.bfloat16)


@helper
def _load_weights(parts, number, rows, columns, UNITS: tl.constexpr):
    """Part ``number`` of (parts, rows, columns), transposed, in the order of a product's columns; zero beyond it."""
    unit = _unit_of(tl.arange(0, UNITS))
    place = number * rows * columns + unit[None, :] * columns + unit[:, None]
    return tl.load(parts + place, mask=(unit < rows)[None, :] & (unit < columns)[:, None], other=0)


@helper
def _draw(
    first, second, third, scale, bias, units, beta, chain, seed, step, zero, STREAM: tl.constexpr,
    PRODUCTS: tl.constexpr, DIGITS: tl.constexpr, CHAINS: tl.constexpr, UNITS: tl.constexpr,
):  # fmt: skip
    """Whether units are 1, in the order of units, from sums in the order of columns."""
    first = _in_units(first, CHAINS, UNITS)
    if PRODUCTS == 3:
        second, third = _in_units(second, CHAINS, UNITS), _in_units(third, CHAINS, UNITS)
        if not DIGITS:
            first += second + third
    unit = tl.arange(0, UNITS)
    offset = tl.load(bias + unit)[None, :]
    step_size = tl.load(scale + unit)[None, :] if DIGITS else 1.0
    group = (chain * ((units + 3) // 4))[:, None] + tl.arange(0, UNITS // 4)[None, :]
    # A dependence on the sums that changes no value: the compiler then computes the words after the sums, and in the
    # same threads.
    sums = _first_of_four(first, CHAINS, UNITS)
    low = group.to(tl.uint32) ^ (sums.to(tl.uint32, bitcast=True) & zero.to(tl.uint32))
    w0, w1, w2, w3 = words_of(low, (group >> 32).to(tl.uint32), seed, step, STREAM)
    words = interleave4(w0, w1, w2, w3)
    return are_drawn(first, second, third, step_size, offset, beta, words, DIGITS)


@helper
def _load_states(states, stride, chain, chain_mask, unit, units, PACKED: tl.constexpr):
    """The states of ``unit``, not 0 for the state 1; zeros beyond the row."""
    row = states + chain[:, None] * stride
    if PACKED:
        inside = chain_mask[:, None] & (unit // 32 < (units + 63) // 64 * 2)[None, :]
        return tl.load(row + (unit // 32)[None, :], mask=inside, other=0) >> (unit % 32)[None, :] & 1
    else:
        return tl.load(row + unit[None, :], mask=chain_mask[:, None] & (unit < stride)[None, :], other=0)


@helper
def _store_states(
    state, states, stride, chain, chains, units, PACKED: tl.constexpr, CHAINS: tl.constexpr, UNITS: tl.constexpr
):
    """Store the operand of a product as states, in rows of ``stride``."""
    unit = tl.arange(0, UNITS)
    drawn = (_in_units(state, CHAINS, UNITS) != 0) & (unit < units)[None, :]
    row = states + chain[:, None] * stride
    if PACKED:
        number = tl.arange(0, UNITS // 32)[None, :]
        inside = (chain < chains)[:, None] & (number < (units + 63) // 64 * 2)
        tl.store(row + number, packed(drawn, CHAINS, UNITS), mask=inside)
    else:
        tl.store(row + unit[None, :], drawn.to(tl.uint8), mask=(chain < chains)[:, None] & (unit < stride)[None, :])


@helper
def _aligned(number):
    """A multiple of 16, in a form from which the compiler knows that it is one."""
    return tl.cast(number, tl.int32) // 16 * 16


@triton.jit(
    do_not_specialize=[
        "chains", "visible_units", "hidden_units", "to_hidden_rows", "to_hidden_columns", "to_visible_rows",
        "to_visible_columns", "visible_stride", "hidden_stride", "clamped_stride_chain", "clamped_stride_unit",
        "beta_bits", "seed", "step", "first_chain", "sweeps", "zero",
    ]
)  # fmt: skip
def resident_kernel(
    visible,  # uint8 (chains, .) in rows of visible_stride, zero beyond the units; if PACKED int32, 32 units to a word
    to_hidden,  # (PRODUCTS, to_hidden_rows, to_hidden_columns) contiguous: bfloat16, or int8 if DIGITS
    to_visible,  # the same of the other half sweep; read if DIGITS
    hidden_scale,  # float32 (UNITS or more,); read if DIGITS
    visible_scale,  # the same of the other half sweep
    hidden_bias,  # float32 (UNITS,), any number beyond the units
    visible_bias,  # the same of the other half sweep
    visible_out,  # like visible
    hidden_out,  # the hidden states, in rows of hidden_stride
    clamped,  # bool (chains, visible_units), strides clamped_stride_chain, clamped_stride_unit; read if CLAMPED
    betas,  # float64 (chains,), read if BETAS; otherwise beta_bits holds the common one
    chains,
    visible_units,
    hidden_units,
    to_hidden_rows,
    to_hidden_columns,
    to_visible_rows,
    to_visible_columns,
    visible_stride,
    hidden_stride,
    clamped_stride_chain,
    clamped_stride_unit,
    beta_bits,
    seed,
    step,
    first_step,  # int64 of one element, added to `step`, or None
    first_chain,
    sweeps,
    zero,  # 0, unknown to the compiler: values that depend on it are computed again at each use, not kept
    PRODUCTS: tl.constexpr,
    DIGITS: tl.constexpr,
    CLAMPED: tl.constexpr,
    BETAS: tl.constexpr,
    PACKED: tl.constexpr,
    CHAINS: tl.constexpr,
    UNITS: tl.constexpr,
):
    own = tl.program_id(0).to(tl.int64) * CHAINS + tl.arange(0, CHAINS)
    chain_mask = own < chains
    unit = tl.arange(0, UNITS)
    to_hidden_rows, to_hidden_columns = _aligned(to_hidden_rows), _aligned(to_hidden_columns)
    to_visible_rows, to_visible_columns = _aligned(to_visible_rows), _aligned(to_visible_columns)
    visible_units, hidden_units = tl.cast(visible_units, tl.int32), tl.cast(hidden_units, tl.int32)
    if not PACKED:
        visible_stride, hidden_stride = _aligned(visible_stride), _aligned(hidden_stride)
    SUM: tl.constexpr = tl.int32 if DIGITS else tl.float32
    w0 = _load_weights(to_hidden, 0, to_hidden_rows, to_hidden_columns, UNITS)
    w1, w2, b0, b1, b2 = w0, w0, w0, w0, w0
    if PRODUCTS == 3:
        w1 = _load_weights(to_hidden, 1, to_hidden_rows, to_hidden_columns, UNITS)
        w2 = _load_weights(to_hidden, 2, to_hidden_rows, to_hidden_columns, UNITS)
    if DIGITS:
        b0 = _load_weights(to_visible, 0, to_visible_rows, to_visible_columns, UNITS)
        b1 = _load_weights(to_visible, 1, to_visible_rows, to_visible_columns, UNITS)
        b2 = _load_weights(to_visible, 2, to_visible_rows, to_visible_columns, UNITS)
    start = _load_states(visible, visible_stride, own, chain_mask, _unit_of(unit), visible_units, PACKED)
    state = _operand(start != 0, DIGITS)
    fixed, shift = own, own
    if CLAMPED:  # two bits for each unit (2: clamped, 1: its state), in one word for the 16 of 64 units of a thread
        held_place = own[:, None] * clamped_stride_chain + unit[None, :] * clamped_stride_unit
        held = tl.load(clamped + held_place, mask=chain_mask[:, None] & (unit < visible_units)[None, :], other=0)
        kept = _load_states(visible, visible_stride, own, chain_mask, unit, visible_units, PACKED)
        fates = (held != 0).to(tl.int32) * 2 + (kept != 0).to(tl.int32)
        number = tl.arange(0, 4)
        shift = 8 * number[None, None, :, None, None] + 2 * number[None, None, None, None, :]
        fixed = tl.sum(tl.sum(tl.reshape(fates, (CHAINS, UNITS // 64, 4, 4, 4)) << shift, 4), 2)
    beta = inverse_temperature(betas, own, chain_mask, beta_bits, BETAS)
    if first_step is not None:
        step += tl.load(first_step)
    # Each iteration is a half sweep, and the states are loop-carried: only then does the left operand go to shared
    # memory, which leaves the registers to the sums.
    for half in range(2 * sweeps):
        now = half & zero
        chain = first_chain + own + now
        first = tl.zeros((CHAINS, UNITS), SUM)
        second, third = first, first
        if half % 2 == 0:
            if DIGITS:
                first = tl.dot(state, w0, first, out_dtype=tl.int32)
                second = tl.dot(state, w1, second, out_dtype=tl.int32)
                third = tl.dot(state, w2, third, out_dtype=tl.int32)
            else:
                given = exact_dot_operand(state)
                first = tl.dot(given, exact_dot_operand(w0), first)
                if PRODUCTS == 3:
                    second = tl.dot(given, exact_dot_operand(w1), second)
                    third = tl.dot(given, exact_dot_operand(w2), third)
            drawn = _draw(
                first, second, third, hidden_scale + now, hidden_bias + now, hidden_units, beta, chain, seed,
                step + half // 2, zero, HIDDEN, PRODUCTS, DIGITS, CHAINS, UNITS,
            )  # fmt: skip
            state = _operand(_in_columns(drawn, CHAINS, UNITS), DIGITS)
            if half == 2 * sweeps - 2:
                _store_states(
                    state, hidden_out, hidden_stride, own + now, chains, hidden_units + now, PACKED, CHAINS, UNITS
                )
        else:
            if DIGITS:
                first = tl.dot(state, b0, first, out_dtype=tl.int32)
                second = tl.dot(state, b1, second, out_dtype=tl.int32)
                third = tl.dot(state, b2, third, out_dtype=tl.int32)
            else:
                given = exact_dot_operand(state)
                first = tl.dot(given, tl.trans(exact_dot_operand(w0)), first)
                if PRODUCTS == 3:
                    second = tl.dot(given, tl.trans(exact_dot_operand(w1)), second)
                    third = tl.dot(given, tl.trans(exact_dot_operand(w2)), third)
            drawn = _draw(
                first, second, third, visible_scale + now, visible_bias + now, visible_units, beta, chain, seed,
                step + half // 2, zero, VISIBLE, PRODUCTS, DIGITS, CHAINS, UNITS,
            )  # fmt: skip
            if CLAMPED:
                fate = tl.reshape(fixed[:, :, None, :, None] >> shift, (CHAINS, UNITS))
                drawn = tl.where(fate & 2 != 0, fate & 1 != 0, drawn)
            state = _operand(_in_columns(drawn, CHAINS, UNITS), DIGITS)
    now = sweeps & zero
    _store_states(state, visible_out, visible_stride, own + now, chains, visible_units + now, PACKED, CHAINS, UNITS)


def resident_fits(weights: PreparedWeights, clamped: bool, packed: bool, device: torch.device) -> bool:
    """Whether the weights fit shared memory and everything else the registers; only on sm_90.

    Clamped units need registers for their states. Digits and packed states leave none.
    """
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] != 9:
        return False
    if clamped and (packed or weights.precision == "int8x3"):
        return False
    return min(weights.source.shape) > 0 and max(weights.source.shape) <= MOST_UNITS.get(weights.precision, 0)


def resident_units(weights: PreparedWeights) -> int:
    """How many units a sweep of one chain computes, the padding of tiles included."""
    return 2 * _block_units(weights.source.shape)


def _block_units(layers: Sequence[int]) -> int:
    return max(64, int(triton.next_power_of_2(max(layers))))


def resident_sweeps(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> None:
    """All sweeps in one launch, with the results of as many pairs of half sweeps.

    ``to_hidden`` and ``to_visible`` are the first two half sweeps, for prepared weights that fit.
    """
    chains = len(to_hidden.out)
    if chains == 0:
        return
    forward, back = to_hidden.operand, to_visible.operand
    digits, products = forward.scale is not None, len(forward.parts)
    visible, visible_out, hidden_out = (as_words(states) for states in (to_hidden.given, to_visible.out, to_hidden.out))
    clamped = visible if to_visible.clamped is None else to_visible.clamped
    units, block_chains = _block_units((to_hidden.units, to_visible.units)), CHAINS
    if INTERPRETS:
        block_chains, _ = tile_interpreted(chains, units, units, units)
    hidden_bias, visible_bias = (
        keep((half.stream, units), partial(pad, half.bias, (0, units - half.units)), half.bias)
        for half in (to_hidden, to_visible)
    )
    resident_kernel[(triton.cdiv(chains, block_chains),)](
        visible, forward.parts, back.parts, forward.scale if digits else hidden_bias,
        back.scale if digits else visible_bias, hidden_bias, visible_bias, visible_out, hidden_out, clamped,
        betas_of(to_hidden), chains, to_visible.units, to_hidden.units, *forward.parts.shape[1:],
        *back.parts.shape[1:], visible.stride(0), hidden_out.stride(0), *clamped.stride(), *numbers_of(to_hidden),
        sweeps, 0,
        PRODUCTS=products, DIGITS=digits, CLAMPED=to_visible.clamped is not None, BETAS=to_hidden.betas is not None,
        PACKED=to_hidden.packed, CHAINS=block_chains, UNITS=units,
        **_options(products, units, to_visible.clamped is not None),
    )  # fmt: skip


def _options(products: int, units: int, clamped: bool) -> dict[str, int]:
    """Triton's options. At 128 units in bf16, half of the registers for each thread let two programs share a
    multiprocessor."""
    options = {"num_warps": 4 if (products, units) == (1, 64) else 8, "num_stages": 1}
    if (products, units, clamped) == (1, 128, False):
        options["maxnreg"] = 128
    return options


def variants() -> Sequence[KernelVariant]:
    """Each precision at the largest size that fits, with clamped units and packed states; in bf16 smaller sizes too."""
    found: list[KernelVariant] = []
    for precision, units, clamped, is_packed in (
        ("bf16", 64, False, False), ("bf16", 128, False, False), ("bf16", 256, False, False),
        ("bf16", 256, True, False), ("bf16", 256, False, True), ("bf16x3", 128, False, False),
        ("bf16x3", 128, True, False), ("int8x3", 128, False, False), ("int8x3", 128, False, True),
    ):  # fmt: skip
        digits, products = precision == "int8x3", PRODUCTS[precision]
        options = _options(products, units, clamped)
        threads = 32 * options.pop("num_warps")
        form = f"{', clamped' if clamped else ''}{', packed' if is_packed else ''}"
        found.append(
            TritonVariant(
                name=f"tensor-core sweeps {precision}, weights resident, {units} x {units}{form}",
                threads=threads,
                items=2 * CHAINS * units * units * products // threads,
                unit="multiply-adds",
                bytes_per_item=0.0,
                kernel=resident_kernel,
                signature={
                    **dict.fromkeys(resident_kernel.arg_names, "i32"),
                    **dict.fromkeys(("beta_bits", "seed"), "i64"),
                    **dict.fromkeys(("visible", "visible_out", "hidden_out"), "*i32:16" if is_packed else "*u8:16"),
                    **dict.fromkeys(("to_hidden", "to_visible"), "*i8:16" if digits else "*bf16:16"),
                    **dict.fromkeys(("hidden_scale", "visible_scale", "hidden_bias", "visible_bias"), "*fp32:16"),
                    "clamped": "*i1:16",
                    "betas": "*fp64:16",
                    "first_step": None,
                    "PRODUCTS": products,
                    "DIGITS": digits,
                    "CLAMPED": clamped,
                    "BETAS": False,
                    "PACKED": is_packed,
                    "CHAINS": CHAINS,
                    "UNITS": units,
                },
                options=options,
                archs=("sm_90",),
            )
        )
    return found
