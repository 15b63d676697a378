"""What `check` and `bench` do with their steps: each is judged; what agrees is timed, the implementations of a case
taking turns. Ctrl-C passes through, and the records kept before it stand."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Protocol

import torch

from .ceilings import with_share
from .plan import Mode, Step
from .trial import Block, Failed, Trying
from .types import Case, Measurement, Record, Status

INTERPRETED = "interpreted on the CPU: correctness only"
"""Why a kernel that is interpreted or emulated has no time."""

INCREDIBLE = 10.0
"""How many times faster than the best torch implementation a figure may be before it is suspect."""


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
    trial_of: Callable[[Step], Trying],
    *,
    draws: int,
    modes: Collection[Mode],
    rates: Mapping[str, float],
    keep: Callable[[Record], None],
    display: Display,
) -> None:
    """Judge each step; then time, in these modes, what agrees in a bench or real case. ``keep`` is given each record.

    ``rates`` are the ceilings of the device, of which each measurement gets its share. The implementations of a case
    are sampled in turns, block by block, so that what drifts meanwhile (clocks, temperature) concerns all alike.
    """
    for _, group in groupby(steps, key=lambda step: (step.operation.name, step.purpose, step.label)):
        timed: dict[Trying, Record] = {}
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
            timed = _time_in_turns(timed, mode, rates, display)
        for record in timed.values():
            keep(record)
            display.done()


def _time_in_turns(
    trials: Mapping[Trying, Record], mode: Mode, rates: Mapping[str, float], display: Display
) -> dict[Trying, Record]:
    """The records with a measurement in this mode added, or with the failure that came instead."""
    records = dict(trials)
    racing = [trial for trial, record in records.items() if record.status is Status.PASSED]

    def attempt(trial: Trying, act: Callable[[Trying], None]) -> bool:
        """False if the trial failed: its record is the failure's."""
        display.step(trial.step)
        try:
            act(trial)
        except Failed as failed:
            records[trial] = failed.record
            return False
        return True

    wanting: list[Trying] = []

    def take_block(trial: Trying) -> None:
        block = trial.take_block()
        display.block(block)
        if block.more:
            wanting.append(trial)

    measured: dict[Trying, Measurement] = {}

    def finish(trial: Trying) -> None:
        measurement = trial.finish()
        assert isinstance(trial.step.subject, Case)
        measured[trial] = with_share(measurement, trial.step.operation.cost(trial.step.subject), rates)

    racing = [trial for trial in racing if attempt(trial, lambda trial: trial.start(mode))]
    turn = racing
    while turn:
        wanting = []
        racing = [trial for trial in racing if trial not in turn or attempt(trial, take_block)]
        turn = wanting
    for trial in racing:
        attempt(trial, finish)

    baselines = [m.median for trial, m in measured.items() if trial.step.implementation.backend == "torch"]
    for trial, measurement in measured.items():
        if baselines and measurement.median * INCREDIBLE < min(baselines):
            factor = min(baselines) / measurement.median
            words = f"{factor:.0f} times as fast as the best torch implementation"
            measurement = replace(measurement, suspicions=(*measurement.suspicions, words))
        records[trial] = replace(records[trial], measurements=(*records[trial].measurements, measurement))
    return records
