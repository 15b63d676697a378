"""Half a sweep: all units of one layer are drawn given the other. What every backend implements."""

from dataclasses import dataclass

from torch import Tensor

from ..philox import Stream


@dataclass(frozen=True)
class HalfSweep:
    """``out[i, j]`` is drawn from, or is, ``p = sigmoid(beta (bias_j + sum_k given[i, k] weights[k, j]))``.

    - ``given``: uint8 0/1, (chains, given units), contiguous.
    - ``weights``: (given units, units), any strides; for the visible layer it is the transposed matrix, not a copy.
    - ``bias``: (units,), contiguous, the weights' dtype.
    - ``out``: (chains, units), contiguous: uint8 for states, float32 for probabilities.
    - ``clamped``: bool (chains, units), any strides, or None; where true ``out`` takes ``previous`` (contiguous).
    """

    given: Tensor
    weights: Tensor
    bias: Tensor
    out: Tensor
    beta: float
    seed: int
    step: int
    stream: Stream
    first_chain: int
    clamped: Tensor | None = None
    previous: Tensor | None = None

    @property
    def groups(self) -> int:
        """Groups of four units in a chain: the draws of a chain begin at a group of their own."""
        return (self.out.shape[1] + 3) // 4
