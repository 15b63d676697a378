"""What a run writes down: measurements, records, claims about samplers, outcomes of experiments, and the run itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ConfigDict

from .experiments import Estimate, Findings
from .operations import Status


@dataclass(frozen=True)
class DeviceState:
    """What the device said of itself right after a block of samples; ``first_sample`` is the first of the block.

    ``throttled`` holds the driver's reasons for a clock below what was asked for, in words; empty if there are none.
    """

    first_sample: int
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """What the clock said. Times are seconds for one launch; every sample is kept.

    - ``mode`` is ``cold`` (inputs not in cache) or ``hot``; ``method`` is how the clock was used (``host``: around a
      launch; ``queue``: device events around queued launches; ``graph``: around the replay of a graph of them), and
      a sample is the mean of ``launches_per_sample`` launches.
    - ``noise`` is the median's standard error as a fraction of it; ``stopped`` says what ended the sampling.
    - ``roofline_share`` is the fraction of the hardware's measured limit that binds, ``limit`` (one of `RESOURCES`);
      None where that limit has not been measured.
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
        if any(time < 0 for time in (self.median, self.p10, self.p90, *self.samples)):
            raise ValueError("a time is negative")


@dataclass(frozen=True)
class Record:
    """One line of a run: an implementation, a case or law, the verdict, and the measurements if there are any.

    There is at most one for each mode, and only where the status is ``passed``; ``untimed`` says why a passed case
    has none. ``source_hash`` is that of the source the implementation was made from.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

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

    def __post_init__(self) -> None:
        if self.measurements and self.status is not Status.PASSED:
            raise ValueError(f"a measurement of {self.implementation} exists although its status is {self.status}")


@dataclass(frozen=True)
class Claim:
    """One thing that was tested of a sampler on a target, as `validate` tells it.

    ``exact`` is what theory says, ``measured`` what was found with its standard error, ``z`` their distance in units
    of it; ``p_value`` is that of the test, whose probability of a false alarm is ``false_alarm``. What has no number
    (reproducibility) has None. ``status`` and ``message`` are as for an `Agreement`.
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


@dataclass(frozen=True)
class Efficiency:
    """How a sampler does on a target at one temperature.

    ``steps_per_second`` counts steps of one chain, all chains together. ``ess_per_second`` is that times the effective
    sample size of a step; ``autocorrelation_time`` is its inverse, in steps. ``r_hat`` is the split R-hat. All are of
    the quantity that does worst, ``quantity``: the energy or a projection whose mean is known. ``acceptance`` is None
    where nothing is proposed. ``energy_trace`` is the mean energy of the chains after each recorded step.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    steps_per_second: float
    ess_per_second: float
    r_hat: float
    autocorrelation_time: float
    acceptance: float | None
    energy_mean: float
    quantity: str = "energy"
    energy_trace: tuple[float, ...] = ()


@dataclass(frozen=True)
class Standing:
    """A sampler on a target at one temperature: its claims, and its efficiency or why nobody measured that."""

    sampler: str
    target: str
    temperature: float
    backend: str
    plugin: str
    claims: tuple[Claim, ...]
    efficiency: Efficiency | None = None
    unmeasured: str = ""

    @property
    def tried(self) -> list[Claim]:
        return [each for each in self.claims if each.status is not Status.UNAVAILABLE]

    @property
    def failed(self) -> list[Claim]:
        return [each for each in self.tried if each.status is not Status.PASSED]


@dataclass(frozen=True)
class Outcome:
    """What became of an experiment: its findings, each estimate judged, or the error that left it without any."""

    experiment: str
    summary: str
    source: str
    plugin: str
    status: Status
    message: str = ""
    seconds: float = 0.0
    findings: Findings | None = None

    @property
    def tried(self) -> list[Estimate]:
        return [each for each in (self.findings.estimates if self.findings else ()) if each.status is not None]

    @property
    def failed(self) -> list[Estimate]:
        return [each for each in self.tried if each.status is not Status.PASSED]


@dataclass(frozen=True)
class BenchOptions:
    """What `bench` was asked for: names (empty: all), preset, seed (None: each case's own) and ``cold``, ``hot`` or
    ``both``."""

    operations: tuple[str, ...]
    implementations: tuple[str, ...]
    preset: str
    mode: str
    seed: int | None


@dataclass(frozen=True)
class Run:
    """Everything one command found out, as it is written to a results file.

    ``command`` is what was asked for, so that a run which is resumed asks for the same; `check` has none. ``ceilings``
    are the measured limits of the device by resource, in the units of `RESOURCES`. ``overheads`` are what measuring
    itself costs, in seconds. ``seconds`` is the time that went into each phase of the run. ``standings`` are those of
    samplers and ``outcomes`` those of experiments, which `validate` judges.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

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

    def __post_init__(self) -> None:
        if not isinstance(self.environment.get("gpu"), Mapping | None):
            raise ValueError("gpu of the environment is neither null nor an object")
