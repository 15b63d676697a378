"""Runs the steps of `check` and `bench`: checks each one, then times those that agree, the implementations of a case in
turn. Ctrl-C passes through; records passed to ``keep`` before it are not lost."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Protocol

import torch

from ..api.operations import Case, Cost, Status
from ..api.records import Measurement, Record
from .plan import Mode, Step
from .trial import Block, TrialFailed, TrialProtocol

INTERPRETED = "interpreted on the CPU: correctness only"
"""Why an interpreted or emulated kernel has no measurement."""

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
) -> None:
    """Check each step, then time in these ``modes`` those that agree in a bench or real case.

    Calls ``keep`` with each finished record. ``share`` adds the roofline share to a measurement. The implementations of
    a case are sampled in turn, block by block, so that drift of clocks and temperature affects all alike.
    """
    for _, group in groupby(steps, key=lambda step: (step.operation.name, step.purpose, step.label)):
        timed: dict[TrialProtocol, Record] = {}
        for step in group:
            display.step(step)
            trial = trial_of(step)
            record = trial.judge(draws)
            if not (modes and record.status is Status.PASSED and step.purpose in ("bench", "real")):
                keep(record)
                display.done()
            elif step.implementation.is_interpreted_on(device):
                keep(replace(record, untimed=INTERPRETED))
                display.done()
            else:
                timed[trial] = record
        for mode in modes:
            timed = _time_in_turns(timed, mode, share, display)
        for record in timed.values():
            keep(record)
            display.done()


def _time_in_turns(
    trials: Mapping[TrialProtocol, Record],
    mode: Mode,
    share: Callable[[Measurement, Cost], Measurement],
    display: Display,
) -> dict[TrialProtocol, Record]:
    """The records with a measurement in this mode added, or the records of failures."""
    records = dict(trials)
    running = [trial for trial, record in records.items() if record.status is Status.PASSED]

    def attempt(trial: TrialProtocol, act: Callable[[TrialProtocol], None]) -> bool:
        """Whether ``act`` succeeded. Otherwise the trial's record becomes that of the failure."""
        display.step(trial.step)
        try:
            act(trial)
        except TrialFailed as failed:
            records[trial] = failed.record
            return False
        return True

    unfinished: list[TrialProtocol] = []

    def take_block(trial: TrialProtocol) -> None:
        block = trial.take_block()
        display.block(block)
        if block.more:
            unfinished.append(trial)

    measured: dict[TrialProtocol, Measurement] = {}

    def finish(trial: TrialProtocol) -> None:
        measurement = trial.finish()
        assert isinstance(trial.step.subject, Case)
        measured[trial] = share(measurement, trial.step.operation.cost(trial.step.subject))

    running = [trial for trial in running if attempt(trial, lambda trial: trial.start(mode))]
    turn = running
    while turn:
        unfinished = []
        running = [trial for trial in running if trial not in turn or attempt(trial, take_block)]
        turn = unfinished
    for trial in running:
        attempt(trial, finish)

    names = {trial: trial.step.implementation.name for trial in measured}
    best = min((measured[trial].median for trial, name in names.items() if name in BASELINES), default=0.0)
    for trial, measurement in measured.items():
        within_limit = measurement.roofline_share is not None and measurement.roofline_share <= 1
        if names[trial] not in BASELINES and measurement.median * INCREDIBLE < best and not within_limit:
            words = f"{best / measurement.median:.0f} times as fast as the best of {' and '.join(BASELINES)}"
            measurement = replace(measurement, suspicions=(*measurement.suspicions, words))
        records[trial] = replace(records[trial], measurements=(*records[trial].measurements, measurement))
    return records
