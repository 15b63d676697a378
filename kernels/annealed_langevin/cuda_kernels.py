"""Launches `annealed_langevin.cu`: Langevin walkers in a double well."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from ..philox import round_keys
from .request import GROUP, VARIANTS, LaunchRequest

THREADS = 256


class Settings(ctypes.Structure):
    """`Settings` in annealed_langevin.cu."""

    _fields_ = (
        ("keys", ctypes.c_uint32 * 20),
        ("walkers", ctypes.c_longlong),
        ("groups", ctypes.c_longlong),
        ("first_group", ctypes.c_longlong),
        ("offset", ctypes.c_uint32),
        ("first_step", ctypes.c_uint32),
        ("steps", ctypes.c_uint32),
        ("factor", ctypes.c_float),
        ("threshold", ctypes.c_float),
    )

    @classmethod
    def of(cls, walk: LaunchRequest) -> "Settings":
        low, high = zip(*round_keys(walk.seed), strict=True)
        return cls(
            (*low, *high), len(walk.x), walk.groups, walk.first_group, walk.offset, walk.first_step, len(walk.scales),
            -2.0 * walk.step_size, walk.threshold,
        )  # fmt: skip


def kernel(passages: bool) -> str:
    """The name expression of the kernel that reports first passages, or of the other."""
    return f"walk<{'true' if passages else 'false'}>"


@functools.cache
def module() -> CudaModule:
    return CudaModule(Path(__file__).with_name("annealed_langevin.cu"), [kernel(False), kernel(True)])


def walk(walk: LaunchRequest) -> None:
    """Write ``walk.x`` and ``walk.passages``, in one launch."""
    module().launch(
        kernel(walk.passages is not None), (-(-walk.groups // THREADS),), (THREADS,),
        [walk.start, walk.earlier, walk.x, walk.passages, walk.scales, Settings.of(walk)], device=walk.x.device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """Without first passages and with them; an item is a step of a walker."""
    return [
        CudaVariant(
            name=name, threads=THREADS, items=GROUP, unit="walker-steps", bytes_per_item=0.0, module=module(),
            kernel=kernel(passages),
        )
        for name, passages in VARIANTS.items()
    ]  # fmt: skip
