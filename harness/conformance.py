"""The checks of `boltzbench check` and `boltzbench validate` as assertions, for the tests of a plugin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .api.messages import unknown_beside
from .api.operations import Implementation, Status
from .api.samplers import Sampler, Target, reason_against
from .discovery.registry import load_registry
from .execution.process import prepare_to_run_kernels
from .results.environment import resolve_device
from .validation.failures import failures_in_words
from .validation.standing import quick_targets

if TYPE_CHECKING:
    import torch

SHOWN = 3
"""Failures that the message of `require_agreement` shows."""


def require_agreement(
    operation: str, implementation: str | Implementation, *, device: str = "cpu", laws: bool = True
) -> None:
    """Check an implementation against the operation's reference in all check cases, and unless ``laws`` is False under
    its laws. ``implementation`` is a registered one, by name, or one that need not be registered.

    Raises AssertionError with the first failures, and if it cannot run on the device or supports no case; UnknownName
    for an unknown name.
    """
    place = resolve_device(device)
    prepare_to_run_kernels(place)
    from .agreement.agreement import check_case, check_law

    registry = load_registry()
    names = [implementation] if isinstance(implementation, str) else []
    ((judge, found),) = registry.select([operation], names)
    tried = found[0] if isinstance(implementation, str) else implementation
    absent = tried.unavailable(place)
    assert absent is None, f"{operation} {tried.name}: it cannot run on {place}: {absent}"
    cases = [case for case in judge.cases if case.purpose == "check"]
    verdicts = [(case.label, check_case(judge, tried, case, place, [case.seed])) for case in cases]
    if laws:
        verdicts += [(f"law {law.name}", check_law(tried, judge, law, place, 0)) for law in judge.laws]
    wrong = [each for each in verdicts if each[1].status not in (Status.PASSED, Status.UNAVAILABLE)]
    lines = [f"{verdict.status} in {label}: {verdict.message}" for label, verdict in wrong[:SHOWN]]
    more = [f"+{len(wrong) - SHOWN} more"] if len(wrong) > SHOWN else []
    assert not wrong, "\n".join([f"{operation} {tried.name}: {len(wrong)} of {len(verdicts)} failed:", *lines, *more])
    reasons = "; ".join(dict.fromkeys(verdict.message for _, verdict in verdicts))
    assert any(verdict.passed for _, verdict in verdicts), f"{operation} {tried.name}: nothing was checked: {reasons}"


def require_sound(
    sampler: str,
    *,
    device: str = "cpu",
    seed: int = 0,
    laws: bool = True,
    targets: Sequence[str] | None = None,
    thorough: bool = False,
) -> None:
    """Test the sampler of this name on the targets of these names; by default on every target that it does not refuse,
    of at most 64 elements unless ``thorough``.

    Raises AssertionError with the broken claims of the contract and the earliest failures of laws, and if no claim
    tests an exact law, or if the sampler refuses one of ``targets``. Pass ``laws=False`` if no exact law is known.
    Raises TypeError or ValueError if ``targets`` is a single string or empty, and UnknownName if no plugin has
    registered the sampler or a target.
    """
    if isinstance(targets, str):
        raise TypeError(f"targets must be a list of names, got the string {targets!r}")
    if targets is not None and not targets:
        raise ValueError("targets must name at least one target, got none")
    place = resolve_device(device)
    prepare_to_run_kernels(place)
    from .validation.judge import validate  # imported late: scipy is slow to load

    registry = load_registry()
    chosen = registry.samplers.get(sampler)
    if chosen is None:
        raise unknown_beside(registry.problems, "sampler", sampler, registry.samplers)
    for name in targets or ():
        if name not in registry.targets:
            raise unknown_beside(registry.problems, "target", name, registry.targets)
    tested = [target for name, target in registry.targets.items() if targets is None or name in targets]
    if targets is None and not thorough:
        accepted = [each for each in tested if not _refused(chosen, each, place)]
        slow = {each.name for each in accepted} - {each.name for each in quick_targets(accepted)}
        tested = [each for each in tested if each.name not in slow]
    claims = [claim for target in tested for claim in validate(chosen, target, place, seed)]
    wrong = [each for each in claims if each.status not in (Status.PASSED, Status.UNAVAILABLE)]
    failed = "\n".join(failures_in_words(wrong))
    assert not wrong, f"{len(wrong)} of {len(claims)} claims about {sampler} failed:\n{failed}"
    passed = [each for each in claims if each.status is Status.PASSED]
    for name in targets or ():
        reasons = "; ".join(dict.fromkeys(each.message for each in claims if each.target == name))
        assert name in {each.target for each in passed}, f"sampler {sampler!r} was not tested on {name!r}: {reasons}"
    assert passed, f"sampler {sampler!r} refuses every target or cannot run on {place}: nothing was tested"
    assert not laws or any(each.steps for each in passed), (
        f"no claim tests sampler {sampler!r} against an exact law: register a target with one, or pass laws=False"
    )


def _refused(sampler: Sampler, target: Target, device: torch.device) -> bool:
    try:
        return reason_against(sampler, target, device) is not None
    except Exception:
        return False  # the judgement repeats the call and reports the error
