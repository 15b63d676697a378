"""The standing of a sampler on a target: its judged claims and the efficiency of its steps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..api.messages import describe_error
from ..api.operations import INTERPRETED_ON_CPU, Status
from ..api.records import Claim, Efficiency, Standing
from ..api.samplers import Sampler, Target
from .progress import AnnounceClaim, CurrentClaim, silent

if TYPE_CHECKING:
    import torch


QUICK_ELEMENTS = 64
"""Elements of a target up to which a sampler is judged on it in a few seconds."""


def quick_targets(targets: Iterable[Target]) -> list[Target]:
    """Those of ``targets`` with at most `QUICK_ELEMENTS` elements, or all of them if none is so small."""
    given = list(targets)
    return [each for each in given if math.prod(each.shape) <= QUICK_ELEMENTS] or given


def standings(
    sampler: Sampler,
    target: Target,
    device: torch.device,
    seed: int,
    announce: AnnounceClaim = silent,
) -> list[Standing]:
    """One standing for each temperature, without the speed of the steps, which `timed` adds.

    Efficiency is measured only if no claim fails and the kernel is neither interpreted nor emulated.
    """
    from .efficiency import Undefined, mixing, not_mixed  # imported late: scipy is slow to load
    from .judge import validate

    claims = validate(sampler, target, device, seed, announce=announce)
    wrong = any(each.status not in (Status.PASSED, Status.UNAVAILABLE) for each in claims)
    found = []
    for temperature in target.temperatures:
        own = tuple(each for each in claims if each.temperature == temperature)
        measured, why, unmixed = None, "", ""
        if wrong:
            why = "not measured: a claim fails"
        elif device.type == "cpu" and sampler.backend in INTERPRETED_ON_CPU:
            why = "not measured: interpreted or emulated on the host"
        elif not own or all(each.status is Status.UNAVAILABLE for each in own):
            why = "not measured: nothing was judged"
        else:
            announce(CurrentClaim("efficiency", temperature))
            try:
                measured = mixing(sampler, target, temperature, device, seed)
                unmixed = not_mixed(measured.r_hat)
            except Undefined as stuck:
                unmixed = str(stuck)
                why = f"not measured: {unmixed}"
            except Exception as error:
                own += (_broken(sampler, target, temperature, error),)
        found.append(make_standing(sampler, target, temperature, own, measured, why, unmixed))
    return found


def timed(
    found: Iterable[Standing],
    sampler: Sampler,
    target: Target,
    device: torch.device,
    seed: int,
    announce: AnnounceClaim = silent,
) -> list[Standing]:
    """The standings of a sampler on a target, those with an efficiency with the speed of the steps, measured now."""
    from .efficiency import at_speed, steps_per_second

    rows = []
    for row in found:
        if row.efficiency is not None:
            announce(CurrentClaim("efficiency", row.temperature))
            try:
                rate = steps_per_second(sampler, target, row.temperature, device, seed)
                row = replace(row, efficiency=at_speed(row.efficiency, rate))
            except Exception as error:
                row = replace(row, claims=(*row.claims, _broken(sampler, target, row.temperature, error)))
        rows.append(row)
    return rows


def _broken(sampler: Sampler, target: Target, temperature: float, error: Exception) -> Claim:
    message = f"while it was measured: {describe_error(error)}"
    return Claim(sampler.name, target.name, temperature, "efficiency", Status.ERROR, message)


def make_standing(
    sampler: Sampler,
    target: Target,
    temperature: float,
    claims: tuple[Claim, ...],
    efficiency: Efficiency | None = None,
    unmeasured: str = "",
    unmixed: str = "",
) -> Standing:
    """The standing with the backend and plugin of ``sampler`` filled in."""
    return Standing(
        sampler.name, target.name, temperature, sampler.backend, sampler.plugin, claims, efficiency, unmeasured, unmixed
    )
