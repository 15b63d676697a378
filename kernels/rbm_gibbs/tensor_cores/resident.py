"""All sweeps in one launch of `resident.cu`: for a machine with weights that fit a multiprocessor's shared memory."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...common.variants import CudaVariant
from ...cuda_module import CudaModule
from ..prepared import PreparedWeights
from ..request import LaunchRequest
from .sweeps import sweeps_arguments
from .tiles import STEP_GIVEN

CHAINS, THREADS, UNIT_WARPS = 64, 512, 8
"""Of a block, as in the .cu."""
MOST_SWEEPS = 1 << 31
"""The kernel counts half sweeps in 32 bits, which saves registers."""
MOST_SHARED_BYTES = 227 * 1024
"""Of a block in the emulator, as on sm_90 and sm_100."""


@dataclass(frozen=True)
class ResidentKernel:
    """One instance of the kernel, as `Kind` of `resident.cu` has it."""

    weight: str
    products: int

    @property
    def name(self) -> str:
        return f"resident_sweeps<{self.weight}, {self.products}>"

    @property
    def warp_units(self) -> int:
        return 32 if self.products == 1 else 16

    def shared_bytes(self, visible: int, hidden: int, clamped: bool = True) -> int:
        """Weights (digits: both matrices, with scales; bfloat16: one matrix), biases, states, and clamped units."""
        digits = self.weight == "signed char"
        given_visible, given_hidden = _rounded_up(visible, STEP_GIVEN), _rounded_up(hidden, STEP_GIVEN)
        if digits:
            drawn_visible, drawn_hidden = _rounded_up(visible, self.warp_units), _rounded_up(hidden, self.warp_units)
            weights = drawn_hidden * given_visible + drawn_visible * given_hidden
        else:
            weights = given_hidden * given_visible
        numbers = (2 if digits else 1) * (given_visible + given_hidden)
        state = 1 if digits else 2
        states = CHAINS * (state * (given_visible + given_hidden) + 2 * 16)
        clamped_bits = CHAINS * given_visible // 8 if clamped else 0
        return self.products * state * weights + 4 * numbers + states + clamped_bits


KERNELS = {
    "bf16": ResidentKernel("bfloat16", 1),
    "bf16x3": ResidentKernel("bfloat16", 3),
    "int8x3": ResidentKernel("signed char", 3),
}


@functools.cache
def module(precision: str) -> CudaModule:
    """The kernel for weights prepared in ``precision``."""
    return CudaModule(Path(__file__).with_name("resident.cu"), [KERNELS[precision].name])


def resident_fits(weights: PreparedWeights, clamped: bool, packed: bool, device: torch.device) -> bool:
    """Whether the weights and the states of a block's chains fit a multiprocessor's shared memory."""
    kernel = KERNELS.get(weights.precision)
    if kernel is None:
        return False
    room = MOST_SHARED_BYTES
    if device.type == "cuda":
        room = int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin"))  # noqa: B009
    visible, hidden = weights.source.shape
    return kernel.shared_bytes(visible, hidden, clamped) <= room


def resident_units(weights: PreparedWeights) -> int:
    """How many units a sweep of one chain computes, the padding of tiles included: a warp without units waits."""
    block_units = UNIT_WARPS * KERNELS[weights.precision].warp_units
    return sum(_rounded_up(units, block_units) for units in weights.source.shape)


def resident_sweeps(to_hidden: LaunchRequest, to_visible: LaunchRequest, sweeps: int) -> None:
    """All sweeps in one launch, with the results of as many pairs of half sweeps.

    ``to_hidden`` and ``to_visible`` are the first two half sweeps, for prepared weights that fit. Rows of uint8 states
    may begin at any address. Raises ValueError from `MOST_SWEEPS` sweeps on.
    """
    if sweeps >= MOST_SWEEPS:
        raise ValueError(f"sweeps must be below {MOST_SWEEPS} with plan 'resident', got {sweeps}")
    chains = len(to_hidden.out)
    if chains == 0:
        return
    precision = to_hidden.operand.precision
    kernel = KERNELS[precision]
    module(precision).launch(
        kernel.name, (-(-chains // CHAINS),), (THREADS,),
        [*sweeps_arguments(to_hidden, to_visible, sweeps), int(to_hidden.packed)],
        shared_bytes=kernel.shared_bytes(to_visible.units, to_hidden.units, to_visible.clamped is not None),
        device=to_hidden.out.device,
    )  # fmt: skip


def _rounded_up(units: int, by: int) -> int:
    return -(-units // by) * by


def variants() -> Sequence[CudaVariant]:
    """Each precision, at a size that fits every architecture."""
    sizes = {"bf16": (192, 192), "bf16x3": (128, 128), "int8x3": (128, 128)}
    return [
        CudaVariant(
            name=f"tensor-core sweeps {precision}, weights resident, {visible} x {hidden}",
            threads=THREADS,
            items=2 * 32 * kernel.warp_units * kernel.products,  # of the products of a slab for a warp
            unit="multiply-adds",
            bytes_per_item=0.0,
            module=module(precision),
            kernel=kernel.name,
            shared_bytes=kernel.shared_bytes(visible, hidden),
        )
        for precision, kernel in KERNELS.items()
        for visible, hidden in (sizes[precision],)
    ]
