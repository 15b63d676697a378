"""Checks what plugins register and what experiments return, before the harness uses any of it."""

import functools
import math
import reprlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from ..api.ceilings import RESOURCES, Ceiling
from ..api.distributed import DistributedAlgorithm
from ..api.experiments import Curve, Estimate, Experiment, Findings, Picture, Plot
from ..api.messages import unknown
from ..api.operations import Case, Implementation, Law, Operation
from ..api.samplers import Sampler, Target


@functools.cache
def _adapters(kind: type[object]) -> dict[str, TypeAdapter[Any]]:
    """The validator of each field of a dataclass of `api`.

    Its annotations, and those of dataclasses inside it, are strings: pydantic looks names up in this function too.
    """
    import numpy as np
    import torch
    from torch import Tensor

    found = {}
    hints = get_type_hints(kind, localns={"np": np, "torch": torch, "Tensor": Tensor}, include_extras=True)
    for name, hint in hints.items():  # a comprehension would hide the names
        found[name] = TypeAdapter(hint)
    return found


T = TypeVar("T", bound=Operation | Implementation | Ceiling | Target | Sampler | Experiment | DistributedAlgorithm)

Registrations = Mapping[type[object], Mapping[Any, Any]]
"""What earlier hook calls registered: for each type, the objects by `key_of`."""


def key_of(registration: Any) -> Hashable:
    """What must be unique among all registrations of one type over all plugins."""
    if isinstance(registration, Implementation):
        return registration.operation, registration.name
    if isinstance(registration, Ceiling):
        return registration.resource, registration.name
    name: str = registration.name
    return name


def registration_faults(of_type: type[T], given: Sequence[T], registered: Registrations) -> Iterator[tuple[int, str]]:
    """The place in ``given`` of each registration that must be refused, with a sentence for every reason."""
    kind = _KINDS[of_type]
    keys = set(registered.get(of_type, ()))
    for place, each in enumerate(given):
        wrong = [f"{kind.of(each)}: {fault}" for fault in _type_faults(each, of_type)]
        if not wrong:
            if not each.name:
                wrong.append(f"{kind.article} {kind.noun} has an empty name")
            if key_of(each) in keys:
                wrong.append(f"{kind.of(each)}: {kind.duplicate(each)}")
            wrong += [f"{kind.of(each)}: {fault}" for fault in kind.own_faults(each, registered)]
            keys.add(key_of(each))
        yield from ((place, sentence) for sentence in wrong)


def findings_faults(findings: object) -> Iterator[str]:
    """Why what an experiment returned cannot be judged, written or drawn; nothing if it can."""
    if not isinstance(findings, Findings):
        yield f"run must return Findings, got {reprlib.repr(findings)}"
        return
    wrong = [*_type_faults(findings, Findings)]
    yield from wrong
    if wrong:
        return
    for each in findings.estimates:
        of = f"estimate {reprlib.repr(each.claim)}"
        yield from (f"{of}: {fault}" for fault in _type_faults(each, Estimate))
        yield from _number_faults(of, (each.measured, each.stderr, each.exact, each.bound))
        if each.status is not None:
            yield f"{of}: status is for the harness to say"
        if each.exact is not None and each.bound is None and each.stderr is None:
            yield f"{of} has an exact value, but neither stderr nor bound to judge it by"
        if each.exact is not None and not math.isfinite(each.exact):
            yield f"{of}: exact should be finite, got {each.exact}"
        if each.p_value is not None and (each.exact is None or each.bound is not None or not 0 <= each.p_value <= 1):
            yield f"{of}: p_value should be in [0, 1], beside an exact value and no bound, got {each.p_value}"
        if (each.stderr or 0.0) < 0 or (each.bound or 0.0) < 0:
            yield f"{of}: stderr and bound should not be negative"
    if not findings.estimates:
        yield "Findings need at least one estimate"
    for repeated in _repeated([each.claim for each in findings.estimates]):
        yield f"two estimates claim {repeated!r}"
    for plot in findings.plots:
        of = f"plot {reprlib.repr(plot.title)}"
        yield from (f"{of}: {fault}" for fault in _type_faults(plot, Plot))
        for curve in plot.curves:
            line = f"{of}, curve {reprlib.repr(curve.name)}"
            yield from (f"{line}: {fault}" for fault in _type_faults(curve, Curve))
            yield from _number_faults(line, (*curve.x, *curve.y, *curve.stderr))
            if len(curve.y) != len(curve.x) or (curve.stderr and len(curve.stderr) != len(curve.x)):
                yield f"{line}: x, y and stderr should be of one length"
    for picture in findings.pictures:
        of = f"picture {reprlib.repr(picture.title)}"
        yield from (f"{of}: {fault}" for fault in _type_faults(picture, Picture))
        yield from _number_faults(of, [each for row in picture.rows for each in row])
        if len({len(row) for row in picture.rows}) != 1:
            yield f"{of}: its rows should be of one length"


def operation_faults(operation: Operation, registered: Registrations = MappingProxyType({})) -> Iterator[str]:
    """A sentence for each fault of the operation's cases and laws."""
    wrong = [f"law {reprlib.repr(law.name)}: {fault}" for law in operation.laws for fault in _type_faults(law, Law)]
    if wrong:
        yield from wrong
        return
    if not operation.cases:
        yield "it has no cases"
    yield from _case_faults(operation)
    yield from (f"it has two laws named {name!r}" for name in _repeated([law.name for law in operation.laws]))


