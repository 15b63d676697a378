"""What `check` and `bench` do: a plan of steps, and the verdict (and time) of one step.

A step is one implementation in one case, or under one law. It never raises for what a plugin's code does; Ctrl-C
passes through, and the steps done before it stand.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from .agreement import check_case, check_law
from .timing import AgreementLost, measure
from .types import PRESETS, Agreement, Case, Implementation, Law, Operation, Record, Status
from .wording import describe_error

Purpose = Literal["check", "bench", "real", "law"]

INTERPRETED = "interpreted on the CPU: correctness only"
"""Why a kernel that is interpreted or emulated has no time."""


@dataclass(frozen=True)
class Step:
    """One implementation, the case or the law to judge it by, and the seed of its (first) data."""

    operation: Operation
    implementation: Implementation
    subject: Case | Law
    seed: int

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
    """The steps for the cases (and laws) of these purposes that ``preset`` contains.

    Where ``seed`` is None each case has its own, and a law 0. The implementations of an operation take turns on each
    case, so that what is found out about it stands together.
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


def run_step(step: Step, device: torch.device, *, draws: int, timed: bool) -> Record:
    """Judge one step; then, if ``timed`` and it is a bench or real case that agrees, time it.

    The data of a case is drawn ``draws`` times, from consecutive seeds. A law is tested once.
    """
    implementation = step.implementation
    try:
        reason = implementation.unavailable(device)
    except (Exception, SystemExit) as error:
        return _record(step, Agreement(Status.ERROR, f"unavailable() raised {describe_error(error)}"))
    if reason is not None:
        return _record(step, Agreement(Status.UNAVAILABLE, str(reason)))

    try:
        agreement = _judge(step, device, draws)
    except (Exception, SystemExit) as error:  # the operation's: the check answers for the implementation's own
        message = f"the check of operation {step.operation.name} itself raised {describe_error(error)}"
        return _record(step, Agreement(Status.ERROR, message))
    record = _record(step, agreement)
    if not (timed and agreement.passed and isinstance(step.subject, Case) and step.purpose != "check"):
        return record
    if implementation.is_interpreted_on(device):
        return replace(record, untimed=INTERPRETED)
    case = replace(step.subject, seed=step.seed)
    try:
        return replace(record, measurements=(measure(step.operation, implementation, case, device),))
    except AgreementLost as lost:
        return _record(step, replace(lost.agreement, message=str(lost)))
    except (Exception, SystemExit) as error:
        message = f"agrees, but timing it raised {describe_error(error)}"
        return replace(record, status=Status.ERROR, message=message)


def _judge(step: Step, device: torch.device, draws: int) -> Agreement:
    if isinstance(step.subject, Law):
        return check_law(step.implementation, step.operation, step.subject, device, step.seed)
    seeds = range(step.seed, step.seed + draws)
    return check_case(step.operation, step.implementation, step.subject, device, seeds)


def _record(step: Step, agreement: Agreement) -> Record:
    case = step.subject if isinstance(step.subject, Case) else None
    return Record(
        operation=step.operation.name,
        implementation=step.implementation.name,
        backend=step.implementation.backend,
        plugin=step.implementation.plugin,
        case=step.label,
        purpose=step.purpose,
        status=agreement.status,
        message=agreement.message,
        error=agreement.error,
        bound=agreement.bound,
        p_value=agreement.p_value,
        sizes=dict(case.sizes) if case else {},
        dtype=case.dtype if case else "",
        seed=step.seed,
    )
