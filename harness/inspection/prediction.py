"""The rate that a kernel can be expected to reach, with an interval, and what would help it most.

The best case is the slowest pipe at the documented rates, as if all pipes overlapped perfectly and no warp ever waited.
The expected rate adds what real kernels lose. In clocks of a multiprocessor per item:

    busy    = (sum over pipes of clocks ** p) ** (1 / p), p = `Constants.overlap`
    waiting = (rounds * latency + issue_interval * instructions) / items of all resident warps
    clocks  = hypot(busy, waiting)
    seconds = items * clocks / (multiprocessors * clock) + launches * overhead

Memory is a pipe at the share of the datasheet's bandwidth that copies reach. ``waiting`` is Little's law: a pass of a
warp takes its dependent rounds of loads and the time between dependent instructions, and the resident warps share it.
Where loads outnumber the bytes of the kernel's traffic, the rest of them hit a cache, with a shorter latency.

`calibration` fits the constants to published measurements and says how far the model is off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import exp, hypot

from .architectures import WARP, Architecture, warps_resident

CACHED_LATENCY = 260e-9
"""A load that hits the L2 cache, in seconds: gpu-benches measured 211 ns (A100), 265 ns (H100 PCIe), 277 ns (L40)."""
LAUNCH = {"graph": 1.3e-6, "stream": 2.5e-6}
"""Seconds between launches: gpu-benches' smallest kernels take so long on an A100 and an H200."""
UNSEEN = 2.0
"""How much wider the interval is for a kernel with matrix products, since no published point has any."""


@dataclass(frozen=True)
class Constants:
    """What the published measurements determine. ``eager`` and ``synchronisation`` are in seconds.

    ``latency`` is a factor on the device's latency, and ``issue_interval`` the clocks from an instruction of a warp to
    its next; ``overlap`` is the power of the sum over pipes: 1 for none, infinity for a perfect overlap. ``eager`` is
    the launch of a kernel from eager torch, ``synchronisation`` a wait of the host for the device between two kernels;
    both only matter for measurements from torch.
    """

    latency: float = 1.08
    issue_interval: float = 3.6
    overlap: float = 5.1
    eager: float = 7.0e-6
    synchronisation: float = 5.1e-5


CONSTANTS = Constants()
"""Fitted to the published points by `calibration.fit`, and rounded."""
SPREAD = 0.10
"""Root mean square of the logarithmic error on points of a group that the fit has not seen, rounded up."""
WITHIN = 1.645
"""Standard deviations on each side of an interval of 90 %."""


@dataclass(frozen=True)
class Demand:
    """What one item costs, from the machine code.

    - ``clocks``: clocks of a multiprocessor by pipe; "memory" at the datasheet's bandwidth.
    - ``instructions``, ``items``, ``rounds``, ``loaded_bytes``: of one thread in one pass of the hot path.
    - ``bytes_per_item``: traffic of the memory; ``warps``: resident on a multiprocessor.
    - ``certain``: false with matrix products, for which there are no published points.
    """

    clocks: Mapping[str, float]
    instructions: float
    items: float
    rounds: float
    loaded_bytes: float
    bytes_per_item: float
    warps: int
    certain: bool = True


@dataclass(frozen=True)
class Prediction:
    """Rates in items per second of the whole device.

    - ``best``: the best case. ``rate``: what to expect; between ``low`` and ``high`` with a probability of 90 %.
    - ``decides``: the term that takes longest, a pipe or "latency"; ``terms``: clocks of a multiprocessor per item.
    - ``helps``: what would help most, as a sentence with its gain.
    """

    best: float
    rate: float
    low: float
    high: float
    decides: str
    terms: Mapping[str, float] = field(default_factory=dict)
    helps: str = ""


def terms(demand: Demand, arch: Architecture, constants: Constants = CONSTANTS) -> dict[str, float]:
    """Clocks of a multiprocessor per item: of each pipe that is used, and "latency"."""
    found = {name: each for name, each in demand.clocks.items() if each and name not in ("fma", "multiply", "operands")}
    if "memory" in found:
        found["memory"] /= arch.copy_share
    arithmetic = {name: demand.clocks.get(name, 0.0) for name in ("fma", "multiply", "operands")}
    slowest = max(arithmetic, key=arithmetic.__getitem__)  # one pipe, fed from one register file
    if arithmetic[slowest]:
        found[slowest] = arithmetic[slowest]
    latency = constants.latency * arch.latency
    if demand.loaded_bytes:
        uncached = min(1.0, demand.bytes_per_item * demand.items / demand.loaded_bytes)
        latency = uncached * latency + (1 - uncached) * CACHED_LATENCY
    waits = demand.rounds * latency * arch.clock + constants.issue_interval * demand.instructions
    found["latency"] = waits / (demand.items * WARP * demand.warps)
    return found


def expected_clocks(found: Mapping[str, float], constants: Constants = CONSTANTS) -> float:
    """Clocks of a multiprocessor per item, from `terms`."""
    power = constants.overlap
    busy = sum(each**power for name, each in found.items() if name != "latency") ** (1 / power)
    return hypot(busy, found["latency"])


def predict(demand: Demand, arch: Architecture) -> Prediction:
    """The rate of a launch that fills the device for long."""
    found = terms(demand, arch)
    per_second = arch.multiprocessors * arch.clock
    rate = per_second / expected_clocks(found)
    spread = SPREAD * (1 if demand.certain else UNSEEN)
    return Prediction(
        best=per_second / max(demand.clocks.values()),
        rate=rate,
        low=rate * exp(-WITHIN * spread),
        high=rate * exp(WITHIN * spread),
        decides=max(found, key=found.__getitem__),
        terms=found,
    )


def advise(demand: Demand, arch: Architecture, threads: int, registers: int, shared_bytes: int) -> str:
    """What would help most: a tenth less of a term, one more resident block, or twice the loads in flight."""
    found = terms(demand, arch)
    now = expected_clocks(found)
    changes: dict[str, float] = {}
    for name, each in found.items():
        if name == "latency":
            continue
        words = {"memory": "bytes of memory traffic", "operands": "operands from registers"}.get(
            name, f"clocks of the {name} pipe"
        )
        changes[f"a tenth fewer {words}"] = expected_clocks({**found, name: 0.9 * each})
    fewer = _for_one_more_block(arch, threads, registers, shared_bytes)
    if fewer:
        words, warps = fewer
        changes[words] = expected_clocks(terms(replace(demand, warps=warps), arch))
    if demand.rounds:
        halved = terms(replace(demand, rounds=demand.rounds / 2), arch)
        changes["twice the loads in flight"] = expected_clocks(halved)
    best = min(changes, key=changes.__getitem__)
    gain = now / changes[best] - 1
    return f"{best}: +{gain:.0%}" if gain >= 0.01 else "nothing that is modelled gains 1 %"


def _for_one_more_block(arch: Architecture, threads: int, registers: int, shared_bytes: int) -> tuple[str, int] | None:
    """How many fewer registers of a thread, or else bytes of shared memory, make room for one more block."""
    now = warps_resident(arch, threads, registers, shared_bytes)
    for fewer in range(1, registers - 15):
        more = warps_resident(arch, threads, registers - fewer, shared_bytes)
        if more > now:
            return f"{fewer} fewer register{'s' * (fewer > 1)}, for {more} warps instead of {now}", more
    for fewer in range(1024, shared_bytes + 1, 1024):
        more = warps_resident(arch, threads, registers, shared_bytes - fewer)
        if more > now:
            return f"{fewer // 1024} KB less shared memory, for {more} warps instead of {now}", more
    return None
