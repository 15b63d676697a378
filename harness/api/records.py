"""The contents of a results file: measurements, records, claims about samplers, outcomes of experiments, the run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise, repeat
from math import inf
from operator import lt
from typing import Any, Literal

from pydantic import ConfigDict

from .experiments import Estimate, Findings
from .operations import Status

QUIET = 0.1
"""The largest fraction of a device that other processes may use while it counts as quiet."""

MOST_DISTURBED = 0.25
"""The largest fraction of disturbed samples with which a median counts as undisturbed."""


@dataclass(frozen=True)
class DeviceState:
    """What the device reported at the end of a block of samples, before the last of them was done. ``first_sample`` is
    the index of the block's first.

    ``throttled`` holds the driver's reasons for a clock below the requested one, in words. ``others`` is the fraction
    of the device that other processes used during the block and earlier ones that were too short to tell: of the time
    of all CPUs that this process may use, or of a GPU's multiprocessors; None if that is unknown.
    """

    first_sample: int
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttled: tuple[str, ...] = ()
    others: float | None = None

    @property
    def is_disturbed(self) -> bool:
        """Whether the device throttled, or other processes used more than `QUIET` of it."""
        return bool(self.throttled) or (self.others or 0.0) > QUIET


@dataclass(frozen=True)
class Measurement:
    """The timing of an implementation in one case and mode. Times are seconds for one launch; all samples are kept.

    - ``mode`` is ``cold`` (inputs not in cache) or ``hot``.
    - ``method`` is what the clock surrounds: ``host``, a launch on the host; ``queue``, queued launches between device
      events; ``graph``, the replay of a graph of launches between device events. A sample is the mean of
      ``launches_per_sample`` launches.
    - ``noise`` is the standard error of the median divided by the median (`median_noise`); ``stopped`` says what ended
      the sampling.
    - ``limit`` is the resource (one of `RESOURCES`) that bounds the speed, and ``roofline_share`` the fraction of its
      measured ceiling that was reached; None if that ceiling was not measured.
    - ``suspicions`` are reasons to distrust the figure, in words.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    device: str
    mode: Literal["cold", "hot"]
    samples: tuple[float, ...]
    median: float
    p10: float
    p90: float
    items_per_second: float
    unit: str
    bytes_per_second: float
    flops_per_second: float
    noise: float = 0.0
    stopped: Literal["noise", "plateau", "limit"] | None = None
    method: Literal["host", "queue", "graph"] = "host"
    launches_per_sample: int = 1
    states: tuple[DeviceState, ...] = ()
    roofline_share: float | None = None
    limit: str = ""
    suspicions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(map(lt, (self.median, self.p10, self.p90, *self.samples), repeat(0))):
            raise ValueError("a time is negative")

    @property
    def disturbed(self) -> float:
        """The fraction of the samples that were taken while the device was disturbed."""
        firsts = [*(state.first_sample for state in self.states), len(self.samples)]
        lengths = [end - first for first, end in pairwise(firsts)]
        found = [n for n, state in zip(lengths, self.states, strict=True) if state.is_disturbed]
        return sum(found) / len(self.samples) if found and self.samples else 0.0


