"""Resources and rates of each architecture, and the occupancy of a kernel.

Sources: "Compute Capabilities" of the CUDA Programming Guide (threads, blocks, registers, shared memory and the 1 KB of
it that the system reserves per block); the toolkit's ``cuda_occupancy.h`` (allocation granularity); NVIDIA's
datasheets of the named devices (multiprocessors, boost clock, memory bandwidth).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..api.messages import UnknownName, unknown
from .pipes import RATES

THREADS = 2048
BLOCKS = 32
REGISTERS = 65536
"""Limits of a multiprocessor, equal on all architectures below."""
WARP = 32
RESERVED_SHARED_BYTES = 1024
"""Shared memory that the system reserves for each block."""


@dataclass(frozen=True)
class Architecture:
    """An architecture and its reference device.

    ``generation`` is the column in `RATES`. ``clock`` is in Hz, ``bandwidth`` in bytes per second; ``shared_bytes`` and
    ``rates`` (results per clock, by pipe) are those of a multiprocessor. ``source`` is the origin of the rates.
    """

    name: str
    generation: int
    device: str
    multiprocessors: int
    clock: float
    bandwidth: float
    shared_bytes: int
    rates: Mapping[str, float]
    wide_products: float | None = None
    source: str = "documented rates"

    @property
    def bytes_per_clock(self) -> float:
        """Memory bandwidth of one multiprocessor, in bytes per clock."""
        return self.bandwidth / (self.multiprocessors * self.clock)


def _known(name: str, generation: int, device: str, sms: int, clock: float, bandwidth: float, kb: int) -> Architecture:
    rates = {pipe: rate[generation] for pipe, rate in RATES.items()}
    return Architecture(name, generation, device, sms, clock, bandwidth, kb * 1024, rates)


ARCHITECTURES = {
    each.name: each
    for each in (
        _known("sm_80", 0, "A100 SXM 80 GB", 108, 1.41e9, 2.039e12, 164),
        _known("sm_90", 1, "H200 SXM", 132, 1.98e9, 4.8e12, 228),
        _known("sm_100", 2, "B200", 148, 1.965e9, 8.0e12, 228),
    )
}


def architecture(name: str) -> Architecture:
    """The architecture ``name``, with or without the suffix ``a`` (architecture-specific code). Raises UnknownName."""
    known = ARCHITECTURES.get(_base(name))
    if known is None:
        raise unknown("arch", name, ARCHITECTURES)
    return replace(known, name=name)


def _base(name: str) -> str:
    return re.sub(r"(?<=\d)[af]$", "", name)


def measured(arch: Architecture, ceilings: Mapping[str, float], gpu: Mapping[str, Any], source: str) -> Architecture:
    """``arch`` with the rates that a run measured on such a device, in place of the documented ones.

    ``ceilings`` are rates by resource, ``gpu`` comes from the run's environment, ``source`` names the run. Raises
    UnknownName if the run's device has another architecture.
    """
    there = f"sm_{gpu.get('compute_capability', '')}".replace(".", "")
    if there != _base(arch.name):
        raise UnknownName(f"--limits {source}: the run was measured on {there}, not on {arch.name}")
    multiprocessors = int(gpu["multiprocessors"])
    per_clock = 1 / (multiprocessors * arch.clock)
    rates = dict(arch.rates)
    if "exp2" in ceilings:
        rates["mufu"] = ceilings["exp2"] * per_clock
    if "fma" in ceilings:
        rates["fma"] = ceilings["fma"] / 2 * per_clock
    wide = ceilings.get("wide multiply")
    return replace(
        arch,
        device=str(gpu.get("name", arch.device)),
        multiprocessors=multiprocessors,
        bandwidth=ceilings.get("copy", ceilings.get("read", arch.bandwidth)),
        rates=rates,
        wide_products=wide * per_clock if wide else None,
        source=f"rates measured in {source}",
    )


def warps_resident(arch: Architecture, threads: int, registers: int, shared_bytes: int) -> int:
    """Number of warps of a kernel that are resident on a multiprocessor; 0 if no block fits."""
    warps = -(-threads // WARP)
    registers_of_warp = -(-max(registers, 1) * WARP // 256) * 256
    by_registers = REGISTERS // 4 // registers_of_warp * 4 // warps  # in each of four partitions
    shared = -(-(shared_bytes + RESERVED_SHARED_BYTES) // 128) * 128
    blocks = min(THREADS // (warps * WARP), BLOCKS, by_registers, arch.shared_bytes // shared)
    return blocks * warps
