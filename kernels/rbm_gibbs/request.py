"""Half a sweep: all units of one layer are drawn given the other. What every backend implements."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..philox import Stream
from .prepared import Operand


@dataclass(frozen=True)
class LaunchRequest:
    """``out[i, j]`` is drawn from, or is, ``p = sigmoid(beta_i (bias_j + sum_k given[i, k] weights[k, j]))``.

    - ``given``: uint8 0/1, (chains, given units); its last dimension is contiguous. For an `Operand` also packed, int64
      (chains, words) as in `states.py`; then ``out``, if of states, and ``previous`` are too.
    - ``weights``: (given units, units), any strides; for the visible layer it is the transposed matrix, not a copy.
      Or an `Operand` of that matrix.
    - ``bias``: (units,), contiguous, the weights' dtype; float32 for an `Operand`.
    - ``out``: (chains, units), its last dimension contiguous: uint8 for states, float32 for probabilities.
    - ``beta``: a number, or float64 (chains,), contiguous.
    - ``step``: of the stream, in addition to what ``first_step``, int64 of one element on the device, holds when the
      kernel runs.
    - ``clamped``: bool (chains, units), any strides, or None; where true ``out`` takes ``previous``, of ``out``'s
      shape, its last dimension contiguous.

    With an `Operand` a draw is the test ``u (1 + exp(-x)) < 1`` in place of ``u < p``. For digits of int8 the state is
    that of the test in float64: where float32 is too near to tell, a kernel decides in float64, so that every tiling
    and every backend draws the same.

    With ``sigma``, float32 of the visible units, contiguous, these are real-valued. Float32 ``given`` stands for
    ``given / sigma``. Where ``given`` is binary, ``out`` and ``previous`` are float32, and ``out[i, j]`` is drawn from
    ``Normal(bias_j + sigma_j sum_k given[i, k] weights[k, j], sigma_j^2 / beta_i)``. All else is float32, too.

    Rows of uint8 states for an `Operand` begin at multiples of 16 bytes, up to which there are zeros (see
    `aligned_rows`); ``out`` is written up to there.
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
    first_step: Tensor | None = None
    clamped: Tensor | None = None
    previous: Tensor | None = None
    sigma: Tensor | None = None

    @property
    def operand(self) -> Operand:
        """The weights, which are prepared ones."""
        assert isinstance(self.weights, Operand)
        return self.weights

    @property
    def packed(self) -> bool:
        """Whether states are bits of words."""
        return self.given.dtype is torch.int64

    @property
    def gives_reals(self) -> bool:
        return self.given.dtype is torch.float32

    @property
    def draws_reals(self) -> bool:
        """Whether ``out`` is of real-valued units: float32, and no probabilities."""
        return self.sigma is not None and not self.gives_reals

    @property
    def units(self) -> int:
        """How many units are drawn."""
        return len(self.bias)
