"""A round of replica exchange on a CPU: calling `parallel_tempering.cpp`."""

from pathlib import Path

from ..native import Keys, NativeModule
from .request import LaunchRequest

MODULE = NativeModule(Path(__file__).with_name("parallel_tempering.cpp"))


def swap(given: LaunchRequest) -> None:
    """Write ``given.new_replica_at`` and ``given.accepted``. There is at least one rung."""
    MODULE.call(
        "swap", given.replica_at, given.energies, given.betas, given.new_replica_at, given.accepted,
        given.replica_at.numel(), given.replica_at.shape[1], given.first_ladder, Keys.of(given.seed), given.step,
    )  # fmt: skip
