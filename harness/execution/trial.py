"""One step while it is carried out: judged, then timed block by block.

A `Trial` works in this process. A worker runs one for its parent, which asks the same of it (`worker.RemoteTrial`).
It never raises for what a plugin's code does but `Failed`, which carries the record of the failure.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ..agreement.agreement import check_case, check_law
from ..api.messages import describe_error
from ..api.operations import Agreement, Case, Implementation, Inputs, Launch, Law, Status, Tensors
from ..api.records import Measurement, Record
from ..results.source_hash import source_hash
from ..timing.launch_audit import AgreementLost
from ..timing.stopwatch import Stopwatch
from .plan import Mode, Step

Announce = Callable[[str], None]
"""Is told the phase that begins: ``compile``, ``check``, ``warm-up`` or ``sampling``."""


class Failed(Exception):
    """A step came to an end with ``record``, whose status is not ``passed``."""

    def __init__(self, record: Record) -> None:
        super().__init__(record)
        self.record = record


@dataclass(frozen=True)
class Block:
    """How the sampling of a trial stands after a block: whether more is wanted, samples so far, and their noise."""

    more: bool
    samples: int
    noise: float


class TrialProtocol(Protocol):
    """What can be asked of a trial, in this order: ``judge``; then for each mode ``start``, ``take_block`` until no
    more is wanted, ``finish``. All but ``judge`` raise `Failed`."""

    step: Step

    def judge(self, draws: int) -> Record: ...
    def start(self, mode: Mode) -> None: ...
    def take_block(self) -> Block: ...
    def finish(self) -> Measurement: ...


class Trial:
    """A step carried out in this process. ``announce`` is told each phase."""

    def __init__(self, step: Step, device: torch.device, announce: Announce = lambda phase: None) -> None:
        self.step = step
        self._device = device
        self._announce = announce
        self._stopwatch: Stopwatch | None = None

    def judge(self, draws: int) -> Record:
        """The verdict. The data of a case is drawn ``draws`` times, from consecutive seeds; a law is tested once.

        Where a kernel is interpreted, which takes minutes for the whole suite, the data is drawn once.
        """
        step = self.step
        self._announce("check")
        try:
            reason = step.implementation.unavailable(self._device)
        except (Exception, SystemExit) as error:
            return record_of(step, Agreement(Status.ERROR, f"unavailable() raised {describe_error(error)}"))
        if reason is not None:
            return record_of(step, Agreement(Status.UNAVAILABLE, str(reason)))
        implementation = _announcing(step.implementation, self._announce)
        try:
            if isinstance(step.subject, Law):
                verdict = check_law(implementation, step.operation, step.subject, self._device, step.seed)
            else:
                draws = 1 if implementation.is_interpreted_on(self._device) else draws
                seeds = range(step.seed, step.seed + draws)
                verdict = check_case(step.operation, implementation, step.subject, self._device, seeds)
        except (Exception, SystemExit) as error:  # the operation's: the check answers for the implementation's own
            message = f"the check of operation {step.operation.name} itself raised {describe_error(error)}"
            verdict = Agreement(Status.ERROR, message)
        return record_of(step, verdict)

    def start(self, mode: Mode) -> None:
        """Prepares and warms up."""
        step = self.step
        assert isinstance(step.subject, Case), "a law is not timed"
        with self._failing():
            self._announce("compile")
            case = replace(step.subject, seed=step.seed)
            self._stopwatch = Stopwatch(step.operation, step.implementation, case, self._device, mode=mode)
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
        self._stopwatch = None  # and with it the memory of the case
        return measurement

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except AgreementLost as lost:
            self._stopwatch = None
            raise Failed(record_of(self.step, replace(lost.agreement, message=str(lost)))) from lost
        except (Exception, SystemExit) as error:
            self._stopwatch = None
            message = f"agrees, but timing it raised {describe_error(error)}"
            raise Failed(record_of(self.step, Agreement(Status.ERROR, message))) from error


def record_of(step: Step, agreement: Agreement) -> Record:
    """The record of a step that came out like this. Nothing is measured yet."""
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
    """The hash of the source of the implementation and of the data it is tried on."""
    return source_hash(step.implementation.prepare, step.operation.make_inputs)


def _announcing(implementation: Implementation, announce: Announce) -> Implementation:
    """The same, telling when it compiles: from ``prepare`` until its first launch has returned."""

    def prepare(inputs: Inputs, outputs: Tensors) -> Launch:
        announce("compile")
        launch: Any = implementation.prepare(inputs, outputs)
        if not callable(launch):  # which the check words better than a call would
            return launch  # type: ignore[no-any-return]
        compiled = False

        def launch_and_tell() -> Tensors:
            nonlocal compiled
            result: Tensors = launch()
            if not compiled:
                announce("check")
                compiled = True
            return result

        return launch_and_tell

    return replace(implementation, prepare=prepare)
