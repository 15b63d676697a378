"""The Langevin updates in Triton: one launch for a list of tensors of any shapes and dtypes.

Bound by memory as `sgld.cu` is, if a float32 parameter takes at most 93 instructions and one of 16 bits at most 47. On
sm_90 they take 32 and 36, or 46 with stochastic rounding, which is at the edge
(tests/operations/sgld/golden/triton-sm_90.txt).

Design: a program looks up its tensor and its elements in the table: 2048 elements, or 1024 if each has a state. Whole
blocks of tensors that begin at multiples of 16 bytes need no mask, and the compiler is informed of the alignment; only
then are its accesses 128 bits wide. All loads of a program are in flight before its arithmetic begins. One Philox call
gives the noise of four neighbouring elements, in the registers into which they are loaded. There is a specialization
for lists of one dtype.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl

from ..common.philox_triton import interleave4, interleave8, normals, words_of
from ..common.triton_math import bits_of, from_bits, round_stochastically, round_to
from ..common.triton_runtime import INTERPRETS, helper
from ..common.variants import KernelVariant, TritonVariant
from ..philox import Stream, signed_seed
from .request import CODES, STOCHASTIC, LaunchRequest, Numbers, Place, access_bytes, bytes_per_parameter, variant_name

_NOISE = tl.constexpr(int(Stream.NOISE))
_ROUNDING = tl.constexpr(int(Stream.ROUNDING))

WARPS = 4
BLOCKS = {"langevin": 2048, "preconditioned": 1024, "hamiltonian": 1024}
"""Elements of a program, by the kind of update: 16 or 8 for each thread."""
INTERPRETED = 1 << 16
"""Elements of a program in the interpreter, where a program costs tens of milliseconds whatever their number."""
ANY = tl.constexpr(-1)
"""A value in place of a code: the list holds several dtypes."""
STOCHASTIC_CODE = tl.constexpr(CODES[STOCHASTIC])


@triton.constexpr_function
def _dtype(code):
    return (tl.float32, tl.float16, tl.bfloat16, tl.bfloat16, tl.float64)[code]


@triton.constexpr_function
def _wide(code):
    return tl.float64 if code == 4 else tl.float32


@helper
def _moved(x, g, state, z, drift, keep, take, damping, KIND: tl.constexpr, NOISY: tl.constexpr):
    """The new positions and states; z is normal numbers times the scale of the noise."""
    if KIND == "langevin":
        x -= drift * g
        if NOISY:
            x += z
    elif KIND == "preconditioned":
        state = keep * state + take * g * g
        preconditioner = 1.0 / (damping + tl.sqrt(state))
        x -= drift * preconditioner * g
        if NOISY:
            x += tl.sqrt(preconditioner) * z
    else:
        state = keep * state - drift * g
        if NOISY:
            state += z
        x += state
    return x, state


@helper
def _rounded_stochastically(value, first, seed, step, number, BLOCK: tl.constexpr):
    """Round float32 to bfloat16 by 16 random bits for each element; see `rounded` in sgld.cu."""
    group = (first >> 3).to(tl.uint32) + tl.arange(0, BLOCK // 8).to(tl.uint32)
    w0, w1, w2, w3 = words_of(group, (first >> 35).to(tl.uint32), seed, step, _ROUNDING + number * 256)
    return round_stochastically(value, interleave8(w0, w0, w1, w1, w2, w2, w3, w3))


@helper
def _noise(first, seed, step, number, scale, DTYPE: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr):
    """The normals of a block of elements, times ``scale``, each in the thread of its element.

    A thread has 4 elements in a row, or 8 of 16 bits.
    """
    high = (first >> 34).to(tl.uint32)
    if DTYPE.primitive_bitwidth == 16:
        even = (first >> 2).to(tl.uint32) + 2 * tl.arange(0, BLOCK // 8).to(tl.uint32)
        w0, w1, w2, w3 = words_of(even, high, seed, step, _NOISE + number * 256)
        w4, w5, w6, w7 = words_of(even + 1, high, seed, step, _NOISE + number * 256)
        z0, z1, z2, z3 = normals(w0, w1, w2, w3, scale, WIDE)
        z4, z5, z6, z7 = normals(w4, w5, w6, w7, scale, WIDE)
        return interleave8(z0, z1, z2, z3, z4, z5, z6, z7)
    else:
        group = (first >> 2).to(tl.uint32) + tl.arange(0, BLOCK // 4).to(tl.uint32)
        w0, w1, w2, w3 = words_of(group, high, seed, step, _NOISE + number * 256)
        z0, z1, z2, z3 = normals(w0, w1, w2, w3, scale, WIDE)
        return interleave4(z0, z1, z2, z3)


@helper
def _update_elements(
    x, g, state, first, element, mask, number, drift, noise, keep, take, damping, seed, step,
    KIND: tl.constexpr, NOISY: tl.constexpr, CODE: tl.constexpr, DTYPE: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Update the elements ``first + element`` that ``mask`` allows, or all if it is None."""
    position = tl.load(x + element, mask=mask).to(WIDE)
    slope = tl.load(g + element, mask=mask).to(WIDE)
    old = position
    if KIND != "langevin":
        old = tl.load(state + element, mask=mask)
    z = position
    if NOISY:
        z = _noise(first, seed, step, number, noise, DTYPE, WIDE, BLOCK)
    position, new = _moved(position, slope, old, z, drift, keep, take, damping, KIND, NOISY)
    if CODE == STOCHASTIC_CODE:
        moved = _rounded_stochastically(position, first, seed, step, number, BLOCK)
    else:
        moved = round_to(position, DTYPE)
    tl.store(x + element, moved, mask=mask)
    if KIND != "langevin":
        tl.store(state + element, new, mask=mask)


