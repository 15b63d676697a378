"""Cases of other sizes than an operation's own: reads ``--sizes``, and has the operations make the cases."""

import inspect
import itertools
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..api.messages import UsageError, describe_error, unknown
from ..api.operations import Case, CaseOptions, Operation
from . import registry as registry_module
from .faults import operation_faults
from .registry import OtherSizes, Registry
from .time_limit import TookTooLong, limited_to

MOST_CASES = 1000
"""The most cases that a command makes of an operation."""

NO_AXES = ("dtype", "scenario", *CaseOptions.__annotations__)
"""Parameters of `Operation.case` that are no sizes."""

SYNTAX = "a number, a list 1,2,4, or a range 1:1024:x4 or 100:500:+100"


def parse_sizes(texts: Sequence[str]) -> tuple[Mapping[str, int], ...]:
    """The sizes that the texts of ``--sizes`` name, such as ``rows=1:1024:x4,columns=4096``.

    Each text gives the product of its axes: a number, a list ``n=1,2,4``, a range ``1:1024:x4`` with a factor, or
    ``100:500:+100`` with a step; both ends belong to it. Raises UsageError.
    """
    found: list[Mapping[str, int]] = []
    count = 0
    for text in texts:
        axes = _axes_of_text(text)
        count += math.prod(map(len, axes.values()))
        if count > MOST_CASES:
            raise UsageError(f"--sizes {text}: at most {MOST_CASES} cases are accepted, and these are {count}")
        found += [dict(zip(axes, sizes, strict=True)) for sizes in itertools.product(*axes.values())]
    unique = {tuple(each.items()): each for each in found}
    return tuple(unique.values())


def _axes_of_text(text: str) -> dict[str, Sequence[int]]:
    parts: dict[str, list[str]] = {}
    name = ""
    for word in text.split(","):
        before, equals, after = (part.strip() for part in word.partition("="))
        if equals:
            name = before
            if not name.isidentifier():
                raise UsageError(f"--sizes {text}: {name!r} is no name of an axis; write axis=size, such as rows=1024")
            if name in parts:
                raise UsageError(f"--sizes {text}: the axis {name} is named twice; a list is {name}=1,2,4")
            parts[name] = []
        elif not name:
            raise UsageError(f"--sizes {text}: begin with an axis, such as rows=1024")
        parts[name].append(after if equals else before)
    return {name: _values(text, name, words) for name, words in parts.items()}


def _values(text: str, name: str, words: Sequence[str]) -> Sequence[int]:
    """All values of an axis, in their order; a range that is too long stays a range."""
    pieces = [_range(f"--sizes {text}: {name}", word) for word in words]
    if len(pieces) == 1:
        return pieces[0]
    if sum(map(len, pieces)) > MOST_CASES:
        raise UsageError(f"--sizes {text}: {name} has more than {MOST_CASES} values")
    return list(dict.fromkeys(itertools.chain(*pieces)))


def _range(place: str, word: str) -> Sequence[int]:
    match = re.fullmatch(r"(\d[\d_]*)(?::(\d[\d_]*):([x+])(\d[\d_]*))?", word)
    if match is None or any(each and each.endswith("_") for each in match.groups()):
        raise UsageError(f"{place}={word} is no size; accepted are {SYNTAX}")
    first = int(match[1])
    if match[2] is None:
        return [first]
    last, step = int(match[2]), int(match[4])
    if first > last:
        raise UsageError(f"{place}={word} is empty, since it begins above its end")
    if match[3] == "+":
        if step < 1:
            raise UsageError(f"{place}={word} never ends; the step must be at least 1")
        return range(first, last + 1, step)
    if step < 2 or first < 1:
        raise UsageError(f"{place}={word} never ends; it must begin at 1 or above, and the factor be at least 2")
    values = [first]
    while values[-1] * step <= last:
        values.append(values[-1] * step)
    return values


def axes_of(operation: Operation) -> dict[str, bool]:
    """The axes of an operation, and whether each must be given; none if it makes no cases of other sizes."""
    if operation.case is None:
        return {}
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return {
        name: each.default is inspect.Parameter.empty
        for name, each in inspect.signature(operation.case).parameters.items()
        if each.kind in positional and name not in NO_AXES
    }


