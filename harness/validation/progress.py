"""What the judgement of a sampler announces while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class CurrentClaim:
    """The claim under test and its temperature. It crosses the connection from a worker to the command line."""

    claim: str
    temperature: float

    def __str__(self) -> str:
        return f"{self.claim}, T = {self.temperature:g}"


AnnounceClaim = Callable[[CurrentClaim], None]


def silent(claim: CurrentClaim) -> None:
    """Announces nothing."""
