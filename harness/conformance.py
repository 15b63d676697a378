"""What a plugin's own tests call: the judgement of `boltzbench validate` as an assertion."""

from .api.messages import unknown_beside
from .api.operations import Status
from .discovery.registry import load_registry
from .execution.process import prepare_process_for
from .results.environment import resolve_device

LAWS = ("law of ", "mean of ", "spread of ")
"""How claims begin that hold a sampler to an exact law."""


def require_sound(sampler: str, *, device: str = "cpu", seed: int = 0, laws: bool = True) -> None:
    """Judges the sampler of this name on every target that it does not refuse.

    Raises AssertionError that tells each claim that failed, or that it was held to no exact law, which ``laws=False``
    allows where nobody knows one; UnknownName if no plugin brings such a sampler.
    """
    place = resolve_device(device)
    prepare_process_for(place)
    from .validation.judge import validate  # here, so that kernels are interpreted or compiled as the device asks

    registry = load_registry()
    chosen = registry.samplers.get(sampler)
    if chosen is None:
        raise unknown_beside(registry.problems, "sampler", sampler, registry.samplers)
    claims = [claim for target in registry.targets.values() for claim in validate(chosen, target, place, seed)]
    wrong = [each for each in claims if each.status not in (Status.PASSED, Status.UNAVAILABLE)]
    told = [f"{each.status}: {each.target}, T = {each.temperature:g}, {each.claim}: {each.message}" for each in wrong]
    assert not wrong, f"{len(wrong)} of {len(claims)} claims about {sampler} failed:\n" + "\n".join(told)
    passed = [each.claim for each in claims if each.status is Status.PASSED]
    assert passed, f"{sampler} could not be judged on any target here"
    assert not laws or any(claim.startswith(LAWS) for claim in passed), (
        f"{sampler} was held to no exact law on any target"
    )
