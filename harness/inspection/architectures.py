"""What a multiprocessor holds and how fast its device is, by architecture; how many warps of a kernel fit on it.

Sources: "Compute Capabilities" of the CUDA Programming Guide (threads, blocks, registers, shared memory, of which the
system takes 1 KB for each block); the granularity of allocation from the toolkit's ``cuda_occupancy.h``;
multiprocessors, boost clock and memory bandwidth from NVIDIA's datasheets of the devices named.
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
"""Of a multiprocessor, on every architecture below."""
WARP = 32
RESERVED_SHARED_BYTES = 1024
"""What the system takes of shared memory for each block."""


@dataclass(frozen=True)
class Architecture:
    """``shared_bytes`` of a multiprocessor; ``bandwidth`` in bytes per second; ``generation`` is the place in `RATES`.

    ``rates`` are results per clock and multiprocessor by pipe. ``source`` says where the device's rates come from.
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
        """What memory delivers to one multiprocessor in a clock."""
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
    """The architecture of that name, with or without the ``a`` of its own instructions. Raises UnknownName."""
    known = ARCHITECTURES.get(_base(name))
    if known is None:
        raise unknown("arch", name, ARCHITECTURES)
    return replace(known, name=name)


def _base(name: str) -> str:
    return re.sub(r"(?<=\d)[af]$", "", name)


def measured(arch: Architecture, ceilings: Mapping[str, float], gpu: Mapping[str, Any], source: str) -> Architecture:
    """``arch`` with what a run measured on such a device in place of what documents say.

    ``ceilings`` are rates by resource, ``gpu`` is the environment's. Raises UnknownName if the device is another.
    """
    there = f"sm_{gpu.get('compute_capability', '')}".replace(".", "")
    if there != _base(arch.name):
        raise UnknownName(f"limits of {source}: they were measured on {there}, not on {arch.name}")
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
    """How many warps of a kernel a multiprocessor holds at once; 0 if not even one block fits."""
    warps = -(-threads // WARP)
    registers_of_warp = -(-max(registers, 1) * WARP // 256) * 256
    by_registers = REGISTERS // 4 // registers_of_warp * 4 // warps  # each of the four parts holds whole warps
    shared = -(-(shared_bytes + RESERVED_SHARED_BYTES) // 128) * 128
    blocks = min(THREADS // (warps * WARP), BLOCKS, by_registers, arch.shared_bytes // shared)
    return blocks * warps
