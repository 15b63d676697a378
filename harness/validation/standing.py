"""How a sampler stands on a target: its claims, judged, and what its steps are worth."""

from collections.abc import Callable

import torch

from ..api.messages import describe_error
from ..api.operations import INTERPRETED_ON_CPU, Status
from ..api.records import Claim, Efficiency, Standing
from ..api.samplers import Sampler, Target


def standings(
    sampler: Sampler,
    target: Target,
    device: torch.device,
    seed: int,
    announce: Callable[[str], None] = lambda claim: None,
) -> list[Standing]:
    """One for each temperature. Efficiency is measured where every claim holds and speed means anything."""
    from .efficiency import efficiency  # here, as these take scipy, which `list` and `--help` need not wait for
    from .judge import validate

    claims = validate(sampler, target, device, seed, announce=announce)
    wrong = any(each.status not in (Status.PASSED, Status.UNAVAILABLE) for each in claims)
    found = []
    for temperature in target.temperatures:
        own = tuple(each for each in claims if each.temperature == temperature)
        measured, why = None, ""
        if wrong:
            why = "not measured: a claim fails"
        elif device.type == "cpu" and sampler.backend in INTERPRETED_ON_CPU:
            why = "not measured: interpreted or emulated on the host"
        elif not own or all(each.status is Status.UNAVAILABLE for each in own):
            why = "not measured: nothing was judged"
        else:
            announce(f"efficiency, T = {temperature:g}")
            try:
                measured = efficiency(sampler, target, temperature, device, seed)
            except Exception as error:
                fault = f"while it was measured: {describe_error(error)}"
                own += (Claim(sampler.name, target.name, temperature, "efficiency", Status.ERROR, fault),)
        found.append(make_standing(sampler, target, temperature, own, measured, why))
    return found


def make_standing(
    sampler: Sampler,
    target: Target,
    temperature: float,
    claims: tuple[Claim, ...],
    efficiency: Efficiency | None = None,
    unmeasured: str = "",
) -> Standing:
    """The standing of this sampler and target."""
    return Standing(
        sampler.name, target.name, temperature, sampler.backend, sampler.plugin, claims, efficiency, unmeasured
    )
