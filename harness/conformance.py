"""The checks of `boltzbench validate` as an assertion, for the tests of a plugin."""

from .api.messages import unknown_beside
from .api.operations import Status
from .discovery.registry import load_registry
from .execution.process import prepare_process_for
from .results.environment import resolve_device

LAWS = ("law of ", "mean of ", "spread of ")
"""Prefixes of the claims that test a sampler against an exact law."""


def require_sound(sampler: str, *, device: str = "cpu", seed: int = 0, laws: bool = True) -> None:
    """Test the sampler of this name on every target that it does not refuse.

    Raises AssertionError with all failed claims, and if no claim tests an exact law. Pass ``laws=False`` if no exact
    law is known. Raises UnknownName if no plugin has registered the sampler.
    """
    place = resolve_device(device)
    prepare_process_for(place)
    from .validation.judge import validate  # after the process is prepared, because it imports Triton

    registry = load_registry()
    chosen = registry.samplers.get(sampler)
    if chosen is None:
        raise unknown_beside(registry.problems, "sampler", sampler, registry.samplers)
    claims = [claim for target in registry.targets.values() for claim in validate(chosen, target, place, seed)]
    wrong = [each for each in claims if each.status not in (Status.PASSED, Status.UNAVAILABLE)]
    failed = [f"{each.status}: {each.target}, T = {each.temperature:g}, {each.claim}: {each.message}" for each in wrong]
    assert not wrong, f"{len(wrong)} of {len(claims)} claims about {sampler} failed:\n" + "\n".join(failed)
    passed = [each.claim for each in claims if each.status is Status.PASSED]
    assert passed, f"sampler {sampler!r} refuses every target or cannot run on {place}: nothing was tested"
    assert not laws or any(claim.startswith(LAWS) for claim in passed), (
        f"no claim tests sampler {sampler!r} against an exact law: register a target with one, or pass laws=False"
    )
