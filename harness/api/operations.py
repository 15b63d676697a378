"""Operations, their cases and implementations, and verdicts on implementations.

These are plain frozen dataclasses: nothing here runs a kernel, reads a clock or writes a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

if TYPE_CHECKING:
    import torch
    from torch import Tensor


API_VERSION = 1
"""The version of the hooks and types in this room; a plugin states the version it was written for as
``BOLTZBENCH_API``.

The number changes when a hook or a field is removed, or means something else than before. It does not change for a new
hook, or for a new field with a default. A plugin written for another version is not loaded; a problem says so and names
both versions.
"""

PRESETS = ("smoke", "quick", "full")
"""Sizes of a benchmark run, smallest first. Each includes all smaller ones."""

INTERPRETED_ON_CPU = frozenset({"triton", "cupy"})
"""Backends that interpret or emulate their kernels for CPU tensors. There `check` tests them and `bench` never times
them."""

Inputs = Mapping[str, Any]
"""The arguments of an implementation: tensors and plain numbers by name. It must not change the tensors.

The values of tensors change between launches, and so do the numbers that `Operation.moving` names: a launch reads these
from the mapping that ``prepare`` was given."""

Tensors = Mapping[str, "Tensor"]
"""The results of an implementation: tensors by name."""

Launch = Callable[[], Tensors]
"""Runs the prepared work once and returns a dict. Every call must do all of the work."""

Advance = Callable[[Inputs], Tensors]
"""Prepares and runs one implementation on the given inputs. A `Law` tests its results."""


@dataclass(frozen=True)
class Case:
    """One input of an operation: sizes by name, the torch name of the dtype, and the seed of the data.

    ``scenario`` names what is special about the input ("outliers", "transposed"). ``purpose`` is ``check`` (agreement
    only), ``bench`` (agreement, then timing) or ``real`` (real-world data; agreement, then timing). ``preset`` is the
    smallest preset that includes the case.
    """

    operation: str
    sizes: Mapping[str, int]
    dtype: str
    scenario: str = ""
    seed: int = 0
    purpose: Literal["check", "bench", "real"] = "check"
    preset: Literal["smoke", "quick", "full"] = "smoke"

    @property
    def label(self) -> str:
        """The readable name, ``scenario size=value ... dtype``. Unique among the cases of an operation."""
        sizes = [f"{name}={value}" for name, value in self.sizes.items()]
        return " ".join([*([self.scenario] if self.scenario else []), *sizes, self.dtype])

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


class CaseOptions(TypedDict, total=False):
    """Fields of a `Case` for functions that make cases and pass them on: ``**options: Unpack[CaseOptions]``."""

    seed: int
    purpose: Literal["check", "bench", "real"]
    preset: Literal["smoke", "quick", "full"]


@dataclass(frozen=True)
class Cost:
    """The minimal work of a case. The harness derives every rate from it.

    ``items`` counts the units of useful work; ``unit`` names them ("rows", "unit updates", "parameters"). Bytes count
    each input once and each output once. ``flops`` counts all floating-point operations, a fused multiply-add as two.
    ``matrix_flops`` counts those in matrix products, with operands of the dtype ``matrix_dtype`` (its torch name).
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
    """The expected value of one output, and the largest error allowed for each element.

    Compute ``value`` in float64 from the inputs as rounded to the kernel's dtype, or in integers, which are compared
    exactly. ``bound`` is an absolute error, one number or one for each element. Where ``value`` is infinite or NaN the
    output must be the same.
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
    OUT_OF_MEMORY = "out_of_memory"
    ERROR = "error"
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Agreement:
    """The verdict with its evidence.

    ``error`` and ``bound`` are those of the element with the largest ratio of error to bound. For a law they are the
    test statistic and its critical value, and ``p_value`` is set. ``message`` says where and why.
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
    """An exact statement about an operation's results over many draws or calls, such as its invariant distribution.

    ``test(advance, device, seed)`` runs the implementation through ``advance`` and returns the verdict. ``statement``
    is one line for people. ``shared_stream`` says that the law holds only for draws from the suite's random stream;
    implementations with a stream of their own are not tested against it.
    """

    name: str
    statement: str
    test: Callable[[Advance, torch.device, int], Agreement]
    shared_stream: bool = False


