"""Divides a plan into shards, each a run of its own: ``--shard 2/8``.

Every machine computes the same division from the plan alone: no machine knows what another has measured. Cases that are
compared with each other stay together. A unit of work goes to the shard that has the least to do with it, the longest
first (Graham 1969): the longest shard exceeds the mean by less than one unit.
"""

import hashlib
import json
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from ..api.experiments import Experiment
from ..api.messages import UsageError
from ..api.operations import Case
from ..api.records import Shard
from ..api.samplers import Sampler, Target
from ..execution.expected_seconds import expected_seconds
from ..execution.plan import Mode, Step

START_SECONDS = 4.0
"""For the first step of an operation in a shard: its processes start and its kernels are compiled."""
PAIR_SECONDS, EXPERIMENT_SECONDS = 2.0, 20.0
"""For a sampler on a target at one temperature, and for an experiment."""


@dataclass(frozen=True)
class Unit:
    """What one shard does as a whole, its expected seconds, and the group whose first unit in a shard costs a start."""

    work: tuple[Any, ...]
    seconds: float
    group: Hashable = None


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` as (2, 8). Raises UsageError."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of:
        raise UsageError(f"--shard takes the number of a shard and of all shards, such as 2/8: got {text!r}")
    return number, of


def steps_of_shard(
    steps: Sequence[Step], number: int, of: int, device_type: str, modes: Sequence[Mode] = ()
) -> tuple[list[Step], Shard]:
    """The steps of shard ``number`` of ``of``, in their order, and the description of the shard.

    ``modes`` are those that `bench` times in, none for `check`. The plan's hash covers them, the type of the device
    (``cpu``, ``cuda``) and what identifies each step, but no source: different software is for `merge` to say.
    """
    comparisons: dict[tuple[str, str, str], list[Step]] = {}
    for step in steps:
        comparisons.setdefault((step.operation.name, step.purpose, step.label), []).append(step)
    units = [
        Unit(tuple(own), sum(expected_seconds(step, device_type, modes) for step in own), own[0].operation.name)
        for own in comparisons.values()
    ]
    chosen = {id(step) for unit in divided(units, of)[number - 1] for step in unit.work}
    kept = [step for step in steps if id(step) in chosen]
    plan = _hash([device_type, *modes, *map(_identity, steps)])
    return kept, Shard(number, of, plan, len(kept))


def pairs_of_shard(
    pairs: Sequence[tuple[Sampler, Target]], experiments: Sequence[Experiment], number: int, of: int, seed: int
) -> tuple[list[tuple[Sampler, Target]], list[Experiment], Shard]:
    """The same of what `validate` does: samplers are compared on one target."""
    targets: dict[str, list[tuple[Sampler, Target]]] = {}
    for pair in pairs:
        targets.setdefault(pair[1].name, []).append(pair)
    units = [
        Unit(tuple((sampler.name, name) for sampler, _ in own), PAIR_SECONDS * sum(len(t.temperatures) for _, t in own))
        for name, own in targets.items()
    ]
    units += [Unit((each.name,), EXPERIMENT_SECONDS) for each in experiments]
    chosen = {name for unit in divided(units, of)[number - 1] for name in unit.work}
    plan = _hash([seed, *((sampler.name, target.name) for sampler, target in pairs), *(e.name for e in experiments)])
    return (
        [pair for pair in pairs if (pair[0].name, pair[1].name) in chosen],
        [each for each in experiments if each.name in chosen],
        Shard(number, of, plan),
    )


def divided(units: Sequence[Unit], of: int) -> list[list[Unit]]:
    """The units of each shard, the longest first."""
    shards: list[list[Unit]] = [[] for _ in range(of)]
    seconds, groups = [0.0] * of, [set[Hashable]() for _ in range(of)]
    for unit in sorted(units, key=lambda unit: -unit.seconds):  # stable: equally long ones keep their order

        def then(shard: int, unit: Unit = unit) -> float:
            begins = unit.group is not None and unit.group not in groups[shard]
            return seconds[shard] + unit.seconds + START_SECONDS * begins

        least = min(range(of), key=then)
        seconds[least] = then(least)
        shards[least].append(unit)
        groups[least].add(unit.group)
    return shards


def _identity(step: Step) -> list[Any]:
    case = step.subject
    of_case = [sorted(case.sizes.items()), case.dtype] if isinstance(case, Case) else []
    return [step.operation.name, step.implementation.name, step.purpose, step.label, step.seed, *of_case]


def _hash(plan: list[Any]) -> str:
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()[:16]
