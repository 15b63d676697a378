"""Measures how long one launch takes: samples of a clock until the median is precise enough.

Preparation, warm-up, restoring of state and flushing of caches lie outside the timed interval. `launch_audit` checks
the timed launches.
"""

import contextlib
import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import SystemRandom
from typing import Literal

import numpy as np
import torch

from ..agreement.agreement import GuardedCall, Rejected, reject_on_error
from ..agreement.device_memory import free_caches, is_out_of_memory
from ..agreement.guarded_memory import Guarded
from ..api.noise import PRECISE, PRECISE_ON_CPU, median_noise, noise_if_independent
from ..api.operations import Case, Implementation, Operation
from ..api.records import DeviceState, Measurement
from .clocks import Clock, clock_for
from .cpu_clock import CpuClock
from .cuda_clock import CudaClock
from .launch_audit import VALUES, FailedWhileTimed, JudgeElsewhere, LaunchAudit
from .tampering import replaced_functions, watch
from .work import Work

_random = SystemRandom()


@dataclass(frozen=True)
class TimingProtocol:
    """When warm-up ends and when there are enough samples.

    Seconds are the host's and include restoring and flushing. Sampling may stop when `median_noise` is below
    ``noise``. If ``fewest_samples`` would take longer than ``longest_seconds``, ``fewest_samples_if_slow`` suffice. A
    block has a random length between 0.5 and 1.5 times ``samples_per_block``. Up to ``most_repeated`` blocks are taken
    again because other processes, or throttling, disturbed them. Up to ``most_values`` sets of input values come up.
    A sample consists of at most ``most_launches`` launches.
    """

    warm_up_seconds: float = 0.2
    warm_up_calls: int = 3
    longest_warm_up_seconds: float = 2.0
    fewest_samples: int = 10
    fewest_samples_if_slow: int = 3
    most_samples: int = 1000
    shortest_seconds: float = 0.5
    shortest_until_plateau: float = 1.5
    longest_seconds: float = 5.0
    noise: float = PRECISE
    samples_per_block: int = 10
    most_repeated: int = 3
    most_values: int = 8
    most_launches: int = 64


STANDARD = TimingProtocol()
ON_CPU = TimingProtocol(
    longest_warm_up_seconds=0.5, shortest_until_plateau=0.6, longest_seconds=2.0, noise=PRECISE_ON_CPU
)
"""The protocols of every published figure, on a GPU and on a CPU."""


def protocol_for(device: torch.device) -> TimingProtocol:
    return ON_CPU if device.type == "cpu" else STANDARD


PLATEAU_SAMPLES = 64
PLATEAU = 0.9
"""Twice as many independent samples have 0.71 times the noise. If it stays above 0.9 times for two doublings, with at
least `PLATEAU_SAMPLES`, something drifts, and more samples do not make the median more precise, unless the drift comes
back: sampling goes on for ``shortest_until_plateau`` seconds."""

CACHED_CHANCE = 1e-4
CACHED_FROM = 1.2
SHORTEST_LOOK_UP = 2e-6
"""Launches on values that come up for the first time are compared with those on values seen before. They are suspicious
if chance makes them so slow with a probability below `CACHED_CHANCE`, the ratio of the medians is above `CACHED_FROM`,
and the difference above `SHORTEST_LOOK_UP` seconds."""


