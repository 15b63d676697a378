"""The Langevin update in CUDA C: launching `sgld.cu`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..cuda_module import CudaModule
from ..variants import CudaVariant, Variant
from .update_list import UpdateList

THREADS = 256
BLOCK = 4096
"""Elements of a block; both as in the .cu."""

MODULE = CudaModule(Path(__file__).with_name("sgld.cu"), ["update"])


def update(updates: UpdateList, step_size: float, noise_scale: float, seed: int, step: int) -> None:
    """Update every parameter in place, in one launch."""
    tensors, blocks = updates.table(BLOCK)
    MODULE.launch(
        "update", (len(blocks),), (THREADS,),
        [tensors, blocks, step_size, noise_scale, np.uint64(seed), np.uint32(step)], device=tensors.device,
    )  # fmt: skip


def variants() -> Sequence[Variant]:
    """The one kernel, by its float32 branch: a thread takes four parameters at a time."""
    return [
        CudaVariant(
            name="update", threads=THREADS, items=4, unit="parameters", bytes_per_item=12, module=MODULE,
            kernel="update",
        )
    ]  # fmt: skip
