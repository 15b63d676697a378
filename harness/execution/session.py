"""What `check` and `bench` do with their steps: each is judged; what agrees is timed, the implementations of a case
taking turns. Ctrl-C passes through, and the records kept before it stand."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Protocol

import torch

from ..api.operations import Case, Cost, Status
from ..api.records import Measurement, Record
from .plan import Mode, Step
from .trial import Block, Failed, TrialProtocol

INTERPRETED = "interpreted on the CPU: correctness only"
"""Why a kernel that is interpreted or emulated has no time."""

BASELINES = ("torch", "torch_compile")
INCREDIBLE = 10.0
"""How many times faster than the best of the baselines a figure may be before it is suspect."""


class Display(Protocol):
    """Who shows how it goes."""

    def step(self, step: Step) -> None:
        """It is this step's turn."""

    def block(self, block: Block) -> None:
        """The step whose turn it is has taken samples."""

    def done(self) -> None:
        """One more step has its record."""


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
    """Judge each step; then time, in these modes, what agrees in a bench or real case. ``keep`` is given each record.

    ``share`` gives a measurement its share of the device's limits. The implementations of a case
    are sampled in turns, block by block, so that what drifts meanwhile (clocks, temperature) concerns all alike.
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
    """The records with a measurement in this mode added, or with the failure that came instead."""
    records = dict(trials)
    racing = [trial for trial, record in records.items() if record.status is Status.PASSED]

    def attempt(trial: TrialProtocol, act: Callable[[TrialProtocol], None]) -> bool:
        """False if the trial failed: its record is the failure's."""
        display.step(trial.step)
        try:
            act(trial)
        except Failed as failed:
            records[trial] = failed.record
            return False
        return True

    wanting: list[TrialProtocol] = []

    def take_block(trial: TrialProtocol) -> None:
        block = trial.take_block()
        display.block(block)
        if block.more:
            wanting.append(trial)

    measured: dict[TrialProtocol, Measurement] = {}

    def finish(trial: TrialProtocol) -> None:
        measurement = trial.finish()
        assert isinstance(trial.step.subject, Case)
        measured[trial] = share(measurement, trial.step.operation.cost(trial.step.subject))

    racing = [trial for trial in racing if attempt(trial, lambda trial: trial.start(mode))]
    turn = racing
    while turn:
        wanting = []
        racing = [trial for trial in racing if trial not in turn or attempt(trial, take_block)]
        turn = wanting
    for trial in racing:
        attempt(trial, finish)

    names = {trial: trial.step.implementation.name for trial in measured}
    best = min((measured[trial].median for trial, name in names.items() if name in BASELINES), default=0.0)
    for trial, measurement in measured.items():
        if names[trial] not in BASELINES and measurement.median * INCREDIBLE < best:
            words = f"{best / measurement.median:.0f} times as fast as the best of {' and '.join(BASELINES)}"
            measurement = replace(measurement, suspicions=(*measurement.suspicions, words))
        records[trial] = replace(records[trial], measurements=(*records[trial].measurements, measurement))
    return records
