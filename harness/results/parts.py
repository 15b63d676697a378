"""The parts of a merged run, which may come from different devices."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, compress
from typing import Any, TypeVar

from ..api.records import Part, Run
from .environment import device_name

OWN = ("records", "controls", "standings", "outcomes", "left_out")
"""What a run has of its own, and a part the number of."""

T = TypeVar("T")


def as_parts(file: str, run: Run, records: int) -> tuple[Part, ...]:
    """The parts of a run, or the one that it becomes in a merged run; ``records`` is the number of its records."""
    if run.parts:
        return run.parts
    numbers = records, len(run.controls), len(run.standings), len(run.outcomes), len(run.left_out)
    own = run.ceilings, run.overheads, run.seconds, run.started, run.shard, run.devices
    return (Part(file, run.status, run.environment, *own, *numbers),)


def folded(run: Run, parts: Sequence[Part]) -> Run:
    """The run with these parts and what follows from them.

    Its environment is that of the first, with ``dirty`` if any is; so are its limits and overheads, where the first
    has them. Seconds are added up. It is complete if all parts are, and started with the earliest. ``devices`` stay
    with the parts, since two machines may name theirs alike.
    """
    first = parts[0].environment
    environment = {**first, "dirty": True} if any(each.environment.get("dirty") for each in parts) else first
    seconds: dict[str, float] = {}
    for each in parts:
        for phase, more in each.seconds.items():
            seconds[phase] = seconds.get(phase, 0.0) + more
    return replace(
        run,
        status="complete" if all(each.status == "complete" for each in parts) else "incomplete",
        environment=environment,
        ceilings={name: rate for each in reversed(parts) for name, rate in each.ceilings.items()},
        overheads={name: cost for each in reversed(parts) for name, cost in each.overheads.items()},
        seconds=seconds,
        started=min((each.started for each in parts if each.started), default=""),
        parts=tuple(parts),
    )


def by_device(run: Run, records: Sequence[T]) -> list[tuple[Run, Sequence[T]]]:
    """A run for each kind of device in a merged run, with its records, or what was made of them; else the run itself.

    Kinds are those of `device_name`: only times of one kind are comparable.
    """
    kinds = [device_name(part.environment) for part in run.parts]
    if len({*kinds}) < 2:
        return [(run, records)]
    found: list[tuple[Run, Sequence[T]]] = []
    for kind in dict.fromkeys(kinds):
        chosen = [each == kind for each in kinds]
        fields: dict[str, Any] = {name: tuple(_of_parts(run, name, getattr(run, name), chosen)) for name in OWN[1:]}
        whole = folded(replace(run, records=(), **fields), [*compress(run.parts, chosen)])
        found.append((whole, _of_parts(run, "records", records, chosen)))
    return found


def _of_parts(run: Run, name: str, items: Sequence[T], chosen: Sequence[bool]) -> list[T]:
    """Those of the items that belong to the chosen parts."""
    ends = [*accumulate((getattr(part, name) for part in run.parts), initial=0)]
    return [each for place in compress(range(len(run.parts)), chosen) for each in items[ends[place] : ends[place + 1]]]
