"""Half a sweep: all units of one layer are drawn given the other layer. Every backend implements it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..philox import Stream
from .prepared import Operand


@dataclass(frozen=True)
class LaunchRequest:
    """``out[i, j]`` is drawn from, or is, ``p = sigmoid(beta_i (bias_j + sum_k given[i, k] weights[k, j]))``.

    - ``given``: uint8 0/1, (chains, given units); its last dimension is contiguous. With an `Operand` it may be packed,
      int64 (chains, words) as in `states.py`; then ``previous`` and an ``out`` of states are packed too.
    - ``weights``: (given units, units), any strides. The visible layer takes the transposed matrix without a copy. Or
      an `Operand` of that matrix.
    - ``bias``: (units,), contiguous, the weights' dtype; float32 for an `Operand`.
    - ``out``: (chains, units), its last dimension contiguous: uint8 for states, float32 for probabilities.
    - ``beta``: a number, or float64 (chains,), contiguous.
    - ``step``: the step of the stream. Kernels add ``first_step`` to it, int64 of one element on the device, when they
      run.
    - ``clamped``: bool (chains, units), any strides, or None. Where it is true, ``out`` takes ``previous``, which has
      the shape of ``out`` and a contiguous last dimension.

    With an `Operand` a draw is the test ``u (1 + exp(-x)) < 1`` instead of ``u < p``. For digits of int8 the state is
    the result of that test in float64: a kernel decides in float64 where float32 is too near a tie, so that every
    tiling and every backend draws the same states.

    ``sigma``, float32 and contiguous, makes the visible units real-valued. If ``given`` is float32, its place in the
    formula takes ``given / sigma``. If ``given`` is binary, ``out`` and ``previous`` are float32, and ``out[i, j]`` is
    drawn from ``Normal(bias_j + sigma_j sum_k given[i, k] weights[k, j], sigma_j^2 / beta_i)``. All other tensors are
    float32 too.

    With an `Operand`, rows of uint8 states begin at multiples of 16 bytes and hold zeros up to the next multiple (see
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
        """Whether ``out`` holds states of real-valued units, and not probabilities."""
        return self.sigma is not None and not self.gives_reals

    @property
    def units(self) -> int:
        """How many units are drawn."""
        return len(self.bias)

    @property
    def betas(self) -> Tensor | None:
        """The inverse temperature of each chain, or None if `common_beta` is that of all chains."""
        return self.beta if isinstance(self.beta, Tensor) else None

    @property
    def common_beta(self) -> float:
        return 0.0 if isinstance(self.beta, Tensor) else float(self.beta)

    @property
    def clamped_strides(self) -> tuple[int, ...]:
        return (0, 0) if self.clamped is None else self.clamped.stride()


def row_bytes(states: Tensor | None) -> int:
    """Bytes from one row to the next."""
    return 0 if states is None else states.stride(0) * states.element_size()