@dataclass(frozen=True)
class Operation:
    """A computation, with everything needed to check and time any implementation of it.

    - ``make_inputs(case, device)`` draws the inputs from ``case.seed``.
    - ``make_outputs(inputs)`` allocates uninitialised outputs. An output with the name of an input is state that is
      advanced in place: it holds a copy of that input when a launch begins. The harness fills all others with poison.
    - ``reference(inputs, outputs)`` gives the expected value and the bound of each output. It may use ``outputs`` to
      condition a sampler's later draws on the implementation's own earlier ones.
    - ``cost(case)`` is the minimal work of the case.
    - ``parameters`` names the inputs whose values stay the same for many launches, such as couplings and temperatures.
      An implementation may prepare tables from them. Timing gives all other tensors new values before each launch.
    - ``moving`` names the numbers that move on from launch to launch, such as the step of a sampler, so that its random
      numbers cannot be drawn in advance. ``make_inputs`` derives them from ``case.seed``. An implementation reads them
      in each launch from the mapping that ``prepare`` was given.
    - ``laws`` are exact statements about the outputs as a whole.
    - ``judge_draws(inputs, outputs)`` tests the outputs of a sampler with its own random stream against the
      distribution of the draws, at a stated significance level. Without it no such implementation can be registered.
    - ``automatic(device)`` is a line for `list`: the backend that the operation's public function takes if the user
      names none, and why.
    - ``case`` makes a case of any sizes, for the option ``--sizes``: `case(rows=8, columns=64, dtype="float16")`. Its
      parameters are the axes, those without a default are required; `dtype` and `scenario` are no axes. It raises
      ValueError for sizes that do not exist; the message says which do. Its dtypes and scenarios are those of
      ``cases``.
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
    automatic: Callable[[torch.device], str] | None = None
    parameters: tuple[str, ...] = ()
    moving: tuple[str, ...] = ()
    case: Callable[..., Case] | None = None


class Unsupported(Exception):
    """``prepare`` raises this for a case that the implementation does not support. The message says why.

    The case then counts as ``unavailable``, with that reason.
    """


def always_available(device: torch.device) -> str | None:
    """The default of `Implementation.unavailable`: it runs wherever torch does."""
    return None


class Compiled(Protocol):
    """Machine code: the cubin ``elf`` contains the kernel ``symbol``, launched with ``dynamic_shared_bytes``."""

    @property
    def elf(self) -> bytes: ...
    @property
    def symbol(self) -> str: ...
    @property
    def dynamic_shared_bytes(self) -> int: ...


class Variant(Protocol):
    """A kernel compiled for one class of shapes. `inspect` reads its machine code without a GPU.

    - ``name`` is unique among the variants of an implementation.
    - ``threads`` is the number of threads in a block. Each handles ``items`` (named by ``unit``) in one iteration of
      the inner loop of the source, or in the whole kernel if it has no loop.
    - ``bytes_per_item`` is the memory traffic, read plus written.
    - ``access_bytes`` is the narrowest bulk load or store that the inner loop should contain; 0 for no requirement.
    - ``archs`` are the only architectures to compile for and launch on; empty for all.
    - ``compile(arch)`` compiles for an architecture such as "sm_90", and raises what the compiler raises.

    A variant may also have ``inner_passes``: the mean passes of loops inside the inner loop, where the data decide
    them. Without it they count once in predictions.
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

    - ``backend`` is ``torch``, ``triton``, ``cupy`` or another word of your choice.
    - ``prepare(inputs, outputs)`` does what need not be timed (checks, compilation, tables) and returns the launch. The
      launch writes to ``outputs``, or to tensors of its own, and returns them by name. The harness overwrites tensors
      of its own before the next launch. ``prepare`` raises `Unsupported` for a case that it does not support.
    - ``unavailable(device)`` returns the reason why the implementation cannot run on the device at all, or None.
    - ``own_stream`` says that a sampler draws from its own random stream instead of the suite's, other numbers in each
      launch. Then ``Operation.judge_draws`` tests its results, and not the element-wise reference.
    - ``variants()`` returns the kernels for `inspect`. It is called in a process that compiles Triton kernels
      (``TRITON_INTERPRET=0``) and has no GPU.
    - ``build()`` compiles what the first launch would compile, for `check` and `bench`, which call it for several
      implementations at once, in threads. What it raises is ignored: the launch will raise it again.
    - ``note`` is a line for `list`, such as which inputs take a slower path.
    - ``plugin`` is filled in by the registry.
    """

    operation: str
    name: str
    backend: str
    prepare: Callable[[Inputs, Tensors], Launch]
    unavailable: Callable[[torch.device], str | None] = always_available
    own_stream: bool = False
    variants: Callable[[], Sequence[Variant]] = no_variants
    note: str = ""
    build: Callable[[], object] | None = None
    plugin: str = ""

    def is_interpreted_on(self, device: torch.device) -> bool:
        """Whether the device interprets or emulates the kernel, so that its time says nothing about its speed."""
        return device.type == "cpu" and self.backend in INTERPRETED_ON_CPU
