"""How long one launch takes: samples of a clock, taken until the median is known well enough.

Preparation, warm-up, the restoring of state and the flushing of caches all lie outside what is timed. What is timed
is watched: see `watch`.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import SystemRandom
from typing import Literal

import numpy as np
import torch

from ..agreement.agreement import Rejected, blamed_on_implementation
from ..api.operations import Case, Implementation, Operation
from ..api.records import DeviceState, Measurement
from .clocks import Clock, clock_for, replaced_timers
from .launch_audit import AgreementLost, Watch
from .work import Work

_random = SystemRandom()


@dataclass(frozen=True)
class TimingProtocol:
    """When warm-up is over and when enough samples are taken.

    Seconds are the host's and include restoring and flushing. ``noise`` is the largest `median_noise` that is good
    enough. A case of which ``fewest_samples`` would outlast ``longest_seconds`` gets ``fewest_samples_if_slow``.
    A block has from half to one and a half times ``samples_per_block``, at random. In up to ``most_values`` blocks
    the values are new, and as many others are their controls; there and at the end an implementation is judged.
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
    samples_per_block: int = 10
    most_values: int = 4


STANDARD = TimingProtocol()
"""The protocol of every published figure."""

PLATEAU_SAMPLES = 64
PLATEAU = 0.9
"""Of independent samples twice as many have 0.71 times the noise. Where it stays above 0.9 times for two doublings,
and not by chance of a few samples, something drifts, and more samples do not make the median better known."""

CACHED_CHANCE = 1e-4
CACHED_FROM = 1.25
SHORTEST_LOOK_UP = 10e-6
"""The first launch on new values is compared with the first on the same values written again. It is suspect where that
is not chance, from this ratio on, and if the difference is longer than to look up an answer by its inputs takes."""


def median_noise(samples: Sequence[float]) -> float:
    """The median's standard error as a fraction of it, from the interquartile range.

    For normal samples the standard deviation is IQR / 1.349, and the median's standard error is 1.2533 of that over
    sqrt(n). Outliers, which timings have and normal samples have not, leave it alone.
    """
    low, median, high = np.percentile(samples, (25, 50, 75))
    error = 1.2533 / 1.349 * (high - low) / math.sqrt(len(samples))
    return float(error / median) if median else math.inf if error else 0.0


