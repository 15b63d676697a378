"""Block Gibbs on a CPU: calling `rbm_gibbs.cpp`."""

import ctypes
from pathlib import Path

import torch
from torch import Tensor

from ..native import Keys, NativeModule
from .prepared import Operand
from .reference import step_of
from .request import LaunchRequest, row_bytes

MODULE = NativeModule(Path(__file__).with_name("rbm_gibbs.cpp"))
STATES, PACKED, PROBABILITIES, REALS = range(4)


class Half(ctypes.Structure):
    """`Half` in rbm_gibbs.cpp."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("given", "sums", "weights", "bias", "out", "previous", "clamped", "sigma", "betas")
        ),
        *(
            (name, ctypes.c_int64)
            for name in ("chains", "given_units", "units", "given_stride", "out_stride", "previous_stride")
        ),
        ("weight_strides", ctypes.c_int64 * 2),
        ("clamped_strides", ctypes.c_int64 * 2),
        *((name, ctypes.c_int64) for name in ("packed", "result", "wide", "odds", "first_chain")),
        ("beta", ctypes.c_double),
        ("keys", Keys),
        ("step", ctypes.c_uint32),
        ("stream", ctypes.c_uint32),
    )
    tensors: tuple[Tensor | None, ...] = ()
    """Those made for the call, which live as long as it."""


def half_sweep(half: LaunchRequest) -> None:
    """Write ``half.out``."""
    if len(half.out) == 0 or half.units == 0:
        return
    matrix = _matrix(half)
    sums = (half.given / half.sigma) @ matrix if half.sigma is not None and half.gives_reals else None
    MODULE.call("half_sweep", _arguments(half, matrix, sums))


def resident_sweeps(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> None:
    """As many pairs of half sweeps of binary units in one call; the requests are those of the first pair."""
    if len(to_hidden.out):
        halves = [_arguments(half, _matrix(half)) for half in (to_hidden, to_visible)]
        MODULE.call("all_sweeps", *halves, sweeps)


def _arguments(half: LaunchRequest, matrix: Tensor, sums: Tensor | None = None) -> Half:
    bias = half.bias.to(matrix.dtype)
    arguments = Half(
        *map(_address, (half.given, sums, matrix, bias, half.out, half.previous, half.clamped, half.sigma, half.betas)),
        len(half.out), len(matrix), half.units, *map(row_bytes, (half.given, half.out, half.previous)),
        matrix.stride(), half.clamped_strides, half.packed, _result(half), matrix.dtype is torch.float64,
        isinstance(half.weights, Operand), half.first_chain, half.common_beta, Keys.of(half.seed),
        int(step_of(half)) & 0xFFFFFFFF, half.stream,
    )  # fmt: skip
    arguments.tensors = matrix, bias, sums
    return arguments


def _matrix(half: LaunchRequest) -> Tensor:
    """float32 (given units, units), or float64 for digits, whose sums it holds exactly."""
    weights = half.weights
    if not isinstance(weights, Operand):
        return weights.to(torch.float32)
    if weights.scale is None:
        parts = weights.parts[:, : half.units, : weights.given_units].to(torch.float32)
        return sum(reversed(parts), start=torch.zeros_like(parts[0])).t()
    numbers = weights.numbers()[: half.units, : weights.given_units]
    return (numbers * weights.scale[: half.units, None].to(torch.float64)).t()


def _result(half: LaunchRequest) -> int:
    if half.draws_reals:
        return REALS
    return {torch.uint8: STATES, torch.int64: PACKED, torch.float32: PROBABILITIES}[half.out.dtype]


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()
