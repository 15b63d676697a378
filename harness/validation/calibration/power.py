"""What the judge finds: the chains that each planted error needs, and the causes that the verdict names."""

from collections.abc import Iterable, Iterator, Sequence
from time import process_time
from typing import NamedTuple

import torch

from ...api.operations import Status
from ...api.records import Claim
from ..failures import failures_in_words
from ..judge import validate
from .planted_errors import Planted

SIZES = tuple(4**power for power in range(4, 10))
"""Numbers of chains that are tried, 256 to 262144."""
CHAINS = 16_000
"""For the causes, of errors that a cause explains."""
LINES = 2
"""Lines of the verdict that must name the cause."""


class Found(NamedTuple):
    """A planted error, and the fewest of the tried chains with which it is found; None if more are needed."""

    name: str
    chains: int | None


class Named(NamedTuple):
    """A planted error, the line of the verdict (from 1) that names its cause, its words, and the CPU time.

    ``line`` is 0 if none of the first `LINES` does; ``words`` are then the first line.
    """

    name: str
    line: int
    words: str
    seconds: float


def chains_needed(errors: Iterable[Planted], seed: int, sizes: Sequence[int] = SIZES) -> Iterator[Found]:
    """The fewest of ``sizes`` chains with which `validate` rejects each of ``errors``."""
    for each in errors:
        sampler, target = each.sampler, each.target()
        found = (n for n in sizes if _failed(validate(sampler, target, torch.device("cpu"), seed, chains=n)))
        yield Found(sampler.name, next(found, None))


def named_causes(errors: Iterable[Planted], seed: int, chains: int = CHAINS) -> Iterator[Named]:
    """What the verdict says about each of ``errors``."""
    for each in errors:
        since = process_time()
        claims = validate(each.sampler, each.target(), torch.device("cpu"), seed, chains=chains)
        lines = failures_in_words(_failed(claims)) or [
            f"not tested: {claim.message}" for claim in claims if claim.status is Status.UNAVAILABLE
        ]
        seconds = process_time() - since
        line = next((number for number, words in enumerate(lines[:LINES], 1) if each.cause in words), 0)
        words = lines[max(line - 1, 0)] if lines else "passed"
        place = f" on {each.target().name}, T = "
        if place in words:
            words = words.split(place)[1].partition(": ")[2].removeprefix("likely cause: ").partition(", p = ")[0]
        yield Named(each.sampler.name, line, words, seconds)


def _failed(claims: Iterable[Claim]) -> list[Claim]:
    return [each for each in claims if each.status not in (Status.PASSED, Status.UNAVAILABLE)]
