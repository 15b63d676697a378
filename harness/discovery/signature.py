"""What an operation takes and gives: names, dtypes and shapes, read from the tensors of its smallest check cases.

A description beside the code could go stale. Sizes in a shape are named where the tensors of all these cases fit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..api.operations import Case, Operation

if TYPE_CHECKING:
    import torch

LARGEST = 4_000_000
"""The product of a case's sizes above which it is not made for a description."""
EACH = 3
"""Cases of each scenario whose tensors are looked at."""

_MEMBER = re.compile(r"(.+_)(\d+)")


@dataclass(frozen=True)
class Form:
    """One form of an argument: a tensor of these ``dtypes`` and this ``shape``, or a plain value of this ``kind``.

    A dimension in ``shape`` is a size of the case ("rows"), a number, or the range of what was seen ("1..3").
    ``scenarios`` are those of the cases that have this form ("" is the plain one). ``value`` is an example.
    """

    kind: str
    dtypes: tuple[str, ...] = ()
    shape: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    value: str = ""

    @property
    def words(self) -> str:
        """``float32, bfloat16 (rows, columns)``; ``str: 'heat_bath' or 'metropolis'``; ``float, such as 1.0``."""
        if self.kind == "tensor":
            return f"{', '.join(self.dtypes)} ({', '.join(self.shape)})"
        if not self.value:
            return self.kind
        return f"{self.kind}: {self.value}" if self.kind in ("str", "bool") else f"{self.kind}, such as {self.value}"


@dataclass(frozen=True)
class Argument:
    """An input or output. ``role`` says what is special about it, in words. ``several`` means one for each tensor of a
    list: ``parameter_0``, ``parameter_1``, ..."""

    name: str
    forms: tuple[Form, ...]
    role: str = ""
    several: bool = False


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of an operation. ``problem`` says why they could not be read."""

    inputs: tuple[Argument, ...] = ()
    outputs: tuple[Argument, ...] = ()
    problem: str = ""


Seen = list[tuple[Case, Any]]


def signature(operation: Operation, device: torch.device) -> Signature:
    """The signature of an operation. Raises what its ``make_inputs`` and ``make_outputs`` raise."""
    inputs: dict[str, Seen] = {}
    outputs: dict[str, Seen] = {}
    for case in _examples(operation.cases):
        given = operation.make_inputs(case, device)
        results = operation.make_outputs(given)
        for found, seen in ((given, inputs), (results, outputs)):
            for name, value in found.items():
                seen.setdefault(name, []).append((case, value))
    roles = dict.fromkeys(operation.parameters, "stays for many launches")
    roles |= dict.fromkeys(operation.moving, "moves on in each launch")
    state = {name: "changed in place" for name in outputs if name in inputs}
    return Signature(_arguments(inputs, roles | state), _arguments(outputs, state))


def _examples(cases: Sequence[Case]) -> list[Case]:
    """Of each scenario the smallest cases, without empty ones where there are others, and one of each dtype."""
    by_scenario: dict[str, list[Case]] = {}
    for case in cases:
        if case.purpose == "check" and math.prod(case.sizes.values()) <= LARGEST:
            by_scenario.setdefault(case.scenario, []).append(case)
    chosen = []
    for own in (by_scenario or {"": [*cases]}).values():
        whole = [case for case in own if all(case.sizes.values())] or own
        ordered = sorted(whole, key=lambda case: math.prod(case.sizes.values()))
        dtypes = {case.dtype: case for case in reversed(ordered)}
        chosen += [*ordered[:EACH], *(case for case in dtypes.values() if case not in ordered[:EACH])]
    return chosen


def _arguments(seen: Mapping[str, Seen], roles: Mapping[str, str]) -> tuple[Argument, ...]:
    found = []
    for name, values in seen.items():
        member = _MEMBER.fullmatch(name)
        first = f"{member[1]}0" if member else ""
        if first in seen and name != first:
            continue
        found.append(Argument(name, _forms(values), roles.get(name, ""), first == name and f"{first[:-1]}1" in seen))
    return tuple(found)


def _forms(values: Seen) -> tuple[Form, ...]:
    by_sizes: dict[tuple[Any, ...], Seen] = {}  # cases with other sizes may be machines of another kind
    for case, value in values:
        kind, dimensions = _kind(value)
        by_sizes.setdefault((kind, dimensions, *case.sizes), []).append((case, value))
    groups: dict[tuple[str, tuple[str, ...]], Seen] = {}
    for (kind, *_), own in by_sizes.items():
        groups.setdefault((kind, _shape(own) if kind == "tensor" else ()), []).extend(own)
    forms = []
    for (kind, shape), own in groups.items():
        scenarios = tuple(dict.fromkeys(case.scenario for case, _ in own))
        if kind == "tensor":
            dtypes = tuple(dict.fromkeys(str(value.dtype).removeprefix("torch.") for _, value in own))
            forms.append(Form(kind, dtypes, shape, scenarios))
        else:
            shown = dict.fromkeys(repr(value) for _, value in own)
            examples = [*shown] if kind in ("str", "bool") else [*shown][:1]
            forms.append(Form(kind, scenarios=scenarios, value="" if kind == "None" else " or ".join(examples)))
    return tuple(forms)


def _kind(value: Any) -> tuple[str, int]:
    """A word for the kind of value, and its number of dimensions."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return "tensor", len(value.shape)
    return "None" if value is None else type(value).__name__, 0


def _shape(seen: Seen) -> tuple[str, ...]:
    words = []
    for place in range(len(seen[0][1].shape)):
        lengths = [value.shape[place] for _, value in seen]
        names = [
            name
            for name in seen[0][0].sizes
            if all(case.sizes.get(name) == length for (case, _), length in zip(seen, lengths, strict=True))
        ]
        fitting = [name for name in names if name not in words] or names
        span = str(min(lengths)) if len({*lengths}) == 1 else f"{min(lengths)}..{max(lengths)}"
        words.append(fitting[0] if fitting else span)
    return tuple(words)
