"""Runs one step: checks it, then times it block by block.

A `Trial` runs in this process; a `worker.RemoteTrial` has the same methods and runs one in a worker. Whatever a
plugin's code raises becomes a record, or a `TrialFailed` with the record.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ..agreement.agreement import Rejected, check_case, check_law
from ..agreement.device_memory import free_caches, is_out_of_memory
from ..agreement.guarded_memory import Allocate, private_memory
from ..api.messages import describe_error
from ..api.operations import Agreement, Case, Implementation, Inputs, Launch, Law, Status, Tensors
from ..api.records import Measurement, Record
from ..results.source_hash import source_hash
from ..timing.launch_audit import FailedWhileTimed, JudgeElsewhere
from ..timing.stopwatch import Stopwatch, TimingProtocol
from .plan import Mode, Step

AnnouncePhase = Callable[[str], None]
"""Called with the phase that begins: ``compile``, ``check``, ``warm-up`` or ``sampling``; from outside of a trial also
``start``, ``limits`` or ``harness``."""


class TrialFailed(Exception):
    """A step ended with a ``record`` of a status other than ``passed``."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


@dataclass(frozen=True)
class Block:
    """The progress of a trial after a block: whether it needs more, the number of samples so far, and their noise."""

    more: bool
    samples: int
    noise: float


class TrialProtocol(Protocol):
    """The methods of a trial. Call ``judge``, then for each mode ``start``, ``take_block`` until the block says that no
    more are needed, and ``finish``. All but ``judge`` and ``be_alone`` raise `TrialFailed`.

    ``be_alone`` frees the device's memory for this trial: it ends all trials that are under way. Then call ``judge`` or
    ``start``."""

    step: Step

    def be_alone(self) -> None: ...
    def judge(self, draws: int) -> Record: ...
    def start(self, mode: Mode) -> None: ...
    def take_block(self) -> Block: ...
    def finish(self) -> Measurement: ...


class Trial:
    """Runs a step in this process. Calls ``announce`` with each phase."""

    def __init__(
        self,
        step: Step,
        device: torch.device,
        announce: AnnouncePhase = lambda phase: None,
        allocate: Allocate = private_memory,
        judge_elsewhere: JudgeElsewhere | None = None,
        protocol: TimingProtocol | None = None,
    ) -> None:
        self.step = step
        self._device = device
        self._announce = announce
        self._allocate = allocate
        self._judge_elsewhere = judge_elsewhere
        self._protocol = protocol
        self._stopwatch: Stopwatch | None = None

    def be_alone(self) -> None:
        self._stopwatch = None
        gc.collect()  # a failed trial's error may hold tensors
        free_caches()

    def judge(self, draws: int) -> Record:
        """The record with the verdict. Draws the data of a case from ``draws`` consecutive seeds; tests a law once.

        Uses one seed for an interpreted kernel, since interpretation takes minutes for the whole suite.
        """
        return record_of(self.step, self.verdict(draws))

    def verdict(self, draws: int) -> Agreement:
        """What `judge` puts into the record."""
        step = self.step
        self._announce("check")
        try:
            reason = step.implementation.unavailable(self._device)
        except Rejected as rejected:  # it runs in another process
            return rejected.agreement
        except (Exception, SystemExit) as error:
            return Agreement(Status.ERROR, f"unavailable() raised {describe_error(error)}")
        if reason is not None:
            return Agreement(Status.UNAVAILABLE, str(reason))
        implementation = _announcing(step.implementation, self._announce)
        try:
            if isinstance(step.subject, Law):
                of = implementation, step.operation, step.subject
                verdict = check_law(*of, self._device, step.seed, self._allocate)
            else:
                draws = 1 if implementation.is_interpreted_on(self._device) else draws
                seeds = range(step.seed, step.seed + draws)
                verdict = check_case(step.operation, implementation, step.subject, self._device, seeds, self._allocate)
        except (Exception, SystemExit) as error:  # the operation's: the check handles the implementation's
            message = f"the check of operation {step.operation.name} itself raised {describe_error(error)}"
            verdict = Agreement(_status_of(error), message)
        return verdict

    def start(self, mode: Mode) -> None:
        """Prepare and warm up."""
        step = self.step
        assert isinstance(step.subject, Case), "a law is not timed"
        with self._failing():
            self._announce("compile")
            case = replace(step.subject, seed=step.seed)
            given = step.operation, step.implementation, case, self._device
            self._stopwatch = Stopwatch(*given, mode=mode, protocol=self._protocol, judge=self._judge_elsewhere)
            self._announce("warm-up")
            self._stopwatch.warm_up()

    def take_block(self) -> Block:
        assert self._stopwatch is not None, "not started"
        with self._failing():
            self._announce("sampling")
            more = self._stopwatch.take_block()
            return Block(more, len(self._stopwatch.samples), self._stopwatch.noise)

    def finish(self) -> Measurement:
        assert self._stopwatch is not None, "not started"
        with self._failing():
            self._announce("check")
            measurement = self._stopwatch.finish()
        self._stopwatch = None  # frees the memory of the case
        return measurement

    def break_off(self, reason: str) -> Measurement:
        """The measurement from the samples so far, after an interruption for this reason."""
        assert self._stopwatch is not None, "not started"
        measurement, self._stopwatch = self._stopwatch.break_off(reason), None
        return measurement

    @property
    def is_exhausted(self) -> bool:
        """Whether the time or the number of samples allows no further block."""
        return self._stopwatch is not None and self._stopwatch.is_exhausted

    @property
    def samples(self) -> Sequence[float]:
        """The samples so far."""
        return () if self._stopwatch is None else self._stopwatch.samples

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except FailedWhileTimed as failure:
            self._stopwatch = None
            raise TrialFailed(record_of(self.step, replace(failure.agreement, message=str(failure)))) from failure
        except (Exception, SystemExit) as error:
            self._stopwatch = None
            message = f"agrees, but timing it raised {describe_error(error)}"
            raise TrialFailed(record_of(self.step, Agreement(_status_of(error), message))) from error


def _status_of(error: BaseException) -> Status:
    return Status.OUT_OF_MEMORY if is_out_of_memory(error) else Status.ERROR


def record_of(step: Step, agreement: Agreement) -> Record:
    """The record of a step with this verdict and no measurements."""
    case = step.subject if isinstance(step.subject, Case) else None
    return Record(
        operation=step.operation.name,
        implementation=step.implementation.name,
        backend=step.implementation.backend,
        plugin=step.implementation.plugin,
        case=step.label,
        purpose=step.purpose,
        status=agreement.status,
        message=agreement.message,
        error=agreement.error,
        bound=agreement.bound,
        p_value=agreement.p_value,
        sizes=dict(case.sizes) if case else {},
        dtype=case.dtype if case else "",
        seed=step.seed,
        source_hash=sources_of(step),
    )


def sources_of(step: Step) -> str:
    """The hash of the source of the implementation and of `make_inputs`."""
    return source_hash(step.implementation.prepare, step.operation.make_inputs)


def _announcing(implementation: Implementation, announce: AnnouncePhase) -> Implementation:
    """The implementation with calls of ``announce``: it compiles from ``prepare`` until the first launch returns."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        announce("compile")
        launch: Any = implementation.prepare(inputs, outputs)
        if not callable(launch):  # the check reports this better than a failed call would
            return launch  # type: ignore[no-any-return]
        compiled = False

        def launch_and_announce() -> Tensors:
            nonlocal compiled
            result: Tensors = launch()
            if not compiled:
                announce("check")
                compiled = True
            return result

        return launch_and_announce

    return replace(implementation, prepare=prepare)
