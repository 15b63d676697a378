"""What is wrong with what a plugin registers (operations, implementations, ceilings,
targets, samplers, experiments), before any of it is used."""

import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError

from ..api.ceilings import RESOURCES, Ceiling
from ..api.experiments import Curve, Estimate, Experiment, Findings, Picture, Plot
from ..api.messages import unknown
from ..api.operations import Case, Implementation, Law, Operation
from ..api.samplers import Sampler, Target

_ADAPTERS: dict[type[object], dict[str, TypeAdapter[Any]]] = {
    kind: {name: TypeAdapter(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}
    for kind in (
        *(Operation, Case, Law, Implementation, Ceiling, Target, Sampler),
        *(Experiment, Findings, Estimate, Plot, Curve, Picture),
    )
}

Named = TypeVar("Named", Target, Sampler, Experiment)


def operation_faults(given: Sequence[Operation], taken: Mapping[str, Operation]) -> Iterator[str]:
    """What forbids adding the operations ``given`` to those ``taken``; nothing if they are sound."""
    names: set[str] = set()
    for operation in given:
        of = f"operation {reprlib.repr(operation.name)}"
        wrong = [*_type_faults(operation, Operation)]
        for law in () if wrong else operation.laws:
            wrong += [f"law {reprlib.repr(law.name)}: {fault}" for fault in _type_faults(law, Law)]
        if wrong:
            yield from (f"{of}: {fault}" for fault in wrong)
            continue
        if not operation.name:
            yield "an operation has an empty name"
        if operation.name in taken or operation.name in names:
            yield f"{of}: that name is taken; operation names are unique over all plugins"
        if not operation.cases:
            yield f"{of} has no cases"
        yield from (f"{of}, {fault}" for fault in _case_faults(operation))
        laws = [law.name for law in operation.laws]
        yield from (f"{of} has two laws named {name!r}" for name in _repeated(laws))
        names.add(operation.name)


def implementation_faults(
    given: Sequence[Implementation],
    operations: Mapping[str, Operation],
    taken: Mapping[tuple[str, str], Implementation],
) -> Iterator[str]:
    """What forbids adding the implementations ``given`` to those ``taken``; nothing if they are sound."""
    names: set[tuple[str, str]] = set()
    for implementation in given:
        of = f"implementation {reprlib.repr(implementation.name)}"
        wrong = [*_type_faults(implementation, Implementation)]
        if wrong:
            yield from (f"{of}: {fault}" for fault in wrong)
            continue
        key = (implementation.operation, implementation.name)
        if not implementation.name:
            yield "an implementation has an empty name"
        if implementation.operation not in operations:
            yield f"{of}: {unknown('operation', implementation.operation, operations)}"
        elif implementation.own_stream and operations[implementation.operation].judge_draws is None:
            yield (
                f"{of}: it has a random stream of its own (own_stream), and operation {implementation.operation!r} has "
                "no judge_draws that could judge its draws"
            )
        if key in taken or key in names:
            yield f"{of}: operation {implementation.operation!r} has one of that name already"
        names.add(key)


def ceiling_faults(given: Sequence[Ceiling], taken: Mapping[tuple[str, str], Ceiling]) -> Iterator[str]:
    """What forbids adding the ceilings ``given`` to those ``taken``; nothing if they are sound."""
    names: set[tuple[str, str]] = set()
    for ceiling in given:
        of = f"ceiling {reprlib.repr(ceiling.name)}"
        wrong = [*_type_faults(ceiling, Ceiling)]
        if wrong:
            yield from (f"{of}: {fault}" for fault in wrong)
            continue
        key = (ceiling.resource, ceiling.name)
        if not ceiling.name:
            yield "a ceiling has an empty name"
        if ceiling.resource not in RESOURCES:
            yield f"{of}: {unknown('resource', ceiling.resource, RESOURCES)}"
        if ceiling.amount <= 0:
            yield f"{of}: amount should be greater than 0, got {ceiling.amount}"
        if key in taken or key in names:
            yield f"{of}: resource {ceiling.resource!r} has one of that name already"
        names.add(key)


def target_faults(given: Sequence[Target], taken: Mapping[str, Target]) -> Iterator[str]:
    """What forbids adding the targets ``given`` to those ``taken``; nothing if they are sound."""
    for target in given:
        of = f"target {reprlib.repr(target.name)}"
        wrong = [*_type_faults(target, Target)]
        yield from (f"{of}: {fault}" for fault in wrong)
        if wrong:
            continue
        if not isinstance(getattr(torch, target.dtype, None), torch.dtype):
            yield f"{of}: torch has no dtype {target.dtype!r}"
        if not all(size > 0 for size in target.shape):
            yield f"{of}: shape should have sizes greater than 0, got {target.shape}"
        if not target.temperatures:
            yield f"{of} has no temperatures"
        for temperature in target.temperatures:
            if not 0 < temperature < math.inf:
                yield f"{of}: temperatures should be finite and greater than 0, got {temperature}"
        clamped = target.clamped
        if clamped is not None and (clamped.shape != target.shape or clamped.dtype != torch.bool):
            yield f"{of}: clamped should be bool {target.shape}, got {clamped.dtype} {tuple(clamped.shape)}"
    yield from _name_faults("target", given, taken)


def sampler_faults(given: Sequence[Sampler], taken: Mapping[str, Sampler]) -> Iterator[str]:
    """What forbids adding the samplers ``given`` to those ``taken``; nothing if they are sound."""
    for sampler in given:
        yield from (f"sampler {reprlib.repr(sampler.name)}: {fault}" for fault in _type_faults(sampler, Sampler))
    yield from _name_faults("sampler", given, taken)


def experiment_faults(given: Sequence[Experiment], taken: Mapping[str, Experiment]) -> Iterator[str]:
    """What forbids adding the experiments ``given`` to those ``taken``; nothing if they are sound."""
    for each in given:
        yield from (f"experiment {reprlib.repr(each.name)}: {fault}" for fault in _type_faults(each, Experiment))
    yield from _name_faults("experiment", given, taken)


def findings_faults(findings: object) -> Iterator[str]:
    """What is wrong with what an experiment returned; nothing if it can be judged, written and drawn."""
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


def _number_faults(of: str, numbers: Iterable[object]) -> Iterator[str]:
    """pydantic takes tensors for numbers, json does not."""
    for each in numbers:
        if each is not None and not isinstance(each, int | float):
            yield f"{of}: should hold Python's numbers, got {reprlib.repr(each)} ({type(each).__name__})"
            return


def _name_faults(kind: str, given: Sequence[Named], taken: Mapping[str, Named]) -> Iterator[str]:
    names = set(taken)
    for each in given:
        if not each.name:
            yield f"a {kind} has an empty name"
        if each.name in names:
            yield f"{kind} {each.name!r}: that name is taken; {kind} names are unique over all plugins"
        names.add(each.name)


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
        if not isinstance(getattr(torch, case.dtype, None), torch.dtype):
            yield f"case {case.label!r}: torch has no dtype {case.dtype!r}"
    for label in _repeated([case.label for case in sound]):
        yield f"two cases are labelled {label!r}; tell them apart by sizes, dtype or scenario"


def _type_faults(thing: object, kind: type[object]) -> Iterator[str]:
    """The fields of ``thing`` that are not of the types that the dataclass ``kind`` gives them."""
    for name, adapter in _ADAPTERS[kind].items():
        value = getattr(thing, name)
        try:
            # pydantic's strict mode knows dict alone where the type says Mapping
            adapter.validate_python(dict(value) if isinstance(value, Mapping) else value, strict=True)
        except ValidationError as error:
            for fault in error.errors():
                place = ".".join(str(part) for part in (name, *fault["loc"]))
                message = fault["msg"].removeprefix("Input ")
                yield f"{place} {message}, got {reprlib.repr(fault['input'])}"


def _repeated(names: Sequence[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
