"""The launch request of the backends: all steps of all walkers."""

from dataclasses import dataclass

from torch import Tensor

GROUP = 4
"""Walkers that share a Philox call in each step."""
VARIANTS = {"positions": False, "first passages": True}
"""The names of the kernels, and whether they report first passages."""


@dataclass(frozen=True)
class LaunchRequest:
    """``x`` float32 (walkers,), not empty, and ``passages`` int32 (walkers,) or None, contiguous, receive the results.

    ``start`` and ``earlier``: the same before the first step; without ``earlier`` there was no passage. Contiguous.
    ``scales``: ``sqrt(eps T)`` of each step, float32 (steps,), contiguous.
    """

    start: Tensor
    earlier: Tensor | None
    x: Tensor
    passages: Tensor | None
    scales: Tensor
    step_size: float
    threshold: float
    seed: int
    first_step: int
    first_walker: int

    @property
    def first_group(self) -> int:
        """The number of the first group of four walkers in the stream."""
        return self.first_walker // GROUP

    @property
    def offset(self) -> int:
        """Walkers of the first group that another call advances."""
        return self.first_walker % GROUP

    @property
    def groups(self) -> int:
        return -(-(self.offset + len(self.x)) // GROUP)
