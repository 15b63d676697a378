"""Half a sweep: all units of one layer are drawn given the other. What every backend implements."""

from dataclasses import dataclass

from torch import Tensor

from ..philox import Stream
from .prepared import Operand


@dataclass(frozen=True)
class HalfSweep:
    """``out[i, j]`` is drawn from, or is, ``p = sigmoid(beta_i (bias_j + sum_k given[i, k] weights[k, j]))``.

    - ``given``: uint8 0/1, (chains, given units); its last dimension is contiguous.
    - ``weights``: (given units, units), any strides; for the visible layer it is the transposed matrix, not a copy.
      Or an `Operand` of that matrix.
    - ``bias``: (units,), contiguous, the weights' dtype; float32 for an `Operand`.
    - ``out``: (chains, units), its last dimension contiguous: uint8 for states, float32 for probabilities.
    - ``beta``: a number, or float64 (chains,), contiguous.
    - ``clamped``: bool (chains, units), any strides, or None; where true ``out`` takes ``previous``, of ``out``'s
      shape, its last dimension contiguous.

    With an `Operand` a draw is the test ``u (1 + exp(-x)) < 1`` in place of ``u < p``. For digits of int8 the state is
    that of the test in float64: where float32 is too near to tell, a kernel decides in float64, so that every tiling
    and every backend draws the same.

    Rows of states for an `Operand` begin at multiples of 16 bytes, up to which there are zeros (see `aligned_rows`);
    ``out`` is written up to there.
    """

    given: Tensor
    weights: Tensor | Operand
    bias: Tensor
    out: Tensor
    beta: float | Tensor
    seed: int
    step: int
    stream: Stream
    first_chain: int
    clamped: Tensor | None = None
    previous: Tensor | None = None


ROW_BYTES = 16


def has_aligned_rows(states: Tensor) -> bool:
    """Whether kernels may read and write the rows of ``states`` 16 bytes at a time."""
    return states.is_contiguous() and states.shape[1] % ROW_BYTES == 0 and states.data_ptr() % ROW_BYTES == 0


def aligned_rows(like: Tensor) -> Tensor:
    """Zeros of ``like``'s shape, dtype and device, in rows that begin at multiples of 16 bytes."""
    chains, units = like.shape
    return like.new_zeros((chains, -(-units // ROW_BYTES) * ROW_BYTES))[:, :units]
