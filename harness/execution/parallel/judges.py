"""Judges samplers and runs experiments in worker processes: on a CPU several at once, each with one thread, otherwise
one on each device.

A crash or a hang fails only what is at work. Speeds are measured after all else, when nothing else runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter

import torch

from ...api.experiments import Experiment
from ...api.records import Claim, Outcome, Standing
from ...api.samplers import Sampler, Target
from ...discovery.registry import Registry
from ...validation.progress import AnnounceClaim, CurrentClaim
from ...validation.standing import make_standing
from ..child import Died
from ..worker import Workers
from .lanes import MOST_ON_A_CPU, Found, Going, Queue, share_out


class Judge:
    """Asks one worker at a time, and passes on the claims that it announces."""

    def __init__(
        self,
        device: torch.device,
        announce: AnnounceClaim,
        time_limit: float,
        registry: Registry,
        threads: int = 0,
    ) -> None:
        self.device = device
        self._announce, self._current = announce, CurrentClaim("start", 0.0)
        self.workers = Workers(device, self._note, time_limit, registry, worker_threads=threads)

    def _note(self, phase: str | CurrentClaim) -> None:
        if isinstance(phase, CurrentClaim):
            self._current = phase
            self._announce(phase)

    def standings(self, sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        """The standings of a sampler on a target, without speeds. If the worker dies, one with the claim under test."""
        self._current = CurrentClaim("start", target.temperatures[0])
        try:
            found = self.workers.standings(sampler, target, seed)
        except Died as lost:
            claim = self._unanswered(sampler, target, lost)
            found = [make_standing(sampler, target, claim.temperature, (claim,))]
        return [replace(row, device=str(self.device)) for row in found]

    def timed(self, found: Sequence[Standing], sampler: Sampler, target: Target, seed: int) -> list[Standing]:
        """These standings with speeds. If the worker dies, a claim of the one at work fails."""
        self._current = CurrentClaim("efficiency", found[0].temperature)
        try:
            timed = self.workers.timed(found, sampler, target, seed)
            return [
                replace(row, efficiency=replace(row.efficiency, device=str(self.device))) if row.efficiency else row
                for row in timed
            ]
        except Died as lost:
            claim = self._unanswered(sampler, target, lost)
            at_work = [row.temperature == claim.temperature for row in found]
            return [
                replace(row, claims=(*row.claims, claim)) if here else row
                for row, here in zip(found, at_work, strict=True)
            ]

    def _unanswered(self, sampler: Sampler, target: Target, lost: Died) -> Claim:
        at = self._current
        return Claim(sampler.name, target.name, at.temperature, at.claim, lost.status, str(lost))

    def outcome(self, experiment: Experiment, seed: int) -> Outcome:
        """The outcome of an experiment."""
        begun = perf_counter()
        try:
            found = self.workers.outcome(experiment, seed)
        except Died as lost:
            of = experiment.name, experiment.summary, experiment.source, experiment.plugin
            found = Outcome(*of, lost.status, str(lost), perf_counter() - begun)
        return replace(found, device=str(self.device))


def judges_at_once(device: torch.device) -> int:
    """As many as torch has threads on a CPU; one on a GPU."""
    return min(torch.get_num_threads(), MOST_ON_A_CPU) if device.type == "cpu" else 1


Job = Callable[[Judge], Callable[[], None]]
"""Asks a judge, and returns what keeps the answer."""


def ask_all(
    judges: Sequence[Judge], groups: Sequence[Sequence[Job]], lost: Callable[[Judge], None] = lambda judge: None
) -> None:
    """Give each group of jobs to the next free judge. Return when all answers are kept and all workers have ended.

    If a job raises, or Ctrl-C is pressed, the work ends there: later answers are not kept. ``lost`` is that of
    `share_out`.
    """

    def work(judge: Judge, group: Sequence[Job], going: Going, found: Found) -> None:
        for job in group:
            going.require()
            found(job(judge))

    try:
        share_out(judges, Queue(groups, len(judges)), work, lost)
    finally:
        for judge in judges:
            judge.workers.close()
