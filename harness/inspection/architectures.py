"""Resources and rates of each architecture, and the occupancy of a kernel.

Sources: "Compute Capabilities" of the CUDA Programming Guide (threads, blocks, registers, shared memory and the 1 KB of
it that the system reserves per block); the toolkit's ``cuda_occupancy.h`` (allocation granularity); NVIDIA's
datasheets of the named devices (multiprocessors, boost clock, memory bandwidth).

Sources of the rates of dense matrix products, in multiply-adds per clock and multiprocessor: the whitepapers of A100,
H100 and Ada, the datasheets of L4 and HGX B200 (float64). On an H800 ``mma.sync`` reaches 62.9 % of the documented rate
on average (65.3 % for fp16), and ``wgmma`` 96.4 % (Luo et al., arXiv 2501.12084, section 6.2): hence 0.63 of the rate
for ``mma.sync`` on Hopper. Blackwell's ``tcgen05`` does not show its shape in machine code.

``copy_share`` is what copies reach of the datasheet's bandwidth: gpu-benches and ising-gpu for A100, Liger's and
QuACK's plots for H100, gpu-benches (stream, roofline) for H200, FlagGems for H20, and 0.90 where nothing was used.

``latency`` follows from gpu-benches' stream kernel that reads, in two blocks of 32 threads on a multiprocessor: the
time in which one set of threads succeeds another, without that of its instructions. A100 580 ns, H200 475 ns, H100 PCIe
525 ns, L40 405 ns; H100 SXM, H20 and B200 take the mean of the two of Hopper, and Ada's others that of L40.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..api.messages import UnknownName, unknown
from .pipes import RATES

REGISTERS = 65536
"""Registers of a multiprocessor, equal on all architectures below."""
WARP = 32
RESERVED_SHARED_BYTES = 1024
"""Shared memory that the system reserves for each block."""


@dataclass(frozen=True)
class Architecture:
    """An architecture and a device of it.

    ``clock`` is in Hz, ``bandwidth`` in bytes per second; ``shared_bytes``, ``threads``, ``blocks`` and ``rates``
    (results per clock, by pipe) are those of a multiprocessor, and so is ``matrix``, the multiply-adds of matrix
    products per clock by kind. ``copy_share`` is the share of ``bandwidth`` that copies reach, ``latency`` the seconds
    that a load takes while the device is idle. ``source`` is the origin of the rates.
    """

    name: str
    device: str
    multiprocessors: int
    clock: float
    bandwidth: float
    shared_bytes: int
    rates: Mapping[str, float]
    wide_products: float | None = None
    threads: int = 2048
    blocks: int = 32
    copy_share: float = 0.9
    latency: float = 5e-7
    matrix: Mapping[str, float] = field(default_factory=dict)
    source: str = "documented rates"

    @property
    def reports_reserved_bytes(self) -> bool:
        """Whether the declared shared memory of a kernel includes what the system reserves, as from Hopper on."""
        return int(_base(self.name).removeprefix("sm_")) >= 90

    @property
    def bytes_per_clock(self) -> float:
        """Memory bandwidth of one multiprocessor, in bytes per clock."""
        return self.bandwidth / (self.multiprocessors * self.clock)


_AMPERE = {"fp16": 1024, "tf32": 512, "int8": 2048, "fp64": 64}
_HOPPER: dict[str, float] = {"wgmma fp16": 2048, "wgmma tf32": 1024, "wgmma int8": 4096, "wgmma fp8": 4096, "fp64": 128}
_HOPPER |= {kind.removeprefix("wgmma "): 0.63 * rate for kind, rate in _HOPPER.items() if kind != "fp64"}
_L4 = {"fp16": 512, "tf32": 256, "int8": 1024, "fp8": 1024}
_RTX_4090 = {"fp16": 256, "tf32": 128, "int8": 1024, "fp8": 512}
"""With sums in float32, which GeForce adds at half the rate."""


def _device(
    name: str,
    device: str,
    sms: int,
    clock: float,
    bandwidth: float,
    share: float,
    ns: float,
    matrix: Mapping[str, float],
) -> Architecture:
    column = {"sm_80": 0, "sm_90": 1, "sm_100": 2, "sm_89": 3}[name]
    rates = {pipe: rate[column] for pipe, rate in RATES.items()}
    kb, threads, blocks = {"sm_80": (164, 2048, 32), "sm_89": (100, 1536, 24)}.get(name, (228, 2048, 32))
    return Architecture(
        *(name, device, sms, clock, bandwidth, kb * 1024, rates),
        threads=threads,
        blocks=blocks,
        copy_share=share,
        latency=ns * 1e-9,
        matrix=matrix,
    )


DEVICES = {
    each.device: each
    for each in (
        _device("sm_80", "A100 SXM 80 GB", 108, 1.41e9, 2.039e12, 0.92, 580, _AMPERE),
        _device("sm_80", "A100 SXM 40 GB", 108, 1.41e9, 1.555e12, 0.92, 580, _AMPERE),
        _device("sm_90", "H200 SXM", 132, 1.98e9, 4.8e12, 0.81, 475, _HOPPER),
        _device("sm_90", "H100 SXM", 132, 1.98e9, 3.35e12, 0.90, 500, _HOPPER),
        _device("sm_90", "H100 PCIe", 114, 1.755e9, 2.039e12, 0.90, 525, _HOPPER),
        _device("sm_90", "H20 141 GB", 78, 1.98e9, 4.8e12, 0.92, 500, {}),
        _device("sm_100", "B200", 148, 1.965e9, 8.0e12, 0.90, 500, {"fp64": 64}),
        _device("sm_89", "L4", 58, 2.04e9, 0.3e12, 0.90, 405, _L4),
        _device("sm_89", "L40", 142, 2.49e9, 0.864e12, 0.90, 405, _L4),
        _device("sm_89", "RTX 4090", 128, 2.52e9, 1.008e12, 0.90, 405, _RTX_4090),
    )
}
ARCHITECTURES: dict[str, Architecture] = {}
"""By name, each with its reference device: the first of `DEVICES`."""
for _each in DEVICES.values():
    ARCHITECTURES.setdefault(_each.name, _each)


def architecture(name: str) -> Architecture:
    """The architecture ``name``, with or without the suffix ``a`` (architecture-specific code). Raises UnknownName."""
    known = ARCHITECTURES.get(_base(name))
    if known is None:
        raise unknown("arch", name, ARCHITECTURES)
    return replace(known, name=name)


def device(name: str) -> Architecture:
    """The architecture with the first device whose name contains ``name``: "H100 SXM", "h100". Raises UnknownName."""
    wanted = name.casefold().removeprefix("nvidia ").strip()
    for each in DEVICES.values():
        if wanted and wanted in each.device.casefold():
            return each
    raise unknown("device", name, DEVICES)


def device_of(gpu: str) -> str | None:
    """The entry of `DEVICES` that is the GPU of this name, as drivers give it ("NVIDIA A100-SXM4-40GB"), or None."""
    there = _words(gpu)
    found = [each for each in DEVICES if _words(each) - _MODELS <= there]
    return max(found, key=lambda each: len(_words(each) & there), default=None)


_MODELS = {"sxm", "pcie", "40gb", "80gb", "141gb"}
"""Words that tell models of one chip apart; a GPU's name may leave them out."""


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z\d]+", re.sub(r" gb\b", "gb", name.casefold()).replace("sxm4", "sxm")))


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
    matrix = dict(arch.matrix)
    if "bfloat16 matrix" in ceilings and "fp16" in matrix:
        share = ceilings["bfloat16 matrix"] / 2 * per_clock / matrix.get("wgmma fp16", matrix["fp16"])
        matrix |= {kind: share * rate for kind, rate in matrix.items() if kind.endswith("fp16")}
    wide = ceilings.get("wide multiply")
    bandwidth = ceilings.get("copy", ceilings.get("read"))
    return replace(
        arch,
        device=str(gpu.get("name", arch.device)),
        multiprocessors=multiprocessors,
        bandwidth=bandwidth or arch.bandwidth,
        copy_share=1.0 if bandwidth else arch.copy_share,
        rates=rates,
        wide_products=wide * per_clock if wide else None,
        matrix=matrix,
        source=f"rates measured in {source}",
    )


def warps_resident(arch: Architecture, threads: int, registers: int, shared_bytes: int) -> int:
    """Number of warps of a kernel that are resident on a multiprocessor; 0 if no block fits."""
    warps = -(-threads // WARP)
    registers_of_warp = -(-max(registers, 1) * WARP // 256) * 256
    by_registers = REGISTERS // 4 // registers_of_warp * 4 // warps  # in each of four partitions
    shared = -(-(shared_bytes + RESERVED_SHARED_BYTES) // 128) * 128
    blocks = min(arch.threads // (warps * WARP), arch.blocks, by_registers, arch.shared_bytes // shared)
    return blocks * warps
