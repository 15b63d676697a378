"""The failed claims about samplers in a few lines: the contract first, then where a law fails earliest."""

from collections.abc import Iterable

from ..api.records import Claim

LAWS_SHOWN = 3
"""Failures of laws shown for each sampler. A wrong sampler fails most tests of a law, and the rest adds nothing."""


def failures_in_words(failed: Iterable[Claim]) -> list[str]:
    """For each sampler the broken claims of its contract, each once; then the `LAWS_SHOWN` earliest failures of laws.

    Of the laws, those after the fewest steps come first, the smallest p-value first among them. A last line counts the
    rest.
    """
    samplers: dict[str, list[Claim]] = {}
    for each in failed:
        samplers.setdefault(each.sampler, []).append(each)
    return [line for own in samplers.values() for line in _of_sampler(own)]


def _of_sampler(failed: list[Claim]) -> list[str]:
    contract: dict[tuple[str, str], list[Claim]] = {}
    for each in failed:
        if each.steps is None:
            contract.setdefault((each.claim, each.status), []).append(each)
    laws = sorted((each for each in failed if each.steps is not None), key=_order)
    lines = [_in_words(first) + _elsewhere(rest) for first, *rest in contract.values()]
    lines += [_in_words(each) for each in laws[:LAWS_SHOWN]]
    if len(laws) > LAWS_SHOWN:
        lines.append(f"+{len(laws) - LAWS_SHOWN} more failed tests of laws by {failed[0].sampler}")
    return lines


def _order(claim: Claim) -> tuple[int, float, float]:
    z = abs(claim.z) if claim.z is not None else 0.0
    return claim.steps or 0, claim.p_value or 0.0, -z


def _in_words(claim: Claim) -> str:
    place = f"{claim.sampler} on {claim.target}, T = {claim.temperature:g}"
    return f"{claim.status}: {place}: {claim.claim}: {claim.message}"


def _elsewhere(rest: list[Claim]) -> str:
    if not rest:
        return ""
    places = dict.fromkeys(f"{each.target}, T = {each.temperature:g}" for each in rest)
    return f" (also on {'; '.join(places)})"
