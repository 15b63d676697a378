"""How long a step is expected to take, from what it is and the least work of its case, before anything has run."""

from collections.abc import Sequence

from ..api.operations import INTERPRETED_ON_CPU, Case
from .plan import Mode, Step

CHECK_SECONDS, TIMING_SECONDS, INTERPRETED_SECONDS = 1.2, 2.6, 2.5
"""Means of a check, of a timing in one mode with its warm-up, and of the check of an interpreted kernel, on two cores
of a server. A timing stops by its precision, seldom by the size of the case."""
RATES = {"cpu": (5e9, 2e10), "cuda": (5e11, 5e12)}
"""Bytes and operations per second that a case gets at least."""
CHECK_LAUNCHES, TIMED_LAUNCHES, LONGEST_SECONDS = 20, 7, 600.0
"""How many launches a check in float64 takes, and a timing at least; and after how long each is stopped."""


def expected_seconds(step: Step, device_type: str, modes: Sequence[Mode]) -> float:
    """How long a step will take, from what it is and the least work of its case."""
    interpreted = device_type == "cpu" and step.implementation.backend in INTERPRETED_ON_CPU
    if interpreted:
        return 0.0 if modes and step.purpose == "bench" else INTERPRETED_SECONDS
    launch = 0.0
    if isinstance(step.subject, Case):
        bytes_per_second, operations_per_second = RATES[device_type]
        try:
            cost = step.operation.cost(step.subject)
        except RuntimeError:  # its check says so
            return CHECK_SECONDS
        operations = cost.flops + 10 * (cost.random_words + cost.special_calls)
        launch = (cost.bytes_read + cost.bytes_written) / bytes_per_second + operations / operations_per_second
    check = min(CHECK_SECONDS + CHECK_LAUNCHES * launch, LONGEST_SECONDS)
    return check + len(modes) * min(max(TIMING_SECONDS, TIMED_LAUNCHES * launch), LONGEST_SECONDS)