def at_plateau(samples: Sequence[float]) -> bool:
    """True where the noise of the first quarter, the first half and all of the samples hardly falls any more."""
    if len(samples) < PLATEAU_SAMPLES:
        return False
    quarter, half, whole = (median_noise(samples[: len(samples) // parts]) for parts in (4, 2, 1))
    return whole > PLATEAU * half and half > PLATEAU * quarter


class Stopwatch:
    """One implementation in one case and mode, while it is timed: `warm_up`, `take_block` until False, `finish`.

    Implementations of a case take turns block by block, so that what drifts drifts for all. Every method raises
    `AgreementLost` if the implementation, which had agreed with its reference, fails. It raises ValueError where the
    implementation is interpreted or emulated: such a run says nothing about a GPU, so no figure of it may exist.

    ``cold``: caches are flushed before each sample. ``hot``: they are not, and each block begins with an untimed
    launch. Where a kernel is too short for one event pair, a sample is many launches, each on memory of its own, as a
    CUDA graph or, where it cannot be captured, queued. Hot, they all fit in the L2 cache together: a state that is
    advanced in place could not be put back between launches on the same memory without being timed.
    """

    def __init__(
        self,
        operation: Operation,
        implementation: Implementation,
        case: Case,
        device: torch.device,
        *,
        mode: Literal["cold", "hot"] = "cold",
        protocol: TimingProtocol = STANDARD,
        clock: Clock | None = None,
    ) -> None:
        if implementation.is_interpreted_on(device):
            raise ValueError(
                f"{implementation.name} ({implementation.backend}) is interpreted on {device}: its time means nothing"
            )
        self.samples: list[float] = []
        self._cost = operation.cost(case)
        self._mode, self._protocol = mode, protocol
        self._clock = clock or clock_for(device)
        self._persisting = self._clock.persisting_bytes()
        with _agreement_lost():
            self._watch = Watch(operation, implementation, case, device)
        self._work = Work(self._watch.launch, self._watch.restore, self._watch.fingerprint, cold=mode == "cold")
        self._method: Literal["host", "queue", "graph"] = self._clock.method
        self._states: list[DeviceState] = []
        self._spent = self._upkeep = self._per_sample = 0.0
        self._firsts: dict[str, list[float]] = {"new": [], "same": []}
        self._wait = 0
        self._stopped: Literal["noise", "plateau", "limit"] | None = None

    @property
    def noise(self) -> float:
        """`median_noise` of the samples so far; infinite while there are none."""
        return median_noise(self.samples) if self.samples else math.inf

    def warm_up(self) -> None:
        """Launches as the timed loop does; then, if the kernel is short, prepares the many launches of a sample."""
        seconds = self._run_warm(self._protocol.warm_up_seconds, self._protocol.longest_warm_up_seconds)
        self._take_sets(seconds)

    def take_block(self) -> bool:
        """Takes one block of samples, and judges what must be judged. True while more are wanted."""
        clock, watch = self._clock, self._watch
        begin = clock.now()
        with _agreement_lost():
            if not self._work.cold:
                self._sample(1)  # before new values are there, which it might otherwise store an answer for
                watch.forget()
            kind = self._begin_block()
            ready = clock.now()
            taken = self._sample(self._block_length())
            done = clock.now()
            if state := clock.state(len(self.samples)):
                self._states.append(state)
            if kind:
                self._firsts[kind].append(taken[0])
            self.samples += taken
            watch.look()
        if clock.persisting_bytes() != self._persisting:
            self._work.remarks.add("the part of the L2 cache that flushing leaves alone was changed")
        self._spent += done - ready
        self._per_sample = (done - ready) / len(taken)
        self._upkeep += ready - begin + clock.now() - done
        self._stopped = self._verdict()
        return self._stopped is None

    def finish(self) -> Measurement:
        """Judges the last launch in full, and says what was found."""
        with _agreement_lost():
            self._watch.judge_last()
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
            launches_per_sample=self._watch.sets,
            states=tuple(self._states),
            suspicions=tuple(self._suspicions()),
        )

    def _sample(self, count: int) -> list[float]:
        with blamed_on_implementation():
            return [seconds / self._watch.sets for seconds in self._clock.sample(self._work, count)]

    def _run_warm(self, shortest: float, longest: float) -> float:
        """Samples one by one, so that a slow case does not queue up. Gives the seconds of a launch."""
        begin = self._clock.now()
        taken: list[float] = []
        while True:
            with _agreement_lost():
                taken += self._sample(1)
            spent = self._clock.now() - begin
            enough = spent >= shortest and len(taken) >= self._protocol.warm_up_calls
            if enough or spent >= longest:
                self._watch.forget()
                self._per_sample = spent / len(taken)
                return float(np.median(taken[-10:]))

    def _take_sets(self, seconds: float) -> None:
        """As many sets of memory as a sample needs, but no more than can be prepared in the time of a warm-up."""
        clock, watch = self._clock, self._watch
        wanted = clock.sets(seconds, watch.nbytes, cold=self._work.cold)
        if wanted == 1 or self._work.waits:  # what waits for the device can neither be captured nor queued
            return
        begin = clock.now()
        with _agreement_lost():
            while watch.sets < wanted and clock.now() - begin < self._protocol.longest_warm_up_seconds:
                watch.add_set()
            self._sample(1)
            if (replay := clock.capture(watch.launch)) and watch.does_its_work(replay):
                self._work.launch, self._method = replay, "graph"
        self._run_warm(0.0, self._protocol.longest_warm_up_seconds)

    def _begin_block(self) -> Literal["new", "same"] | None:
        """New values, in the next block the same ones written again, then for some blocks nothing.

        An answer that is kept for an address is wrong on new values. One that is kept for what it was computed from
        shows in the first launch on new values, which is then slower than the first on values that only were written
        again. The first three pairs come soon, so that a short sampling has them; the others at random later.
        """
        new, same = (len(self._firsts[kind]) for kind in ("new", "same"))
        if self._watch.suspects or self._upkeep > self._protocol.longest_seconds:
            return None
        if new > same:
            self._watch.same_values()
            return "same"
        if new == self._protocol.most_values or self._wait:
            self._wait -= self._wait > 0
            return None
        self._wait = _random.randint(0, 1 if new < 2 else 40)
        self._watch.new_values()
        return "new"

    def _block_length(self) -> int:
        """At random, so that none can know which launch will be judged; cut to the time and number that are left."""
        protocol = self._protocol
        if self._watch.suspects:
            return 1
        size = protocol.samples_per_block
        wanted = _random.randint(math.ceil(size / 2), size + size // 2)
        left = protocol.longest_seconds - self._spent
        affordable = int(left / self._per_sample) if self._per_sample else wanted
        if not self.samples:
            affordable = max(affordable, protocol.fewest_samples_if_slow)
        return min(wanted, affordable, protocol.most_samples - len(self.samples))

    def _verdict(self) -> Literal["noise", "plateau", "limit"] | None:
        """What ends the sampling, if anything does."""
        protocol = self._protocol
        if self._watch.suspects:
            return None
        many = len(self.samples) >= protocol.most_samples
        if many or (len(self.samples) >= protocol.fewest_samples and self._spent >= protocol.shortest_seconds):
            if self.noise < protocol.noise:
                return "noise"
            if at_plateau(self.samples):
                return "plateau"
        return "limit" if self._block_length() <= 0 else None

    def _suspicions(self) -> Iterator[str]:
        yield from sorted(self._work.remarks)
        if self._watch.suspicion:
            yield self._watch.suspicion
        if names := replaced_timers():
            yield f"functions that tell the time were replaced: {', '.join(names)}"
        if ratio := self._slower_on_new_values():
            yield f"the first launch on new values takes {ratio:.2f} times as long: answers may be kept by content"
        throttled = list(self._throttled())
        if throttled:
            count = sum(samples for samples, _ in throttled)
            reasons = sorted({reason for _, reasons in throttled for reason in reasons})
            yield f"{count} of {len(self.samples)} samples were taken while throttled: {', '.join(reasons)}"

    def _slower_on_new_values(self) -> float | None:
        """By what factor, where it is hardly chance: every one clearly slower than all on values only written again,
        and so far up among all samples as chance brings that many with `CACHED_CHANCE`."""
        new, same = self._firsts["new"], self._firsts["same"]
        if not same or min(new) <= max(CACHED_FROM * max(same), max(same) + SHORTEST_LOOK_UP):
            return None
        slowest = sum(sample >= min(new) for sample in self.samples)
        if math.comb(slowest, len(new)) > CACHED_CHANCE * math.comb(len(self.samples), len(new)):
            return None
        return float(np.median(new) / np.median(same))

    def _throttled(self) -> Iterator[tuple[int, tuple[str, ...]]]:
        """The number of samples, and the reasons, of each block in which the device was throttled."""
        firsts = [*(state.first_sample for state in self._states), len(self.samples)]
        for state, (first, end) in zip(self._states, pairwise(firsts), strict=True):
            if state.throttled:
                yield end - first, state.throttled


@contextlib.contextmanager
def _agreement_lost() -> Iterator[None]:
    try:
        yield
    except Rejected as rejected:
        raise AgreementLost(rejected.agreement) from rejected


def _per_second(amount: int, seconds: float) -> float:
    return amount / seconds if seconds else math.inf
