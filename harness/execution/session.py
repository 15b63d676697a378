"""Runs the steps of `check` and `bench`: checks each one, then times those that agree, the implementations of a case in
turn. Ctrl-C passes through; records passed to ``keep`` before it are not lost."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Protocol

import torch

from ..api.operations import Agreement, Case, Cost, Status
from ..api.records import Control, Measurement, Record
from ..results.environment import is_exclusive
from ..results.precision import make_control
from .plan import Mode, Step
from .trial import Block, TrialFailed, TrialProtocol, record_of

INTERPRETED = "interpreted on the CPU: correctness only"
"""Why an interpreted or emulated kernel has no measurement. At the sizes of ``bench`` cases it would take minutes, and
``check`` has cases of its own for it."""

BASELINES = ("torch", "torch_compile")
INCREDIBLE = 10.0
"""A figure this many times faster than the best baseline is suspicious, unless it lies within a measured limit."""


class Display(Protocol):
    """Progress display."""

    def step(self, step: Step) -> None:
        """The work on this step begins or continues."""

    def block(self, block: Block) -> None:
        """The present step has taken samples."""

    def done(self) -> None:
        """One more step is finished."""


def carry_out(
    steps: Sequence[Step],
    device: torch.device,
    trial_of: Callable[[Step], TrialProtocol],
    *,
    draws: int,
    modes: Collection[Mode],
    share: Callable[[Measurement, Cost], Measurement],
    keep: Callable[[Record], None],
    display: Display,
    keep_control: Callable[[Control], None] | None = None,
    controlled: Collection[str] = (),
) -> None:
    """Check each step, then time in these ``modes`` those that agree in a bench or real case. Kernels that would be
    interpreted are left out of bench cases that are to be timed.

    Calls ``keep`` with each finished record. ``share`` adds the roofline share to a measurement. The implementations of
    a case are sampled in turn, block by block, so that drift of clocks and temperature affects all alike. Only on a
    device in compute mode Exclusive_Process, which admits one process at a time, are they timed one after another. A
    trial that runs out of device memory is repeated once, with no other trial on the device.

    If ``keep_control`` is given, the first implementation in the first case of each operation that is timed is timed
    twice in the first mode, in turn with itself and the others. Operations in ``controlled`` have such a control
    already.
    """
    lacking = {step.operation.name for step in steps}.difference(controlled) if keep_control else set()

    def finish(record: Record) -> None:
        keep(replace(record, device=str(device)))
        display.done()

    for _, group in groupby(steps, key=lambda step: (step.operation.name, step.purpose, step.label)):
        timed: dict[TrialProtocol, Record] = {}
        for step in group:
            display.step(step)
            if modes and step.purpose == "bench" and step.implementation.is_interpreted_on(device):
                finish(record_of(step, Agreement(Status.UNAVAILABLE, INTERPRETED)))
                continue
            trial = trial_of(step)
            record = trial.judge(draws)
            if record.status is Status.OUT_OF_MEMORY:
                trial.be_alone()
                record = _tried_alone(trial.judge(draws))
            if not (modes and record.status is Status.PASSED and step.purpose in ("bench", "real")):
                finish(record)
            elif step.implementation.is_interpreted_on(device):
                finish(replace(record, untimed=INTERPRETED))
            else:
                timed[trial] = record
        for mode in modes:
            of = next(iter(timed), None)
            if of and keep_control and of.step.operation.name in lacking:
                lacking.remove(of.step.operation.name)
                again = trial_of(replace(of.step, again=True))
                timed = _time({**timed, again: timed[of]}, mode, not is_exclusive(device), share, display)
                keep_control(_control(timed[of], timed.pop(again), mode))
            else:
                timed = _time(timed, mode, not is_exclusive(device), share, display)
        for record in timed.values():
            finish(record)


def _control(first: Record, again: Record, mode: Mode) -> Control:
    """The control of two timings of the same code in one mode."""
    for record in (first, again):
        if record.status is not Status.PASSED:
            of = record.operation, record.implementation, record.case, mode
            return Control(*of, message=f"{record.status}: {record.message}")
    (one,), (other,) = ([each for each in record.measurements if each.mode == mode] for record in (first, again))
    return make_control(first, one, other)


def _tried_alone(record: Record) -> Record:
    if record.status is not Status.OUT_OF_MEMORY:
        return record
    return replace(record, message=f"the device has too little memory even for this trial alone: {record.message}")


def _time(
    trials: Mapping[TrialProtocol, Record],
    mode: Mode,
    in_turns: bool,
    share: Callable[[Measurement, Cost], Measurement],
    display: Display,
) -> dict[TrialProtocol, Record]:
    """The records with a measurement in this mode added, or the records of failures.

    Trials that run out of memory beside others are repeated one by one. If not ``in_turns``, all run one by one.
    """
    records = dict(trials)
    running = [trial for trial, record in records.items() if record.status is Status.PASSED]
    measured: dict[TrialProtocol, Measurement] = {}

    def time_together(some: Collection[TrialProtocol]) -> list[TrialProtocol]:
        """Time these trials in turns. Returns those that ran out of memory."""
        found = _time_in_turns(some, mode, display)
        for trial, result in found.items():
            if isinstance(result, Measurement):
                assert isinstance(trial.step.subject, Case)
                measured[trial] = share(result, trial.step.operation.cost(trial.step.subject))
            else:
                records[trial] = result
        return [trial for trial in found if trial not in measured and records[trial].status is Status.OUT_OF_MEMORY]

    together = [running] if in_turns else [[trial] for trial in running]
    for trial in [each for batch in together for each in time_together(batch)]:
        trial.be_alone()
        if time_together([trial]):
            records[trial] = _tried_alone(records[trial])

    names = {trial: trial.step.implementation.name for trial in measured}
    best = min((measured[trial].median for trial, name in names.items() if name in BASELINES), default=0.0)
    for trial, measurement in measured.items():
        within_limit = measurement.roofline_share is not None and measurement.roofline_share <= 1
        if names[trial] not in BASELINES and measurement.median * INCREDIBLE < best and not within_limit:
            words = f"{best / measurement.median:.0f} times as fast as the best of {' and '.join(BASELINES)}"
            measurement = replace(measurement, suspicions=(*measurement.suspicions, words))
        records[trial] = replace(trials[trial], measurements=(*trials[trial].measurements, measurement))
    return records


def _time_in_turns(
    trials: Collection[TrialProtocol], mode: Mode, display: Display
) -> dict[TrialProtocol, Record | Measurement]:
    """The measurement of each trial, or the record of its failure. The trials take blocks in turn."""
    results: dict[TrialProtocol, Record | Measurement] = {}

    def attempt(trial: TrialProtocol, act: Callable[[TrialProtocol], None]) -> bool:
        """Whether ``act`` succeeded. Otherwise the trial's result is the record of the failure."""
        display.step(trial.step)
        try:
            act(trial)
        except TrialFailed as failed:
            results[trial] = failed.record
            return False
        return True

    unfinished: list[TrialProtocol] = []

    def take_block(trial: TrialProtocol) -> None:
        block = trial.take_block()
        display.block(block)
        if block.more:
            unfinished.append(trial)

    def finish(trial: TrialProtocol) -> None:
        results[trial] = trial.finish()

    running = [trial for trial in trials if attempt(trial, lambda trial: trial.start(mode))]
    turn = running
    while turn:
        unfinished = []
        running = [trial for trial in running if trial not in turn or attempt(trial, take_block)]
        turn = unfinished
    for trial in running:
        attempt(trial, finish)
    return results
