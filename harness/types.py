"""The words that the harness and every plugin share: operations, cases, implementations and what is said of them.

Plain frozen dataclasses; nothing here runs a kernel, reads a clock or writes a file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol

import torch
from pydantic import ConfigDict
from torch import Tensor

API_VERSION = 1
"""What a plugin states as ``BOLTZBENCH_API``: the version of the hooks and types that it was written for."""

PRESETS = ("smoke", "quick", "full")
"""Sizes of a benchmark run, smallest first; each contains the ones before it."""

INTERPRETED_ON_CPU = frozenset({"triton", "cupy"})
"""Backends whose kernels are interpreted or emulated for CPU tensors: judged there, never timed."""

Inputs = Mapping[str, Any]
"""What an implementation is given: tensors and plain numbers by name. It must not change the tensors."""

Tensors = Mapping[str, Tensor]
"""What an implementation gives back: tensors by name."""

Launch = Callable[[], Tensors]
"""Runs the prepared work once. Called again and again, it must do all of that work each time."""

Advance = Callable[[Inputs], Tensors]
"""Prepares and runs one implementation on the given inputs: what a `Law` tests."""


@dataclass(frozen=True)
class Case:
    """One input of an operation: sizes by name, the dtype by its torch name, and the seed its data is drawn from.

    ``variant`` names what is special about the data ("outliers", "transposed"). ``purpose`` is ``check`` (agreement
    only), ``bench`` (agreement, then throughput) or ``real`` (data of the world; agreement, then throughput).
    ``preset`` is the smallest preset that times the case.
    """

    operation: str
    sizes: Mapping[str, int]
    dtype: str
    variant: str = ""
    seed: int = 0
    purpose: Literal["check", "bench", "real"] = "check"
    preset: Literal["smoke", "quick", "full"] = "smoke"

    @property
    def label(self) -> str:
        """What people read: ``variant size=value ... dtype``. Unique among the cases of an operation."""
        sizes = [f"{name}={value}" for name, value in self.sizes.items()]
        return " ".join([*([self.variant] if self.variant else []), *sizes, self.dtype])

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@dataclass(frozen=True)
class Cost:
    """The least that a case asks of the hardware. The harness derives every rate from it.

    ``items`` counts what the operation is for ("rows", "unit updates", "parameters"); ``unit`` is that word.
    Bytes count each input once and each output once. ``flops`` are all floating-point operations, a fused
    multiply-add being two; ``matrix_flops`` are those of them that are products of matrices, whose operands have the
    dtype ``matrix_dtype`` (its torch name).
    """

    items: int
    unit: str
    bytes_read: int = 0
    bytes_written: int = 0
    flops: int = 0
    matrix_flops: int = 0
    matrix_dtype: str = "float32"
    random_words: int = 0
    special_calls: int = 0


@dataclass(frozen=True)
class Expected:
    """What one output should be, and how far from it each element may lie.

    ``value`` is computed in float64 from the inputs as rounded to the kernel's dtype; ``bound`` is an absolute
    error, one number or one for each element. Where ``value`` is infinite or NaN the output must be the same.
    """

    value: Tensor
    bound: Tensor | float = 0.0


class Status(StrEnum):
    """The verdict on an implementation in one case."""

    PASSED = "passed"
    WRONG_SHAPE = "wrong_shape"
    WRONG_DTYPE = "wrong_dtype"
    WRONG_VALUES = "wrong_values"
    WRONG_LAW = "wrong_law"
    MODIFIED_INPUT = "modified_input"
    OUT_OF_BOUNDS = "out_of_bounds"
    ERROR = "error"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Agreement:
    """The verdict with its evidence.

    ``error`` and ``bound`` are those of the element that came nearest to its bound or went furthest beyond it; for
    a law they are the statistic and its critical value, and ``p_value`` is set. ``message`` says where and why.
    """

    status: Status
    message: str = ""
    error: float | None = None
    bound: float | None = None
    p_value: float | None = None

    @property
    def passed(self) -> bool:
        return self.status is Status.PASSED


@dataclass(frozen=True)
class Law:
    """An exact statement about an operation's results over many draws or calls, such as a stationary law.

    ``test(advance, device, seed)`` runs the implementation through ``advance`` and returns the verdict.
    ``statement`` is one line for the reader. ``shared_stream`` says that the law holds only for draws from the suite's
    random stream: it is not put to an implementation that has a stream of its own.
    """

    name: str
    statement: str
    test: Callable[[Advance, torch.device, int], Agreement]
    shared_stream: bool = False


@dataclass(frozen=True)
class Operation:
    """Something to compute, with all that is needed to judge and time any implementation of it.

    - ``make_inputs(case, device)`` draws the inputs from ``case.seed``.
    - ``make_outputs(inputs)`` allocates the outputs, uninitialised. An output that has the name of an input is state
      advanced in place: it holds a copy of that input when a launch begins. All others are poisoned before it.
    - ``reference(inputs, outputs)`` says what each output should be and within which bound. A sampler's later draws
      are judged given the earlier ones that the implementation itself made; hence ``outputs``.
    - ``cost(case)`` is the least work of the case.
    - ``laws`` are exact statements that the outputs obey as a whole.
    - ``judge_draws(inputs, outputs)`` tests the outputs of a sampler that has a random stream of its own against the
      law of the draws, at a stated probability of false alarm. Without it no such implementation can be registered.
    """

    name: str
    summary: str
    formula: str
    source: str
    kind: Literal["map", "sampler"]
    cases: tuple[Case, ...]
    make_inputs: Callable[[Case, torch.device], Inputs]
    make_outputs: Callable[[Inputs], Tensors]
    reference: Callable[[Inputs, Tensors], Mapping[str, Expected]]
    cost: Callable[[Case], Cost]
    laws: tuple[Law, ...] = ()
    judge_draws: Callable[[Inputs, Tensors], Agreement] | None = None


class Unsupported(Exception):
    """Raised by ``prepare`` for a case that the implementation is not made for. The message says why.

    The case then counts as ``unavailable``, with that reason.
    """


def always_available(device: torch.device) -> str | None:
    """The default of `Implementation.unavailable`: runs wherever torch does."""
    return None


class Compiled(Protocol):
    """Machine code: ``elf`` is a cubin that holds the kernel ``symbol``, launched with so much dynamic memory."""

    @property
    def elf(self) -> bytes: ...
    @property
    def symbol(self) -> str: ...
    @property
    def dynamic_shared_bytes(self) -> int: ...


class Variant(Protocol):
    """A kernel as it is compiled for one class of shapes, for `inspect` to read its machine code without a GPU.

    - ``name`` is unique among the variants of an implementation.
    - ``threads`` of a block, each of which handles ``items`` (``unit`` is the word for them) in one pass of the inner
      loop as the source has it, or in the whole kernel if it has no loop.
    - ``bytes_per_item``: memory traffic, read and written.
    - ``access_bytes``: the narrowest bulk load or store promised in the inner loop; 0 promises nothing.
    - ``archs``: the only architectures that launch it, and that it is compiled for, if any are named.
    - ``compile(arch)`` compiles for an architecture such as "sm_90", and raises what the compiler raises.
    """

    @property
    def name(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def items(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def bytes_per_item(self) -> float: ...
    @property
    def access_bytes(self) -> int: ...
    @property
    def archs(self) -> Sequence[str]: ...
    def compile(self, arch: str) -> Compiled: ...


def no_variants() -> Sequence[Variant]:
    """The default of `Implementation.variants`: nothing to inspect."""
    return ()


@dataclass(frozen=True)
class Implementation:
    """One way to compute an operation.

    ``prepare(inputs, outputs)`` does what need not be timed (checks, compilation, tables) and returns the launch,
    which writes to ``outputs``, or to tensors of its own, and returns them by name. It raises `Unsupported` for a case
    that it is not made for. ``unavailable(device)`` gives the reason why it cannot run for tensors there at all, or
    None. ``backend`` is ``torch``, ``triton``, ``cupy`` or your own word.

    ``own_stream`` says that a sampler draws from a random stream of its own and not from the suite's: it is then
    judged by ``Operation.judge_draws`` and not element by element. ``variants()`` names the kernels whose machine code
    `inspect` reads; it is called in a process that compiles Triton kernels (``TRITON_INTERPRET=0``) and has no GPU.
    ``note`` is a line for `list`, such as which inputs take a slower path.

    Tensors of its own that a launch returns are overwritten before the next one. ``plugin`` is filled in by the
    registry.
    """

    operation: str
    name: str
    backend: str
    prepare: Callable[[Inputs, Tensors], Launch]
    unavailable: Callable[[torch.device], str | None] = always_available
    own_stream: bool = False
    variants: Callable[[], Sequence[Variant]] = no_variants
    note: str = ""
    plugin: str = ""

    def is_interpreted_on(self, device: torch.device) -> bool:
        """True where a run says nothing about speed: a GPU kernel interpreted or emulated on the host."""
        return device.type == "cpu" and self.backend in INTERPRETED_ON_CPU


@dataclass(frozen=True)
class Ceiling:
    """A way to drive one limit of the hardware as hard as it goes; the best one for a resource is its ceiling.

    ``resource`` is one of `RESOURCES`. ``amount`` is what one launch does, in that resource's unit.
    ``prepare(device)`` returns the launch and a check, to be called after it: None if the work was really done, else
    what was wrong. ``unavailable(device)`` is as for an implementation.
    """

    resource: str
    name: str
    backend: str
    amount: int
    prepare: Callable[[torch.device], tuple[Callable[[], object], Callable[[], str | None]]]
    unavailable: Callable[[torch.device], str | None] = always_available
    plugin: str = ""


RESOURCES: Mapping[str, str] = {
    "read": "B/s",
    "write": "B/s",
    "copy": "B/s",
    "bfloat16 matrix": "flop/s",
    "float16 matrix": "flop/s",
    "tf32 matrix": "flop/s",
    "int8 matrix": "op/s",
    "float32 matrix": "flop/s",
    "fma": "flop/s",
    "exp2": "calls/s",
    "wide multiply": "products/s",
    "philox": "words/s",
    "launch": "launches/s",
}
"""The limits of a device that the suite knows, and their units. ``copy`` counts bytes read and bytes written."""


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
class Estimate:
    """A number that an experiment measured, beside the exact one.

    It is held to ``exact`` within ``bound`` where that is given, or else by a z-test with its standard error
    ``stderr``. An experiment that has no exact answer leaves ``exact`` None: the number is told, not judged. What
    follows ``bound`` is the verdict, which the harness fills in; ``status`` stays None for what is not judged.
    """

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    claim: str
    measured: float
    stderr: float | None = None
    exact: float | None = None
    bound: float | None = None
    status: Status | None = None
    message: str = ""
    z: float | None = None
    p_value: float | None = None
    false_alarm: float | None = None


@dataclass(frozen=True)
class Curve:
    """Points of a plot. A curve that is ``exact``, or a formula, is drawn as a line, a measured one as symbols with
    bars of one ``stderr``."""

    __pydantic_config__ = ConfigDict(ser_json_inf_nan="strings")

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    stderr: tuple[float, ...] = ()
    exact: bool = False


@dataclass(frozen=True)
class Plot:
    """Curves that share their axes, whose titles carry the units."""

    title: str
    x_title: str
    y_title: str
    curves: tuple[Curve, ...]
    x_log: bool = False
    y_log: bool = False


@dataclass(frozen=True)
class Picture:
    """Rows of brightness, 0 (black) to 1 (white), from the top."""

    title: str
    rows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Findings:
    """What an experiment found out."""

    estimates: tuple[Estimate, ...]
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A question of statistical mechanics or learning that is put to the kernels as a whole.

    ``run(device, seed)`` computes on ``device``, from ``seed`` alone: in 10 seconds or so on a CPU of two cores, at
    full size on a GPU.
    """

    name: str
    summary: str
    source: str
    run: Callable[[torch.device, int], Findings]
    plugin: str = ""


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
class Asked:
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
    command: Asked | None = None
    standings: tuple[Standing, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.environment.get("gpu"), Mapping | None):
            raise ValueError("gpu of the environment is neither null nor an object")
