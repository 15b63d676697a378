"""How long one launch takes: samples of a clock, taken until the median is known well enough.

Preparation, warm-up, the restoring of state and the flushing of caches all lie outside what is timed. The outputs of
the last timed launch are judged again, so that a kernel cannot be right only while nobody times it.
"""

import math
import platform
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any, Literal

import numpy as np
import torch

from .agreement import GuardedCall, Rejected, blamed_on_implementation
from .types import Agreement, Case, Implementation, Launch, Measurement, Operation, Tensors

# Captured before any plugin is loaded: what a plugin replaces later is not what measures it.
_Event: Callable[..., Any] = torch.cuda.Event
_synchronize = torch.cuda.synchronize
_device_properties = torch.cuda.get_device_properties
_current_stream = torch.cuda.current_stream


@dataclass(frozen=True)
class Protocol:
    """When warm-up is over and when enough samples are taken.

    Seconds are the host's and include restoring and flushing. ``noise`` is the largest `median_noise` that is good
    enough. A case of which ``fewest_samples`` would outlast ``longest_seconds`` gets ``fewest_samples_if_slow``.
    """

    warm_up_seconds: float = 0.2
    warm_up_calls: int = 3
    longest_warm_up_seconds: float = 2.0
    fewest_samples: int = 10
    fewest_samples_if_slow: int = 3
    most_samples: int = 1000
    shortest_seconds: float = 0.5
    longest_seconds: float = 5.0
    noise: float = 0.005
    samples_per_batch: int = 10


STANDARD = Protocol()
"""The protocol of every published figure."""


class AgreementLost(Exception):
    """An implementation that had agreed with its reference failed while it was timed. ``agreement`` says how."""

    def __init__(self, agreement: Agreement) -> None:
        super().__init__(f"{agreement.status} while timed: {agreement.message}")
        self.agreement = agreement


class Clock(typing.Protocol):
    """Measures launches on one kind of device."""

    mode: Literal["cold", "hot"]
    device_name: str

    def now(self) -> float:
        """The host's seconds, by which limits are kept."""

    def sample(self, launch: Launch, restore: Callable[[], None], count: int) -> tuple[list[float], Tensors]:
        """Seconds of each of ``count`` launches, ``restore`` before each untimed, and the last launch's results."""


class CpuClock:
    """The host's monotonic clock. Its mode is ``hot``: nothing is flushed, so what fits in a cache is found there."""

    mode: Literal["cold", "hot"] = "hot"
    device_name = platform.processor() or platform.machine()

    def __init__(self, nanoseconds: Callable[[], int] = perf_counter_ns) -> None:
        self._nanoseconds = nanoseconds

    def now(self) -> float:
        return self._nanoseconds() * 1e-9

    def sample(self, launch: Launch, restore: Callable[[], None], count: int) -> tuple[list[float], Tensors]:
        seconds = []
        for _ in range(count):
            restore()
            begin = self._nanoseconds()
            result = launch()
            seconds.append((self._nanoseconds() - begin) * 1e-9)
        return seconds, result


class CudaClock:
    """Events on the device's current stream, one synchronisation for each batch.

    Its mode is ``cold``: before each launch a buffer of twice the L2 cache is written, outside the events. While
    the device writes it the host enqueues the launch, whose latency therefore seldom shows.
    """

    mode: Literal["cold", "hot"] = "cold"

    def __init__(self, device: torch.device) -> None:
        properties = _device_properties(device)
        self.device_name = properties.name
        self._device = device
        self._flush = torch.empty(2 * properties.L2_cache_size, dtype=torch.uint8, device=device)

    def now(self) -> float:
        return perf_counter_ns() * 1e-9

    def sample(self, launch: Launch, restore: Callable[[], None], count: int) -> tuple[list[float], Tensors]:
        stream = _current_stream(self._device)
        events = []
        for _ in range(count):
            begin, end = _Event(enable_timing=True), _Event(enable_timing=True)
            restore()
            self._flush.zero_()
            begin.record(stream)
            result = launch()
            end.record(stream)
            events.append((begin, end))
        _synchronize(self._device)
        return [begin.elapsed_time(end) * 1e-3 for begin, end in events], result