def at_plateau(samples: Sequence[float]) -> bool:
    """Whether the noise, as if all samples were independent, hardly falls from the first quarter of the samples to the
    first half to all."""
    if len(samples) < PLATEAU_SAMPLES:
        return False
    quarter, half, whole = (noise_if_independent(samples[: len(samples) // parts]) for parts in (4, 2, 1))
    return whole > PLATEAU * half and half > PLATEAU * quarter


def chance_of_slower(new: Sequence[float], seen: Sequence[float]) -> float:
    """The probability that the ranks of so many samples, chosen at random from all, have so large a sum."""
    from scipy.stats import mannwhitneyu  # takes half a second

    return float(mannwhitneyu(new, seen, alternative="greater", method="exact" if len(new) <= 8 else "auto").pvalue)


class Stopwatch:
    """Times one implementation in one case and mode: `warm_up`, `take_block` until False, `finish`.

    The implementations of a case take turns block by block, so that drift affects all alike. Every method raises
    `FailedWhileTimed` if the implementation fails. The constructor raises ValueError if the implementation is
    interpreted or emulated on the device, since such a time says nothing about a GPU.

    ``cold``: the clock flushes the caches before each sample. ``hot``: it does not, and each block begins with an
    untimed launch. If a kernel is too short for one pair of events, a sample consists of many launches, each on its own
    memory: as a CUDA graph, or queued if it cannot be captured. On the same memory, resetting a state between the
    launches would be timed. In hot mode all the memory fits in the L2 cache together. Launches that read numbers of
    the host that move on, such as a sampler's step, are queued: a graph would repeat the numbers of its capture.
    """

    def __init__(
        self,
        operation: Operation,
        implementation: Implementation,
        case: Case,
        device: torch.device,
        *,
        mode: Literal["cold", "hot"] = "cold",
        protocol: TimingProtocol | None = None,
        clock: Clock | None = None,
        judge: JudgeElsewhere | None = None,
    ) -> None:
        if implementation.is_interpreted_on(device):
            raise ValueError(
                f"{implementation.name} ({implementation.backend}) is interpreted on {device}: its time means nothing"
            )
        self.samples: list[float] = []
        self._cost = operation.cost(case)
        self._mode, self._protocol = mode, protocol or protocol_for(device)
        self._clock = clock or clock_for(device)
        self._persisting = self._clock.persisting_bytes()
        with _failed_while_timed():
            self._audit = LaunchAudit(operation, implementation, case, device, judge)
        self._work = Work(self._audit.launch, self._audit.restore, self._audit.fingerprint, cold=mode == "cold")
        self._method: Literal["host", "queue", "graph"] = self._clock.method
        self._states: list[DeviceState] = []
        self._spent = self._untimed = self._per_sample = 0.0
        self._on_new: list[bool] = []
        self._blocks_to_wait = self._repeated = 0
        self._stopped: Literal["noise", "plateau", "limit"] | None = None

    @property
    def noise(self) -> float:
        """`median_noise` of the samples so far; infinite without samples."""
        return median_noise(self.samples) if self.samples else math.inf

    def warm_up(self) -> None:
        """Launch as the timed loop does; for a short kernel, prepare the many launches of a sample."""
        seconds = self._run_warm(self._protocol.warm_up_seconds, self._protocol.longest_warm_up_seconds)
        self._prepare_sets(seconds)

    def take_block(self) -> bool:
        """Take one block of samples and audit its launches. Returns whether more blocks are needed.

        A block that something disturbed is taken a second time, at most `TimingProtocol.most_repeated` times, and the
        second one is kept: its state says whether it was disturbed too.
        """
        samples, states = len(self.samples), len(self._states)
        self._take_block()
        disturbed = any(state.is_disturbed for state in self._states[states:])
        if disturbed and self._repeated < self._protocol.most_repeated and self._block_length() > 0:
            self._repeated += 1
            del self.samples[samples:], self._states[states:], self._on_new[samples:]
            self._take_block()
        self._stopped = self._stop_reason()
        return self._stopped is None

    def _take_block(self) -> None:
        clock, audit = self._clock, self._audit
        begin = clock.now()
        with _failed_while_timed():
            if not self._work.cold:
                self._sample(1)
                audit.discard()
            self._draw_values()
            length = self._block_length()
            audit.begin_block(length)
            ready = clock.now()
            self._work.watch = self._read_state
            taken = self._sample(length)
            self._work.watch = None
            done = clock.now()
            on_new = audit.compare()
        counted = self._work.counted if len(self._work.counted) == len(on_new) else [True] * len(on_new)
        self._on_new += [new for new, sample in zip(on_new, counted, strict=True) if sample]
        self.samples += taken
        if clock.persisting_bytes() != self._persisting:
            self._work.remarks.add("the part of the L2 cache that survives a flush was changed")
        self._spent += done - ready
        self._per_sample = (done - ready) / len(taken)
        self._untimed += ready - begin + clock.now() - done

    @property
    def is_exhausted(self) -> bool:
        """Whether the time or the number of samples allows no further block."""
        return self._block_length() <= 0

    def finish(self) -> Measurement:
        """Check the last launch in full and return the measurement."""
        with _failed_while_timed():
            self._audit.judge_last()
        return self._measurement()

    def break_off(self, reason: str) -> Measurement:
        """The measurement after an interrupted block, whose launches are lost: the ``reason`` makes it suspicious."""
        return self._measurement(reason)

    def _measurement(self, *suspicions: str) -> Measurement:
        p10, median, p90 = (float(p) for p in np.percentile(self.samples, (10, 50, 90)))
        cost = self._cost
        return Measurement(
            device=self._clock.device_name,
            mode=self._mode,
            samples=tuple(self.samples),
            median=median,
            p10=p10,
            p90=p90,
            items_per_second=_per_second(cost.items, median),
            unit=cost.unit,
            bytes_per_second=_per_second(cost.bytes_read + cost.bytes_written, median),
            flops_per_second=_per_second(cost.flops, median),
            noise=self.noise,
            stopped=self._stopped,
            method=self._method,
            launches_per_sample=self._audit.sets,
            states=tuple(self._states),
            suspicions=(*suspicions, *self._suspicions()),
        )

    def _read_state(self) -> None:
        if state := self._clock.state(len(self.samples)):
            self._states.append(state)

    def _sample(self, count: int) -> list[float]:
        """Collects no garbage meanwhile: that would be timed, and a plugin's callback could work after the clock."""
        self._work.counted.clear()
        collects = gc.isenabled()
        gc.disable()
        try:
            with reject_on_error():
                return [seconds / self._audit.sets for seconds in self._clock.sample(self._work, count)]
        finally:
            if collects:
                gc.enable()

    def _run_warm(self, shortest: float, longest: float) -> float:
        """Sample one by one, so that a slow case does not fill the queue. Returns the seconds of a launch."""
        begin = self._clock.now()
        taken: list[float] = []
        while True:
            with _failed_while_timed():
                taken += self._sample(1)
            spent = self._clock.now() - begin
            enough = spent >= shortest and len(taken) >= self._protocol.warm_up_calls
            if enough or spent >= longest:
                self._audit.discard()
                self._per_sample = spent / len(taken)
                return float(np.median(taken[-10:]))

    def _prepare_sets(self, seconds: float) -> None:
        """Prepare as many sets of memory as a sample needs, within the time of a warm-up. Half of them are freed when
        the device runs out of memory."""
        clock, audit = self._clock, self._audit
        wanted = min(clock.sets(seconds, audit.nbytes, cold=self._work.cold), self._protocol.most_launches)
        begin = clock.now()
        while wanted > 1 and not self._work.waits:  # a launch that waits for the device cannot be captured or queued
            try:
                with _failed_while_timed():
                    while audit.sets < wanted and clock.now() - begin < self._protocol.longest_warm_up_seconds:
                        audit.add_set()
                    self._capture()
                self._run_warm(0.0, self._protocol.longest_warm_up_seconds)
                return
            except (FailedWhileTimed, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            wanted = audit.sets // 2
            audit.keep_sets(max(1, wanted))
            self._work.launch, self._method = audit.launch, clock.method
            gc.collect()  # the error's frames refer to tensors
            free_caches()

    def _capture(self) -> None:
        """Replay a graph from now on, if the launches can be captured.

        An eager launch comes first: there an implementation prepares its weights again if they have changed. That is
        Python, which a graph does not run.
        """
        self._work.launch, self._method = self._audit.launch, self._clock.method
        self._sample(1)
        with reject_on_error():
            replay = None if self._audit.host_reads_numbers else self._clock.capture(self._audit.launch)
            if replay and self._audit.writes_every_output(replay):
                self._work.launch, self._method = replay, "graph"
        self._audit.discard()

    def _draw_values(self) -> None:
        """Draw new values at random times, at first often, so that a short sampling has some."""
        audit = self._audit
        if audit.is_suspicious or audit.drawn >= self._protocol.most_values:
            return
        if self._untimed > self._protocol.longest_seconds:
            return
        if self._blocks_to_wait:
            self._blocks_to_wait -= 1
        elif self.samples and audit.draw():
            self._blocks_to_wait = _random.randint(0, 20) if audit.drawn > VALUES + 2 else 0

    def _block_length(self) -> int:
        """Random, so that no launch can predict whether it is checked; limited by the time and samples that remain."""
        protocol = self._protocol
        if self._audit.is_suspicious:
            return 1
        size = protocol.samples_per_block
        wanted = _random.randint(math.ceil(size / 2), size + size // 2)
        left = protocol.longest_seconds - self._spent
        affordable = int(left / self._per_sample) if self._per_sample else wanted
        if not self.samples:
            affordable = max(affordable, protocol.fewest_samples_if_slow)
        return min(wanted, affordable, protocol.most_samples - len(self.samples))

    def _stop_reason(self) -> Literal["noise", "plateau", "limit"] | None:
        """What ends the sampling; None if it continues."""
        protocol = self._protocol
        if self._audit.is_suspicious:
            return None
        many = len(self.samples) >= protocol.most_samples
        if many or (len(self.samples) >= protocol.fewest_samples and self._spent >= protocol.shortest_seconds):
            if self.noise < protocol.noise:
                return "noise"
            if self._spent >= protocol.shortest_until_plateau and at_plateau(self.samples):
                return "plateau"
        return "limit" if self._block_length() <= 0 else None

    def _suspicions(self) -> Iterator[str]:
        yield from sorted(self._work.remarks)
        if self._audit.suspicion:
            yield self._audit.suspicion
        yield from sorted(self._audit.remarks)
        if names := replaced_functions():
            yield f"functions that the harness relies on were replaced: {', '.join(names)}"
        if ratio := self._slower_on_new_values():
            yield f"the first launch on new values takes {ratio:.2f} times as long: results may be cached by content"
        throttled = list(self._throttled())
        if throttled:
            count = sum(samples for samples, _ in throttled)
            reasons = sorted({reason for _, reasons in throttled for reason in reasons})
            yield f"{count} of {len(self.samples)} samples were taken while throttled: {', '.join(reasons)}"

    def _slower_on_new_values(self) -> float | None:
        """The factor by which launches on new values are slower, if that is significant.

        The places of new values are random, so that without a cache every order of the samples' ranks is as likely.
        """
        new = [sample for sample, first in zip(self.samples, self._on_new, strict=True) if first]
        seen = [sample for sample, first in zip(self.samples, self._on_new, strict=True) if not first]
        if not new or not seen:
            return None
        slow, quick = float(np.median(new)), float(np.median(seen))
        if slow <= max(CACHED_FROM * quick, quick + SHORTEST_LOOK_UP) or chance_of_slower(new, seen) > CACHED_CHANCE:
            return None
        return slow / quick if quick else math.inf

    def _throttled(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """For each block with throttling, the number of its samples and the reasons."""
        firsts = [*(state.first_sample for state in self._states), len(self.samples)]
        for state, (first, end) in zip(self._states, pairwise(firsts), strict=True):
            if state.throttled:
                yield end - first, state.throttled


@contextlib.contextmanager
def _failed_while_timed() -> Iterator[None]:
    try:
        yield
    except Rejected as rejected:
        raise FailedWhileTimed(rejected.agreement) from rejected


def _per_second(amount: int, seconds: float) -> float:
    return amount / seconds if seconds else math.inf


watch(Stopwatch, LaunchAudit, GuardedCall, Guarded, CpuClock, CudaClock)
