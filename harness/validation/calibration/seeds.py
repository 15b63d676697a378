"""What right samplers and experiments show over many seeds: alarms of samplers, and z-scores of estimators."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from time import process_time
from typing import NamedTuple

import numpy as np
import torch

from ...api.experiments import Experiment
from ...api.operations import Status
from ...api.samplers import Sampler, Target
from ..experiments import conduct
from ..failures import failures_in_words
from ..judge import validate

CHAINS = 4000
"""For each target and seed: fewer than in `validate`, at the same level."""
MOST_MEAN = 0.35
SPREAD = 0.8, 1.25
"""Of z-scores over 60 seeds the mean has a standard error of 0.13 and the standard deviation one of 0.09."""


class Alarms(NamedTuple):
    """A sampler, its targets, its claims over all seeds, the first lines about those that failed, and the CPU time."""

    sampler: str
    targets: int
    claims: int
    failed: list[str]
    seconds: float


class Scores(NamedTuple):
    """An estimator of an experiment, and the mean and standard deviation of its z-scores over ``seeds`` seeds."""

    experiment: str
    estimator: str
    seeds: int
    mean: float
    spread: float

    @property
    def off(self) -> bool:
        return not (abs(self.mean) <= MOST_MEAN and SPREAD[0] <= self.spread <= SPREAD[1])


def alarms(
    pairs: Iterable[tuple[Sampler, Target]], seeds: Sequence[int], device: torch.device, chains: int = CHAINS
) -> Iterator[Alarms]:
    """`validate` each pair with each of ``seeds``; ``pairs`` are in the order of their samplers."""
    for sampler, own in groupby(pairs, key=lambda pair: pair[0]):
        since, targets = process_time(), [target for _, target in own]
        claims = [
            claim
            for target in targets
            for seed in seeds
            for claim in validate(sampler, target, device, seed, chains=chains)
        ]
        failed = [each for each in claims if each.status not in (Status.PASSED, Status.UNAVAILABLE)]
        yield Alarms(sampler.name, len(targets), len(claims), failures_in_words(failed), process_time() - since)


def z_scores(experiments: Iterable[Experiment], seeds: Sequence[int], device: torch.device) -> Iterator[Scores]:
    """For each estimate with an exact value and a standard error. Raises RuntimeError if an experiment fails to run."""
    for experiment in experiments:
        scores: dict[str, list[float]] = {}
        for seed in seeds:
            outcome = conduct(experiment, device, seed)
            if outcome.findings is None:
                raise RuntimeError(f"experiment {experiment.name}, seed {seed}: {outcome.message}")
            for each in outcome.findings.estimates:
                if each.z is not None:
                    scores.setdefault(each.claim, []).append(each.z)
            if not scores:
                break  # none of its estimates has both
        for claim, own in scores.items():
            yield Scores(experiment.name, claim, len(own), float(np.mean(own)), float(np.std(own, ddof=1)))