def _case_faults(operation: Operation) -> Iterator[str]:
    sound: list[Case] = []
    for position, case in enumerate(operation.cases):
        wrong = [*_type_faults(case, Case)]
        yield from (f"case {position}: {fault}" for fault in wrong)
        if wrong:
            continue
        sound.append(case)
        if case.operation != operation.name:
            yield f"case {case.label!r} says that it belongs to operation {case.operation!r}"
        if not _is_dtype(case.dtype):
            yield f"case {case.label!r}: torch has no dtype {case.dtype!r}"
    for label in _repeated([case.label for case in sound]):
        yield f"two cases are labelled {label!r}; give them different sizes, dtypes or scenarios"


def _implementation_faults(implementation: Implementation, registered: Registrations) -> Iterator[str]:
    operations = registered.get(Operation, {})
    if implementation.operation not in operations:
        yield str(unknown("operation", implementation.operation, operations))
    elif implementation.own_stream and operations[implementation.operation].judge_draws is None:
        yield (
            f"it has a random stream of its own (own_stream), but operation {implementation.operation!r} has "
            "no judge_draws to test its draws"
        )


def _ceiling_faults(ceiling: Ceiling, registered: Registrations) -> Iterator[str]:
    if ceiling.resource not in RESOURCES:
        yield str(unknown("resource", ceiling.resource, RESOURCES))
    if ceiling.amount <= 0:
        yield f"amount should be greater than 0, got {ceiling.amount}"


def _target_faults(target: Target, registered: Registrations) -> Iterator[str]:
    if not _is_dtype(target.dtype):
        yield f"torch has no dtype {target.dtype!r}"
    if not all(size > 0 for size in target.shape):
        yield f"shape should have sizes greater than 0, got {target.shape}"
    if not target.temperatures:
        yield "it has no temperatures"
    for temperature in target.temperatures:
        if not 0 < temperature < math.inf:
            yield f"temperatures should be finite and greater than 0, got {temperature}"
    import torch

    clamped = target.clamped
    if clamped is not None and (clamped.shape != target.shape or clamped.dtype != torch.bool):
        yield f"clamped should be bool {target.shape}, got {clamped.dtype} {tuple(clamped.shape)}"


def _distributed_faults(algorithm: DistributedAlgorithm, registered: Registrations) -> Iterator[str]:
    if algorithm.steps < 1:
        yield f"steps should be at least 1, got {algorithm.steps}"


def _no_more_faults(registration: object, registered: Registrations) -> Iterator[str]:
    return iter(())


def _name_is_taken(kind: str) -> Callable[[Any], str]:
    return lambda registration: f"that name is taken; {kind} names are unique over all plugins"


@dataclass(frozen=True)
class _Kind:
    """How to name one type of registration, and what to check besides its types, name and key."""

    noun: str
    duplicate: Callable[[Any], str]
    own_faults: Callable[[Any, Registrations], Iterator[str]] = _no_more_faults

    @property
    def article(self) -> str:
        return "an" if self.noun[0] in "aeiou" else "a"

    def of(self, registration: Any) -> str:
        return f"{self.noun} {reprlib.repr(registration.name)}"


_KINDS: dict[type[object], _Kind] = {
    Operation: _Kind("operation", _name_is_taken("operation"), operation_faults),
    Implementation: _Kind(
        "implementation",
        lambda one: f"operation {one.operation!r} has an implementation of that name already",
        _implementation_faults,
    ),
    Ceiling: _Kind(
        "ceiling", lambda one: f"resource {one.resource!r} has a ceiling of that name already", _ceiling_faults
    ),
    Target: _Kind("target", _name_is_taken("target"), _target_faults),
    Sampler: _Kind("sampler", _name_is_taken("sampler")),
    Experiment: _Kind("experiment", _name_is_taken("experiment")),
    DistributedAlgorithm: _Kind("distributed algorithm", _name_is_taken("distributed algorithm"), _distributed_faults),
}


def _is_dtype(name: str) -> bool:
    import torch

    return isinstance(getattr(torch, name, None), torch.dtype)


def _number_faults(of: str, numbers: Iterable[object]) -> Iterator[str]:
    """pydantic accepts tensors as numbers, json does not."""
    for each in numbers:
        if each is not None and not isinstance(each, int | float):
            yield f"{of}: should hold Python's numbers, got {reprlib.repr(each)} ({type(each).__name__})"
            return


def _type_faults(thing: object, kind: type[object]) -> Iterator[str]:
    """The fields of ``thing`` whose values do not match the annotations of the dataclass ``kind``."""
    for name, adapter in _adapters(kind).items():  # type: ignore[arg-type]
        value = getattr(thing, name)
        try:
            # In strict mode pydantic accepts only dict where the annotation says Mapping.
            adapter.validate_python(dict(value) if isinstance(value, Mapping) else value, strict=True)
        except ValidationError as error:
            for fault in error.errors():
                place = ".".join(str(part) for part in (name, *fault["loc"]))
                message = fault["msg"].removeprefix("Input ")
                yield f"{place} {message}, got {reprlib.repr(fault['input'])}"


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
