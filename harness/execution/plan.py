"""The steps of a command, in order."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from ..api.messages import UsageError, unknown
from ..api.operations import PRESETS, Case, Implementation, Law, Operation

Purpose = Literal["check", "bench", "real", "law"]
Mode = Literal["cold", "hot"]


@dataclass(frozen=True)
class Step:
    """One implementation, one case or law, and the seed of the (first) data.

    ``again`` marks the second timing of an A/A control, which has a process of its own.
    """

    operation: Operation
    implementation: Implementation
    subject: Case | Law
    seed: int
    again: bool = False

    @property
    def label(self) -> str:
        return f"law: {self.subject.name}" if isinstance(self.subject, Law) else self.subject.label

    @property
    def purpose(self) -> Purpose:
        return "law" if isinstance(self.subject, Law) else self.subject.purpose


def plan(
    selection: Sequence[tuple[Operation, Sequence[Implementation]]],
    purposes: Collection[Purpose],
    preset: str = PRESETS[-1],
    seed: int | None = None,
) -> list[Step]:
    """The steps for the cases and laws of these purposes that ``preset`` includes.

    If ``seed`` is None, each case uses its own seed and each law 0. All implementations of an operation come before the
    next case, so that the results of a case stand together.
    """
    presets = PRESETS[: PRESETS.index(preset) + 1]
    steps: list[Step] = []
    for operation, implementations in selection:
        cases = [case for case in operation.cases if case.purpose in purposes and case.preset in presets]
        subjects: list[Case | Law] = [*cases, *(operation.laws if "law" in purposes else ())]
        for subject in subjects:
            own = subject.seed if isinstance(subject, Case) else 0
            first = own if seed is None else seed
            steps += [Step(operation, each, subject, first) for each in implementations]
    return steps


def narrowed(
    steps: Sequence[Step], labels: Sequence[str] = (), dtypes: Sequence[str] = (), scenarios: Sequence[str] = ()
) -> list[Step]:
    """The steps whose label is one of ``labels`` or matches it as a pattern, of these dtypes and scenarios.

    An empty sequence selects all. Raises UnknownName for what none of the steps has.
    """
    own = {
        "case": [step.label for step in steps],
        "dtype": [step.subject.dtype if isinstance(step.subject, Case) else "" for step in steps],
        "scenario": [step.subject.scenario if isinstance(step.subject, Case) else "" for step in steps],
    }
    kept = set(range(len(steps)))
    for (kind, found), patterns in zip(own.items(), (labels, dtypes, scenarios), strict=True):
        if patterns:
            kept &= matching(kind, found, patterns)
    if steps and not kept:
        raise UsageError("no case has all that --case, --dtype and --scenario name")
    return [step for place, step in enumerate(steps) if place in kept]


def matching(kind: str, names: Sequence[str], patterns: Sequence[str]) -> set[int]:
    """The places of the names that equal one of the patterns or match it, as a file's name does in a shell.

    Raises UnknownName, with ``kind`` in it, for a pattern without any.
    """
    found: set[int] = set()
    for pattern in patterns:
        own = {place for place, name in enumerate(names) if name == pattern}
        own = own or {place for place, name in enumerate(names) if fnmatchcase(name, pattern)}
        if not own:
            raise unknown(kind, pattern, filter(None, names))
        found |= own
    return found


def find_subject(operation: Operation, label: str, is_law: bool) -> Case | Law:
    """The case or law of an operation with the label of its step. Raises LookupError if there is none."""
    if is_law:
        found: list[Case | Law] = [law for law in operation.laws if f"law: {law.name}" == label]
    else:
        found = [case for case in operation.cases if case.label == label]
    if not found:
        raise LookupError(f"{operation.name}, {label}: missing in this process")
    return found[0]
