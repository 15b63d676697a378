"""Operations, their cases and implementations, and the verdict on an implementation.

Plain frozen dataclasses: nothing here runs a kernel, reads a clock or writes a file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol, TypedDict

import torch
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

    ``scenario`` names what is special about the input ("outliers", "transposed"). ``purpose`` is ``check`` (agreement
    only), ``bench`` (agreement, then throughput) or ``real`` (data of the world; agreement, then throughput).
    ``preset`` is the smallest preset that times the case.
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
        """What people read: ``scenario size=value ... dtype``. Unique among the cases of an operation."""
        sizes = [f"{name}={value}" for name, value in self.sizes.items()]
        return " ".join([*([self.scenario] if self.scenario else []), *sizes, self.dtype])

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


class CaseOptions(TypedDict, total=False):
    """Fields of a `Case` that a function which makes cases passes on: ``**options: Unpack[CaseOptions]``."""

    seed: int
    purpose: Literal["check", "bench", "real"]
    preset: Literal["smoke", "quick", "full"]


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