@dataclass(frozen=True)
class Record:
    """One line of a run: an implementation, a case or law, the verdict, and any measurements.

    There is at most one measurement for each mode, and only if the status is ``passed``; ``untimed`` says why a passed
    case has none. ``source_hash`` is the hash of the implementation's source. ``device`` is where it ran: ``cpu``,
    ``cuda:1``; empty in older files, which have one device.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings", defer_build=True)  # commands without files save it

    operation: str
    implementation: str
    backend: str
    plugin: str
    case: str
    purpose: str
    status: Status
    message: str = ""
    error: float | None = None
    bound: float | None = None
    p_value: float | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    dtype: str = ""
    seed: int = 0
    source_hash: str = ""
    measurements: tuple[Measurement, ...] = ()
    untimed: str = ""
    device: str = ""

    def __post_init__(self) -> None:
        if self.measurements and self.status is not Status.PASSED:
            raise ValueError(f"a measurement of {self.implementation} exists although its status is {self.status}")


@dataclass(frozen=True)
class Control:
    """The A/A control: an implementation timed a second time in the same case and mode, in turn with the first.

    ``samples`` are those of the second timing. ``ratio`` is its median divided by that of the first, ``stderr`` the
    standard error of the ratio's logarithm. If the second timing failed, ``message`` says why, and there are none.
    """

    operation: str
    implementation: str
    case: str
    mode: Literal["cold", "hot"]
    samples: tuple[float, ...] = ()
    ratio: float = 1.0
    stderr: float = 0.0
    message: str = ""

    @property
    def timed(self) -> bool:
        return bool(self.samples)

    def __post_init__(self) -> None:
        if not (0 < self.ratio < inf and 0 <= self.stderr < inf):
            raise ValueError("the ratio of a control and its standard error must be positive numbers")


@dataclass(frozen=True)
class Claim:
    """One test of a sampler on a target by `validate`.

    ``exact`` is the theoretical value, ``measured`` the estimate, ``stderr`` its standard error, and ``z`` their
    difference in standard errors. ``p_value`` is that of the test, at the significance level ``false_alarm``. Tests
    without numbers (reproducibility) have None. ``status`` and ``message`` are as for an `Agreement`. ``steps`` is the
    number of steps after which a law was tested (0: the target's own draws), None for a claim about the contract.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    sampler: str
    target: str
    temperature: float
    claim: str
    status: Status
    message: str = ""
    exact: float | None = None
    measured: float | None = None
    stderr: float | None = None
    z: float | None = None
    p_value: float | None = None
    false_alarm: float | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Efficiency:
    """The efficiency of a sampler on a target at one temperature.

    ``steps_per_second`` is the sum over all chains. ``ess_per_second`` is that times the effective sample size of one
    step, which is the inverse of ``autocorrelation_time`` (in steps). Both are those of ``quantity``, the slowest among
    the energy and the observables with a known mean; both are None if the steps were not timed. ``r_hat`` is the
    largest split R-hat of them all. ``acceptance`` is the acceptance rate, None without proposals. ``energy_trace`` is
    the mean energy of the chains after each recorded step. ``device`` is where the steps were timed.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    steps_per_second: float | None
    ess_per_second: float | None
    r_hat: float
    autocorrelation_time: float
    acceptance: float | None
    energy_mean: float
    quantity: str = "energy"
    energy_trace: tuple[float, ...] = ()
    device: str = ""


@dataclass(frozen=True)
class Standing:
    """A sampler on a target at one temperature: its claims, and its efficiency or why that was not measured.

    ``unmixed`` says why the chains did not mix: a chain is stuck (then there is no efficiency), or R-hat is large.
    ``device`` is where the claims were tested.
    """

    sampler: str
    target: str
    temperature: float
    backend: str
    plugin: str
    claims: tuple[Claim, ...]
    efficiency: Efficiency | None = None
    unmeasured: str = ""
    unmixed: str = ""
    device: str = ""

    @property
    def tried(self) -> list[Claim]:
        return [each for each in self.claims if each.status is not Status.UNAVAILABLE]

    @property
    def failed(self) -> list[Claim]:
        return [each for each in self.tried if each.status is not Status.PASSED]


@dataclass(frozen=True)
class Outcome:
    """The result of an experiment: its findings with a verdict on each estimate, or the error that prevented them."""

    experiment: str
    summary: str
    source: str
    plugin: str
    status: Status
    message: str = ""
    seconds: float = 0.0
    findings: Findings | None = None
    device: str = ""

    @property
    def tried(self) -> list[Estimate]:
        return [each for each in (self.findings.estimates if self.findings else ()) if each.status is not None]

    @property
    def failed(self) -> list[Estimate]:
        return [each for each in self.tried if each.status is not Status.PASSED]


@dataclass(frozen=True)
class BenchOptions:
    """The options of `bench`: names (empty: all), preset, mode (``cold``, ``hot`` or ``both``), seed (None: each
    case's own), the words of ``--sizes``, and the dtypes, scenarios and cases chosen (empty: all)."""

    operations: tuple[str, ...]
    implementations: tuple[str, ...]
    preset: str
    mode: str
    seed: int | None
    sizes: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A step that `run` left out, and ``message`` in words why.

    ``kind`` is ``check``, ``limits``, ``bench``, ``memcheck``, ``racecheck`` or ``validate``, which has a sampler
    instead of the operation and a target instead of the case. ``reason`` is ``time`` (the budget),
    ``unchanged`` (an earlier run timed the same source on this device) or ``impossible`` (here).
    """

    kind: str
    operation: str
    implementation: str
    case: str
    reason: Literal["time", "unchanged", "impossible"]
    message: str


@dataclass(frozen=True)
class UsedDevice:
    """One of several devices of a run, which all have the same name, or the GPU of a shard.

    ``gpu`` is as in the environment, ``ceilings`` and ``overheads`` are as in `Run`. ``reference`` has the seconds of
    fixed launches on it; ``slow`` says in words by how much it is slower than the others, and is empty if it is not.
    In a merged run the others are those of its kind in all parts.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    device: str
    gpu: Mapping[str, Any] | None = None
    ceilings: Mapping[str, float] = field(default_factory=dict)
    overheads: Mapping[str, float] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)
    slow: str = ""


@dataclass(frozen=True)
class Shard:
    """The part of a plan that a run has: number ``number`` of ``of``, counted from 1.

    ``plan`` is the hash of the whole plan, ``steps`` the number of records of the complete shard (0 of `validate`).
    """

    number: int
    of: int
    plan: str
    steps: int = 0

    def __str__(self) -> str:
        return f"shard {self.number}/{self.of}"


@dataclass(frozen=True)
class Part:
    """One of the runs in a merged run: the fields of `Run` that are its own, and its file.

    ``records``, ``controls``, ``standings``, ``outcomes`` and ``left_out`` are numbers: those of the merged run stand
    in the order of its parts.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    file: str
    status: Literal["complete", "incomplete"]
    environment: Mapping[str, Any]
    ceilings: Mapping[str, float] = field(default_factory=dict)
    overheads: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    started: str = ""
    shard: Shard | None = None
    devices: tuple[UsedDevice, ...] = ()
    records: int = 0
    controls: int = 0
    standings: int = 0
    outcomes: int = 0
    left_out: int = 0


@dataclass(frozen=True)
class Run:
    """All results of one command, as written to a results file.

    ``command`` holds the options of `bench`, so that a resumed run uses the same; `check` has none. ``ceilings`` are
    the measured limits of the device by resource, in the units of `RESOURCES`. ``overheads`` are the seconds that
    measuring itself costs. ``seconds`` is the time spent in each phase of the run. ``standings`` are the results of
    samplers and ``outcomes`` those of experiments, both from `validate`. ``left_out`` holds the steps that `run` left
    out. ``controls`` are timings of the same code twice, whose differences are the noise floor. ``started`` is the date
    and time in UTC, such as ``2026-11-29T17:53:45Z``; empty in older files, whose names have it. ``devices`` are those
    of a run on several, or the GPU of a shard: ``device`` of the environment names them all, its ``gpu`` is that of
    the first, and ``ceilings`` and ``overheads`` are those of the first that has any. ``shard`` says which part of a
    plan it is, None for all of it. ``parts`` are the runs that `merge` has joined.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings", defer_build=True)  # commands without files save it

    schema: int
    status: Literal["complete", "incomplete"]
    environment: Mapping[str, Any]
    records: tuple[Record, ...]
    problems: tuple[str, ...] = ()
    ceilings: Mapping[str, float] = field(default_factory=dict)
    overheads: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    command: BenchOptions | None = None
    standings: tuple[Standing, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    controls: tuple[Control, ...] = ()
    started: str = ""
    devices: tuple[UsedDevice, ...] = ()
    shard: Shard | None = None
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.environment.get("gpu"), Mapping | None):
            raise ValueError("gpu of the environment is neither null nor an object")