def with_other_sizes(registry: Registry, wanted: OtherSizes | None) -> Registry:
    """The registry, its chosen operations with the wanted cases in place of their own, and without laws.

    Raises UsageError if an operation refuses them.
    """
    if wanted is None:
        return registry
    operations = {
        name: replace(each, cases=tuple(_made(each, wanted)), laws=())
        if not wanted.operations or name in wanted.operations
        else each
        for name, each in registry.operations.items()
    }
    return replace(registry, operations=operations, other_sizes=wanted)


def _made(operation: Operation, wanted: OtherSizes) -> Iterator[Case]:
    if operation.case is None:
        raise UsageError(f"--sizes: operation {operation.name} has cases of its own sizes only; choose others with -o")
    axes, seen = axes_of(operation), set()
    count = len(wanted.sizes) * max(1, len(wanted.dtypes)) * max(1, len(wanted.scenarios))
    if count > MOST_CASES:
        raise UsageError(f"--sizes: at most {MOST_CASES} cases are accepted, and these are {count}")
    known = [each for each in operation.cases if each.purpose != "real"]
    for sizes in wanted.sizes:
        for name in sizes:
            if name not in axes:
                raise UsageError(f"--sizes: {unknown(f'axis of {operation.name}', name, axes)}")
        missing = [name for name, required in axes.items() if required and name not in sizes]
        if missing:
            raise UsageError(f"--sizes: {operation.name} also needs {', '.join(f'{name}=N' for name in missing)}")
        chosen = [{"dtype": each} for each in wanted.dtypes] or [{}]
        for words in itertools.product(chosen, [{"scenario": each} for each in wanted.scenarios] or [{}]):
            case = _case(operation, operation.case, known, {**sizes, **words[0], **words[1]})
            if case.label not in seen:
                yield replace(case, purpose=wanted.purpose)
            seen.add(case.label)


def _case(operation: Operation, make: Callable[..., Case], known: Sequence[Case], options: Mapping[str, Any]) -> Case:
    """The case that ``make`` makes. Its dtype and scenario must be those of a ``known`` case."""
    words = " ".join(f"{name}={value}" for name, value in options.items())
    accepted = inspect.signature(make).parameters
    given = {name: value for name, value in options.items() if name in accepted or name not in NO_AXES}
    try:
        with limited_to(registry_module.LOADING_SECONDS):
            case = make(**given)
    except ValueError as error:
        raise UsageError(f"{operation.name} refuses {words}: {error}") from error
    except (Exception, SystemExit, TookTooLong) as error:
        raise UsageError(f"{operation.name} could make no case of {words}: {describe_error(error)}") from error
    if not isinstance(case, Case):
        raise UsageError(f"{operation.name} could make no case of {words}: it returned {reprlib.repr(case)}")
    for name in ("dtype", "scenario"):
        if getattr(case, name) != options.get(name, getattr(case, name)):
            raise UsageError(f"--{name} {options[name]}: cases of {operation.name} have {name} {getattr(case, name)!r}")
    _require_known(operation, case, known)
    faults = [*operation_faults(replace(operation, cases=(case,)))]
    if not faults and any(case.sizes.get(name) != options[name] for name in options if name not in NO_AXES):
        faults = [f"it made {case.label}"]
    if faults:
        raise UsageError(f"{operation.name} could make no case of {words}: {faults[0]}")
    return replace(case, preset="smoke", sizes=dict(case.sizes))


def _require_known(operation: Operation, case: Case, known: Sequence[Case]) -> None:
    """Raise unless the operation has a case of this scenario and dtype, for which its bounds were derived."""
    scenarios = {each.scenario for each in known}
    if case.scenario not in scenarios:
        raise unknown(f"scenario of {operation.name}", case.scenario, filter(None, scenarios))
    dtypes = {each.dtype for each in known if each.scenario == case.scenario}
    if case.dtype not in dtypes:
        of = f"{operation.name}, {case.scenario}" if case.scenario else operation.name
        raise unknown(f"dtype of {of}", case.dtype, dtypes)