@helper
def _update_block(
    row, first, drift_bits, noise_bits, keep_bits, take_bits, damping_bits, seed, step, KIND: tl.constexpr,
    NOISY: tl.constexpr, CODE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    DTYPE: tl.constexpr = _dtype(CODE)
    WIDE: tl.constexpr = _wide(CODE)
    x_address = tl.load(row)
    g_address = tl.load(row + 1)
    state_address = tl.load(row + 2)
    left = tl.load(row + 3) - first
    number = tl.load(row + 5)
    x = x_address.to(tl.pointer_type(DTYPE)) + first
    g = g_address.to(tl.pointer_type(DTYPE)) + first
    state = state_address.to(tl.pointer_type(WIDE))
    if KIND != "langevin":
        state += first
    drift = from_bits(drift_bits, WIDE)
    noise = from_bits(noise_bits, WIDE)
    keep = from_bits(keep_bits, WIDE)
    take = from_bits(take_bits, WIDE)
    damping = from_bits(damping_bits, WIDE)
    element = tl.arange(0, BLOCK)
    if ((x_address | g_address | state_address) & 15) == 0 and left >= BLOCK:
        _update_elements(
            tl.multiple_of(x, 16), tl.multiple_of(g, 16), tl.multiple_of(state, 16), first, element, None, number,
            drift, noise, keep, take, damping, seed, step, KIND, NOISY, CODE, DTYPE, WIDE, BLOCK,
        )  # fmt: skip
    else:
        _update_elements(
            x, g, state, first, element, element < left, number,
            drift, noise, keep, take, damping, seed, step, KIND, NOISY, CODE, DTYPE, WIDE, BLOCK,
        )  # fmt: skip


@triton.jit(do_not_specialize=["drift_bits", "noise_bits", "keep_bits", "take_bits", "damping_bits", "seed", "step"])
def update_kernel(
    tensors,  # int64 (tensors, 6): addresses of parameter, gradient and state, elements, code, number: request.py
    blocks,  # int64 (programs, 2): tensor, first element
    drift_bits,  # this and the next four: see `Numbers`
    noise_bits,
    keep_bits,
    take_bits,
    damping_bits,
    seed,
    step,
    device_step,  # int64 (1,) with the step in place of `step`, or None
    KIND: tl.constexpr,
    NOISY: tl.constexpr,
    CODE: tl.constexpr,  # of the dtype of all tensors, or ANY
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row = tensors + tl.load(blocks + program * 2) * 6
    first = tl.load(blocks + program * 2 + 1)
    if device_step is not None:
        step = tl.load(device_step)
    if CODE == ANY:
        code = tl.load(row + 4)
        for each in tl.static_range(5):
            if code == each:
                _update_block(
                    row, first, drift_bits, noise_bits, keep_bits, take_bits, damping_bits, seed, step, KIND, NOISY,
                    each, BLOCK,
                )  # fmt: skip
    else:
        _update_block(
            row, first, drift_bits, noise_bits, keep_bits, take_bits, damping_bits, seed, step, KIND, NOISY, CODE, BLOCK
        )


def update(updates: LaunchRequest, numbers: Numbers, place: Place) -> None:
    """Update every parameter, and its state, in place, in one launch."""
    block = BLOCKS[numbers.kind]
    if INTERPRETS and sum(x.numel() for x in updates.parameters) >= 16 * INTERPRETED:
        block = INTERPRETED
    tensors, blocks = updates.table(block)
    codes = set(updates.codes)
    update_kernel[(len(blocks),)](
        tensors, blocks, bits_of(numbers.drift), bits_of(numbers.noise), bits_of(numbers.keep), bits_of(numbers.take),
        bits_of(numbers.damping), signed_seed(place.seed), place.step, place.device_step,
        KIND=numbers.kind, NOISY=numbers.noise != 0, CODE=codes.pop() if len(codes) == 1 else ANY.value, BLOCK=block,
        num_warps=WARPS,
    )  # fmt: skip


def variants(*kinds: str) -> Sequence[KernelVariant]:
    """The kernels of the formulas (default: all), for each dtype, with noise; some also without, for comparison."""
    bits = {name: "i64" for name in update_kernel.arg_names if name.endswith("_bits")}
    return [
        TritonVariant(
            name=variant_name(kind, dtype, noisy),
            threads=32 * WARPS,
            items=BLOCKS[kind] // (32 * WARPS),
            unit="parameters",
            bytes_per_item=bytes_per_parameter(kind, dtype),
            access_bytes=access_bytes(dtype),
            kernel=update_kernel,
            signature={
                "tensors": "*i64:16", "blocks": "*i64:16", **bits, "seed": "i64", "step": "i32", "device_step": None,
                "KIND": kind, "NOISY": noisy, "BLOCK": BLOCKS[kind],
                "CODE": ANY.value if dtype is None else CODES[dtype],
            },
        )
        for kind in kinds or BLOCKS
        for dtype, noisy in _compiled_for(kind)
    ]  # fmt: skip


def _compiled_for(kind: str) -> list[tuple[torch.dtype | str | None, bool]]:
    """The dtype of the list (None: several), and whether there is noise."""
    if kind != "langevin":
        return [(dtype, True) for dtype in (torch.float32, torch.bfloat16, STOCHASTIC)]
    without: list[tuple[torch.dtype | str | None, bool]] = [(dtype, False) for dtype in (torch.float32, STOCHASTIC)]
    return [*((dtype, True) for dtype in (*CODES, None)), *without]