def clock_for(device: torch.device) -> Clock:
    return CudaClock(device) if device.type == "cuda" else CpuClock()


def median_noise(samples: Sequence[float]) -> float:
    """The median's standard error as a fraction of it, from the interquartile range.

    For normal samples the standard deviation is IQR / 1.349, and the median's standard error is 1.2533 of that over
    sqrt(n). Outliers, which timings have and normal samples have not, leave it alone.
    """
    low, median, high = np.percentile(samples, (25, 50, 75))
    error = 1.2533 / 1.349 * (high - low) / math.sqrt(len(samples))
    return float(error / median) if median else math.inf if error else 0.0


def measure(
    operation: Operation,
    implementation: Implementation,
    case: Case,
    device: torch.device,
    *,
    protocol: Protocol = STANDARD,
    clock: Clock | None = None,
) -> Measurement:
    """Times an implementation that has already agreed with its reference in this case.

    Raises `AgreementLost` if it fails now, and ValueError where it is interpreted or emulated: such a run says
    nothing about a GPU, so no figure of it may exist.
    """
    if implementation.is_interpreted_on(device):
        raise ValueError(
            f"{implementation.name} ({implementation.backend}) is interpreted on {device}: its time means nothing"
        )
    clock = clock or clock_for(device)
    try:
        call = GuardedCall(operation, implementation, operation.make_inputs(case, device), device)
        with blamed_on_implementation():
            _warm_up(call, clock, protocol)
            samples, result = _take_samples(call, clock, protocol)
        verdict = call.judge(call.accept(result))
    except Rejected as rejected:
        raise AgreementLost(rejected.agreement) from rejected
    if not verdict.passed:
        raise AgreementLost(verdict)

    p10, median, p90 = (float(p) for p in np.percentile(samples, (10, 50, 90)))
    cost = operation.cost(case)
    return Measurement(
        device=clock.device_name,
        mode=clock.mode,
        samples=tuple(samples),
        median=median,
        p10=p10,
        p90=p90,
        items_per_second=_per_second(cost.items, median),
        unit=cost.unit,
        bytes_per_second=_per_second(cost.bytes_read + cost.bytes_written, median),
        flops_per_second=_per_second(cost.flops, median),
    )


def _warm_up(call: GuardedCall, clock: Clock, protocol: Protocol) -> None:
    """Launches as the timed loop does, one by one so that a slow case does not queue up."""
    begin = clock.now()
    calls = 0
    while True:
        clock.sample(call.launch, call.restore, 1)
        calls += 1
        spent = clock.now() - begin
        enough = spent >= protocol.warm_up_seconds and calls >= protocol.warm_up_calls
        if enough or spent >= protocol.longest_warm_up_seconds:
            return


def _take_samples(call: GuardedCall, clock: Clock, protocol: Protocol) -> tuple[list[float], Tensors]:
    begin = clock.now()
    samples: list[float] = []
    batch = protocol.fewest_samples_if_slow
    while True:
        seconds, result = clock.sample(call.launch, call.restore, batch)
        samples += seconds
        spent = clock.now() - begin
        enough = len(samples) >= protocol.fewest_samples and spent >= protocol.shortest_seconds
        if enough and median_noise(samples) < protocol.noise:
            return samples, result
        # A batch is cut to what fits in the time and the number that are left: none of a slow case may overshoot.
        affordable = int((protocol.longest_seconds - spent) * len(samples) / spent) if spent else batch
        batch = min(protocol.samples_per_batch, affordable, protocol.most_samples - len(samples))
        if batch <= 0:
            return samples, result


def _per_second(amount: int, seconds: float) -> float:
    return amount / seconds if seconds else math.inf
