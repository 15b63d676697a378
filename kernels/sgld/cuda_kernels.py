"""Launches `sgld.cu`: the Langevin updates."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..philox import round_keys
from .request import CODES, KINDS, LaunchRequest, Numbers, Place, access_bytes, bytes_per_parameter, variant_name

THREADS = 256
BLOCK = 4096
"""Elements of a block; both constants are as in sgld.cu."""

TYPES = ("float", "float16", "bfloat16", "Stochastic", "double")
"""The C++ types, by the code of the dtype."""


def kernel(kind: str, noisy: bool, type_name: str) -> str:
    """The name expression for parameters of one type, or of several: ``Any``."""
    return f"update<{kind.upper()}, {'true' if noisy else 'false'}, {type_name}>"


@functools.cache
def module(kind: str) -> CudaModule:
    """The kernels of one formula."""
    names = [kernel(kind, noisy, name) for noisy in (False, True) for name in (*TYPES, "Any")]
    return CudaModule(Path(__file__).with_name("sgld.cu"), names)


class Settings(ctypes.Structure):
    """`Settings` in sgld.cu: factors in both precisions, round keys, the step, and the address of a device step."""

    _fields_ = (
        ("doubles", ctypes.c_double * 5),
        ("floats", ctypes.c_float * 5),
        ("keys", ctypes.c_uint32 * 20),
        ("step", ctypes.c_uint32),
        ("device_step", ctypes.c_void_p),
    )

    @classmethod
    def of(cls, numbers: Numbers, place: Place) -> "Settings":
        factors = (numbers.drift, numbers.noise, numbers.keep, numbers.take, numbers.damping)
        address = None if place.device_step is None else place.device_step.data_ptr()
        low, high = zip(*round_keys(place.seed), strict=True)
        return cls(factors, factors, (*low, *high), place.step, address)


def update(updates: LaunchRequest, numbers: Numbers, place: Place) -> None:
    """Update every parameter, and its state, in place, in one launch."""
    tensors, blocks = updates.table(BLOCK)
    codes = set(updates.codes)
    type_name = TYPES[codes.pop()] if len(codes) == 1 else "Any"
    module(numbers.kind).launch(
        kernel(numbers.kind, numbers.noise != 0, type_name), (len(blocks),), (THREADS,),
        [tensors, blocks, Settings.of(numbers, place)], device=tensors.device,
    )  # fmt: skip


def variants(*kinds: str) -> Sequence[KernelVariant]:
    """The kernels of the formulas (default: all), for each dtype, with noise and without."""
    return [
        CudaVariant(
            name=variant_name(kind, dtype, noisy),
            threads=THREADS,
            items=8 if type_name in ("float16", "bfloat16", "Stochastic") else 4,
            unit="parameters",
            bytes_per_item=bytes_per_parameter(kind, dtype),
            access_bytes=access_bytes(dtype),
            module=module(kind),
            kernel=kernel(kind, noisy, type_name),
        )
        for kind in kinds or KINDS
        for dtype, type_name in zip((*CODES, None), (*TYPES, "Any"), strict=True)
        for noisy in (False, True)
    ]
