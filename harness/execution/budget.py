"""Runs steps in order of value until a budget of time is spent."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from time import monotonic
from typing import Literal, get_args

from ..api.messages import unknown
from ..api.operations import INTERPRETED_ON_CPU, Case, Operation
from ..api.records import Record
from ..api.samplers import Sampler, Target
from ..discovery.time_limit import TookTooLong, limited_to
from .plan import Step

Kind = Literal["check", "limits", "bench", "memcheck", "racecheck", "validate"]
Pair = tuple[Sampler, Target]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The order of kinds within a round."""


@dataclass(frozen=True)
class Unit:
    """What is done as a whole or left out: the check of one case or law, all implementations of a bench case, a case
    under a sanitizer, samplers on targets, or the limits of the device, which have neither steps nor pairs."""

    kind: Kind
    steps: tuple[Step, ...] = ()
    round: int = 0
    pairs: tuple[Pair, ...] = ()


def by_value(
    checks: Sequence[Step], benches: Sequence[Step], first: Sequence[str], pairs: Sequence[Pair] = (), at_once: int = 1
) -> list[Unit]:
    """The units of these steps, the most valuable first.

    A round has checks, then the limits of the device (in the first round only), bench cases, sanitizers and samplers.
    The first round has one case of each kernel and operation, the second two more, the third four more, and so on: few
    changes of the operation, since each starts new worker processes. Only kernels are checked, since bench checks
    the rest. Checks begin with the smallest case, go on with the laws, and end with the largest case. Bench cases of
    the preset ``smoke``, which are too small to tell much, follow the others.

    ``first`` names operations that come first in every round, each as ``operation`` or as ``operation case``: then the
    cases whose label begins so come first too. Each kernel has one case under the sanitizers, that of middle size.
    Those of operations in ``first`` come a round earlier. Each sampler has one target in the first round, and so on.

    If ``at_once`` is more than 1, so many samplers are a unit, and the checks of an operation in a round are one.
    """
    names = [each.partition(" ")[0] for each in first]
    units = [Unit("limits")]
    for steps in _grouped(checks, lambda step: (step.operation.name, step.implementation.name)):
        if steps[0].implementation.backend not in INTERPRETED_ON_CPU:
            continue
        ordered = _smallest_first(steps)
        units += [Unit("check", (step,), _round(place)) for place, step in enumerate(ordered)]
        cases = [step for step in ordered if isinstance(step.subject, Case) and all(step.subject.sizes.values())]
        late = int(steps[0].operation.name not in names)
        if cases:
            middle = (cases[len(cases) // 2],)
            units += [Unit("memcheck", middle, late), Unit("racecheck", middle, late + 1)]
    for steps in _grouped(benches, lambda step: (step.operation.name,)):
        cases_of_it = _grouped(steps, lambda step: (step.purpose, step.label))
        cases_of_it.sort(key=lambda case: (not _named(case[0], first), _is_small(case[0])))
        units += [Unit("bench", tuple(case), _round(place)) for place, case in enumerate(cases_of_it)]

    def rank(unit: Unit) -> int:
        name = _operation(unit)
        return names.index(name) if name in names else len(names)

    units += _of_samplers(pairs, at_once)
    units.sort(key=lambda unit: (unit.round, KINDS.index(unit.kind), rank(unit)))
    return _joined(units) if at_once > 1 else units


def _of_samplers(pairs: Sequence[Pair], at_once: int) -> list[Unit]:
    rounds: dict[int, list[Pair]] = defaultdict(list)
    places: dict[str, int] = defaultdict(int)
    for sampler, target in pairs:
        rounds[_round(places[sampler.name])].append((sampler, target))
        places[sampler.name] += 1
    return [
        Unit("validate", (), number, tuple(own[first : first + at_once]))
        for number, own in rounds.items()
        for first in range(0, len(own), at_once)
    ]


def _joined(units: Sequence[Unit]) -> list[Unit]:
    """The units, the checks of an operation in a round as one."""
    joined: list[Unit] = []
    for unit in units:
        last = joined[-1] if joined else None
        same = last and (last.kind, last.round, _operation(last)) == ("check", unit.round, _operation(unit))
        if last and same and unit.kind == "check":
            joined[-1] = replace(last, steps=(*last.steps, *unit.steps))
        else:
            joined.append(unit)
    return joined


def _operation(unit: Unit) -> str:
    return unit.steps[0].operation.name if unit.steps else ""


def require_known(first: Sequence[str], operations: Mapping[str, Operation]) -> None:
    """Raise UnknownName for an operation or case in ``first`` that does not exist."""
    for each in first:
        name, _, label = each.partition(" ")
        if name not in operations:
            raise unknown("operation", name, operations)
        labels = [case.label for case in operations[name].cases]
        if not any(known.startswith(label) for known in labels):
            raise unknown(f"case of {name}", label, labels)


def run_within(
    units: Sequence[Unit],
    seconds: float,
    carry_out: Callable[[Unit, Callable[[Record], None]], None],
    keep: Callable[[Record], None],
    leave_out: Callable[[Unit, str], None],
    *,
    now: Callable[[], float] = monotonic,
) -> None:
    """Carry out the units in order, in at most ``seconds``.

    A unit that would take longer than the time left is left out, and the next one gets its chance. One that takes
    longer than expected is stopped when the time is over. ``leave_out`` is called with both, and with the reason in
    words; a stopped unit has lost the steps that it has records of. ``carry_out`` passes its records to a function, and
    ``keep`` gets them after the unit, also if it is stopped.
    """
    end = now() + seconds
    estimates = Estimates()
    for unit in units:
        begin = now()
        left, expected = end - begin, estimates.of(unit)
        if left <= 0 or expected > left:
            needs = f"needs about {expected:.3g} s" if expected else "has not begun"
            leave_out(unit, f"{needs}, with {max(0.0, left):.3g} s left")
            continue
        records: list[Record] = []
        try:
            with limited_to(left):
                carry_out(unit, records.append)
        except TookTooLong:
            lost = _without(unit, records) if len(unit.steps) > 1 else unit
            if lost.steps or not unit.steps:
                leave_out(lost, f"was stopped after {now() - begin:.3g} s, when the budget was spent")
        finally:
            for record in records:
                keep(record)
        estimates.add(unit, now() - begin)


def _without(unit: Unit, records: Sequence[Record]) -> Unit:
    """The unit without the steps that it has records of."""
    done = {(each.operation, each.implementation, each.case) for each in records}
    left = [step for step in unit.steps if (step.operation.name, step.implementation.name, step.label) not in done]
    return replace(unit, steps=tuple(left))


class Estimates:
    """Estimates the seconds of a unit from those of the units so far."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def add(self, unit: Unit, seconds: float) -> None:
        for key in _keys(unit):
            self._seconds[key].append(seconds)

    def of(self, unit: Unit) -> float:
        """The longest time of a unit of this kind with the same operation and implementations; before there is one, the
        mean of its kind with the same implementations, then of its kind; before that 0: it is tried."""
        alike, *others = (self._seconds[key] for key in _keys(unit))
        return max(alike) if alike else next((fmean(times) for times in others if times), 0.0)


def _keys(unit: Unit) -> tuple[tuple[str, ...], ...]:
    """From the most specific to the most general."""
    names = tuple(step.implementation.name for step in unit.steps)
    return (unit.kind, _operation(unit), *names), (unit.kind, *names), (unit.kind,)


def _grouped(steps: Sequence[Step], key: Callable[[Step], tuple[str, ...]]) -> list[list[Step]]:
    groups: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        groups.setdefault(key(step), []).append(step)
    return list(groups.values())


def _round(place: int) -> int:
    """0, 1, 1, 2, 2, 2, 2, 3, ..."""
    return (place + 1).bit_length() - 1


def _smallest_first(steps: Sequence[Step]) -> list[Step]:
    """The smallest case without an empty dimension, then the laws, then the other cases by size."""
    laws = [step for step in steps if not isinstance(step.subject, Case)]
    cases = sorted((step for step in steps if isinstance(step.subject, Case)), key=_elements)
    smallest = next((step for step in cases if _elements(step)), None)
    return [*([smallest] if smallest else []), *laws, *(step for step in cases if step is not smallest)]


def _elements(step: Step) -> int:
    return math.prod(step.subject.sizes.values()) if isinstance(step.subject, Case) else 0


def _named(step: Step, first: Sequence[str]) -> bool:
    return any(" " in each and f"{step.operation.name} {step.label}".startswith(each) for each in first)


def _is_small(step: Step) -> bool:
    return isinstance(step.subject, Case) and step.subject.preset == "smoke"
