"""Launches `parallel_tempering.cu`: a round of replica exchange."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..common.variants import CudaVariant, KernelVariant
from ..cuda_module import CudaModule
from .request import LaunchRequest

THREADS = 256


@functools.cache
def module() -> CudaModule:
    return CudaModule(Path(__file__).with_name("parallel_tempering.cu"), ["swap"])


def swap(given: LaunchRequest) -> None:
    """Write ``given.new_replica_at`` and ``given.accepted``. There is at least one rung."""
    total, rungs = given.replica_at.numel(), given.replica_at.shape[1]
    module().launch(
        "swap", (-(-total // THREADS),), (THREADS,),
        [
            given.replica_at, given.energies, given.betas, given.new_replica_at, given.accepted, total, rungs,
            given.first_ladder, np.uint64(given.seed), np.uint32(given.step),
        ],
        device=given.replica_at.device,
    )  # fmt: skip


def variants() -> Sequence[KernelVariant]:
    """The only kernel."""
    return [
        CudaVariant(
            name="swap", threads=THREADS, items=1, unit="replicas", bytes_per_item=24, module=module(), kernel="swap"
        )
    ]
