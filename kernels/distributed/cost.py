"""What an algorithm over ranks costs: bytes, seconds of a step, and the efficiency to expect.

The model of a step on ``P`` ranks, of which a node holds `NODE`:

    seconds    = max(work, hidden exchanges) + other exchanges
    work       = items of a rank / rate of the kernel on one GPU
    efficiency = (seconds on one rank, for the items of one rank) / seconds

and of an exchange in which a rank sends ``b`` bytes, over the slowest link that it crosses:

    neighbours  two messages at once: latency + b / bandwidth
    gather      a ring of P - 1 steps, all bytes to each rank: latencies of the steps + (P - 1) b / bandwidth
    reduce      a slice from each rank to each other at once, and a gather of their sums:
                latency + latencies of the steps + 2 (P - 1) / P b / bandwidth
    header      the 24 bytes by which ranks agree before an exchange, from each rank to each other, by TCP:
                ceil(log2 P) latencies + (P - 1) b / bandwidth

It leaves out congestion, ranks that wait for slower ones, and the work of the host: for a sum over 1024 ranks, some
milliseconds. None of the rates of kernels or links was measured here.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .lattice import start_to_send
from .ranks import Ranks


@dataclass(frozen=True)
class Link:
    """``latency``: seconds of a small message. ``step``: those of each further one that follows in a collective.
    ``bandwidth``: bytes per second in one direction."""

    name: str
    latency: float
    step: float
    bandwidth: float
    source: str


_NCCL = "NCCL 2.28.7, src/graph/tuning.cc: ring, protocol LL, of which a step is"
NVLINK = Link(
    "NVLink 4", 7.2e-6, 0.6e-6, 450e9,
    f"18 links, 900 GB/s both ways (NVIDIA H200 in MLPerf Inference 4.1); {_NCCL} 0.6 µs after 6.6 µs",
)  # fmt: skip
INFINIBAND = Link(
    "InfiniBand NDR", 9.3e-6, 2.7e-6, 50e9,
    f"400 Gbit/s, an adapter for each GPU (the same system); {_NCCL} 2.7 µs after 6.6 µs",
)  # fmt: skip
TCP = Link("TCP of the hosts", 30e-6, 30e-6, 3e9, "an assumption: 25 Gbit/s Ethernet, 30 µs for a message")
NODE = 8
"""GPUs of a node."""


@dataclass(frozen=True)
class Exchange:
    """What a rank sends in a step: ``count`` times ``bytes_`` in an exchange of the ``kind``."""

    kind: str
    bytes_: float = 0.0
    count: float = 1

    def seconds(
        self, ranks: int, near: Link = NVLINK, far: Link = INFINIBAND, hosts: Link = TCP, node: int = NODE
    ) -> float:
        """Those of all ``count`` exchanges of ``ranks`` ranks, ``node`` of which are joined by ``near``."""
        if ranks == 1:
            return 0.0
        link = near if ranks <= node else far
        if self.kind == "neighbours":
            return self.count * (link.latency + self.bytes_ / link.bandwidth)
        nodes = -(-ranks // node)
        ring = link.latency - link.step + (ranks - nodes) * near.step + (nodes - 1) * far.step
        if self.kind == "gather":
            return self.count * (ring + (ranks - 1) * self.bytes_ / link.bandwidth)
        if self.kind == "reduce":
            return self.count * (link.latency + ring + 2 * (ranks - 1) / ranks * self.bytes_ / link.bandwidth)
        if self.kind == "header":
            rounds = (ranks - 1).bit_length()
            return self.count * (rounds * hosts.latency + (ranks - 1) * self.bytes_ / hosts.bandwidth)
        raise ValueError(f"kind must be neighbours, gather, reduce or header, got {self.kind!r}")

    def sent(self, ranks: int) -> float:
        """Bytes that a rank sends."""
        times = {"neighbours": 1, "gather": ranks - 1, "header": ranks - 1, "reduce": 2 * (ranks - 1) / ranks}
        return 0.0 if ranks == 1 else self.count * times[self.kind] * self.bytes_

    @classmethod
    def halo(cls, width: int) -> "Exchange":
        """Of a sweep of `boltzbench.kernels.distributed.IsingLattice`: two packed rows in each half sweep."""
        return cls("neighbours", 2 * 4 * -(-width // 64), 2)

    @classmethod
    def gathered(cls, bytes_: float, headers: int = 1, count: float = 1) -> tuple["Exchange", ...]:
        """`Ranks.gather` of so many bytes of each rank, after so many headers."""
        return cls("header", 24, headers * count), cls("gather", bytes_, count)

    @classmethod
    def reduced(cls, bytes_: float, headers: int = 1) -> tuple["Exchange", ...]:
        """`Ranks.sum` of blocks of so many bytes."""
        return cls("header", 24, headers), cls("reduce", bytes_)


@dataclass(frozen=True)
class Step:
    """A step of an algorithm on one rank: ``items`` at ``rate`` items per second, and what it sends."""

    name: str
    size: str
    items: float
    rate: float
    exchanges: Sequence[Exchange] = ()
    hidden: Sequence[Exchange] = ()

    def seconds(self, ranks: int) -> float:
        hidden = sum(each.seconds(ranks) for each in self.hidden)
        return max(self.items / self.rate, hidden) + sum(each.seconds(ranks) for each in self.exchanges)

    def efficiency(self, ranks: int) -> float:
        return self.items / self.rate / self.seconds(ranks)

    def sent(self, ranks: int) -> float:
        return sum(each.sent(ranks) for each in (*self.exchanges, *self.hidden))


SITES, REPLICAS, UNITS, CHAINS = 1 << 31, 4096, 1024, 8192
FLIPS, UPDATES = 2880e9, 300e9
"""Spins per second of `ising` as predicted for an H200, and units per second of `rbm_gibbs` as assumed."""
STEPS = (
    Step("chains", f"RBM, {UNITS} x {UNITS} units, {CHAINS} chains", 2 * UNITS * CHAINS, UPDATES),
    Step("lattice", "2^17 x 2^14 sites", SITES, FLIPS, hidden=(Exchange.halo(1 << 17),)),
    Step("lattice, small", "2^17 x 2^7 sites", SITES >> 7, FLIPS, hidden=(Exchange.halo(1 << 17),)),
    Step(
        "replica exchange", f"{REPLICAS} lattices of 256 x 256, 10 sweeps", 10 * REPLICAS * 256**2, FLIPS,
        Exchange.gathered(8 * REPLICAS),
    ),
    Step(
        "training", f"RBM, {UNITS} x {UNITS} units, {CHAINS} chains", 4 * UNITS * CHAINS, UPDATES,
        Exchange.reduced(4 * (UNITS**2 + 2 * UNITS), headers=3),
    ),
)  # fmt: skip
"""Steps at sizes for a GPU, each for one rank."""
PLACES = (8, 64, 1024)


def table() -> str:
    """What the model says of `STEPS` on `PLACES` GPUs, in Markdown, and the links."""
    lines = [
        "| step | on each GPU | work | " + " | ".join(f"sent, {n} GPUs" for n in PLACES[-1:])
        + " | " + " | ".join(f"{n} GPUs" for n in PLACES) + " |",
        "|---|---|---|---|" + "---|" * len(PLACES),
    ]  # fmt: skip
    for step in STEPS:
        sent = step.sent(PLACES[-1])
        cells = (
            step.name, step.size, _time(step.items / step.rate), "nothing" if not sent else _bytes(sent),
            *(f"{step.efficiency(ranks):.0%}" for ranks in PLACES),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| link | first message | each step | one way | source |", "|---|---|---|---|---|"]
    for link in (NVLINK, INFINIBAND, TCP):
        cells = link.name, _time(link.latency), _time(link.step), f"{link.bandwidth / 1e9:g} GB/s", link.source
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _time(seconds: float) -> str:
    return f"{1e6 * seconds:.3g} µs" if seconds < 1e-3 else f"{1e3 * seconds:.3g} ms"


def _bytes(number: float) -> str:
    return f"{number:.0f} B" if number < 1e4 else f"{number / 1e3:.3g} kB" if number < 1e6 else f"{number / 1e6:.3g} MB"


def measured_link(ranks: Ranks, device: torch.device) -> Link:
    """The link between neighbouring ranks as it is now: each sends 8 bytes, and then 1 MiB, both ways in turn.

    Every rank calls it. Medians over tries; the latency is that of the rank that waits longest.
    """
    if ranks.size == 1:
        return Link("none", 0.0, 0.0, math.inf, "one rank")
    small, large = 8, 1 << 20
    found = ranks.gather(
        torch.tensor([[_ring_seconds(ranks, device, small, 30), _ring_seconds(ranks, device, large, 9)]], device="cpu")
    )
    latency, whole = found.max(0).values.tolist()
    return Link("measured", latency, latency, large / max(whole - latency, 1e-9), f"{ranks.size} ranks on this machine")


def _ring_seconds(ranks: Ranks, device: torch.device, size: int, tries: int) -> float:
    """The median time in which a rank sends and gets this many bytes to and from both of its neighbours."""
    rows = torch.zeros(4, size, dtype=torch.uint8, device=device)
    times = []
    for _ in range(tries + 1):
        begin = time.perf_counter()
        start_to_send(ranks, *rows)()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return sorted(times[1:])[tries // 2]  # the first one connects the ranks
