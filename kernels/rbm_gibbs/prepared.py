"""Weights split for tensor cores: the precisions, and the error that each adds to a logit.

States are 0 or 1, which bfloat16 and int8 hold exactly. So float32 weights need three products, not nine.

========= ================================================ ======================================================
precision form of the weights ``W``                        error of the sum of the weights ``w`` of units at 1
========= ================================================ ======================================================
float32   ``W`` in its own dtype                           ``K u sum|w|``, ``u = 2**-24``: sums in any order
bf16      ``W1 = bfloat16(W)``                             ``2**-8 sum|w|``, and ``2 K u (1 + 2**-8) sum|w|``
bf16x3    ``W1 + W2 + W3``, each the bfloat16 of the rest  ``6 K u (1 + 2**-6) sum|w|``; the split is exact for
          after the parts before it                        ``|w| >= 2**-109``: three times 8 bits are 24 bits
int8x3    ``s (2**16 D1 + 2**8 D2 + D3)``, digits of 8     ``s / 2`` for each unit at 1, at most ``1.004 * 2**-23``
          bits, and one power of two ``s`` for each drawn  times the largest weight of the drawn unit; the sums
          unit                                             are exact in int32, in any order
========= ================================================ ======================================================

K is the number of given units. Where tensor cores add, the error is ``2 u`` instead of ``u``, because they truncate
aligned terms instead of rounding them (Fasi, Higham, Mikaitis, Pranesh, "Numerical behavior of NVIDIA tensor cores",
PeerJ Computer Science 7:e330, 2021). The last few steps round by another ``3 u (|bias| + sum|w|)``, and ``beta`` scales
the total.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.derivatives import require_no_transform
from ..common.dispatch import require_tensor

PRODUCTS = {"bf16": 1, "bf16x3": 3, "int8x3": 3}
"""The number of products in each precision that splits the weights."""
PRECISIONS = ("float32", *PRODUCTS)
WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

UNITS_MULTIPLE = 128
"""The rows of an operand fill whole tiles of every kernel, so that no kernel masks loads of weights."""
GIVEN_MULTIPLE = 64
LARGEST_NUMBER = 0x7F7F7F
"""The largest number of three signed digits of 8 bits, each at most 127."""
MOST_UNITS = 1 << 24
"""So many units keep offsets in a tile of 128 chains within 32 bits."""
MOST_GIVEN_UNITS = 1 << 16
"""So many given units keep ``256 sum D1 + sum D2`` within an int32."""


@dataclass(frozen=True, eq=False)
class Operand:
    """The matrix of one half sweep: a row for each drawn unit, and zeros beyond the last unit.

    - ``parts``: bfloat16 or int8, (products, drawn units, given units), contiguous, with both numbers of units rounded
      up to multiples of `UNITS_MULTIPLE` and `GIVEN_MULTIPLE`.
    - ``scale``: float32 (drawn units, rounded up), powers of two, for ``int8x3``; otherwise None.
    - ``given_units``: the number of given units, not rounded up.
    """

    parts: Tensor
    scale: Tensor | None
    given_units: int

    @property
    def precision(self) -> str:
        return "int8x3" if self.scale is not None else "bf16" if len(self.parts) == 1 else "bf16x3"

    def numbers(self) -> Tensor:
        """The integers that the digits of ``int8x3`` represent: float64, (drawn units, given units)."""
        high, middle, low = self.parts.to(torch.float64).unbind()
        return 65536.0 * high + 256.0 * middle + low


@dataclass(frozen=True, eq=False)
class PreparedWeights:
    """Weights for `gibbs`, from `prepare_weights`.

    ``source`` is the caller's matrix, and ``version`` its version counter at the time. ``to_hidden`` and ``to_visible``
    are the matrices of the two half sweeps; both are None for ``float32``.
    """

    precision: str
    source: Tensor
    version: int | None
    to_hidden: Operand | None
    to_visible: Operand | None

    @property
    def is_current(self) -> bool:
        """False after the source was written to in place. Tensors made in inference mode count no versions."""
        return self.version is None or self.version == self.source._version


def prepare_weights(weights: Tensor, precision: str) -> PreparedWeights:
    """Split ``weights`` once, for any number of calls of `gibbs` in ``precision``.

    Args:
        weights: shape (visible units, hidden units), float32, float16 or bfloat16; any strides; finite. The result
            keeps a reference, not a copy. After a write in place it is out of date, and `gibbs` raises; a write past
            autograd (``weights.data``, a NumPy view) goes unnoticed.
        precision: ``float32``, ``bf16``, ``bf16x3`` or ``int8x3``; see the table in this module.

    Raises:
        TypeError: ``weights`` is not a dense tensor of a supported dtype.
        ValueError: ``weights`` is not a matrix, has more than 2**24 units (``int8x3``: 2**16), holds NaN or an
            infinity, or does not fit the range of bfloat16 where it is split into that; or ``precision`` is unknown.
    """
    require_no_transform("prepare_weights")
    require_tensor("weights", weights, WEIGHT_DTYPES, None)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if weights.dim() != 2:
        raise ValueError(f"weights must have shape (visible units, hidden units), got {tuple(weights.shape)}")
    most = {"float32": max(weights.shape), "int8x3": MOST_GIVEN_UNITS}.get(precision, MOST_UNITS)
    if max(weights.shape) > most:
        raise ValueError(f"weights must have at most {most} units for {precision}, got {tuple(weights.shape)}")
    matrix = weights.detach().to(torch.float32)
    if not bool(torch.isfinite(matrix).all()):
        raise ValueError("weights must be finite")
    version = None if weights.is_inference() else weights._version
    if precision == "float32":
        return PreparedWeights(precision, weights, version, None, None)
    to_hidden, to_visible = (_operand(each, precision) for each in (matrix.t(), matrix))
    return PreparedWeights(precision, weights, version, to_hidden, to_visible)


def _operand(matrix: Tensor, precision: str) -> Operand:
    """``matrix`` is float32, (drawn units, given units)."""
    units, given = matrix.shape
    rows, columns = (-(-size // by) * by for size, by in ((units, UNITS_MULTIPLE), (given, GIVEN_MULTIPLE)))
    padded = matrix.new_zeros((rows, columns))
    padded[:units, :given] = matrix
    if precision == "int8x3":
        return Operand(*_digits(padded), given)
    parts = []
    for _ in range(PRODUCTS[precision]):
        parts.append(padded.to(torch.bfloat16))
        padded = padded - parts[-1].to(torch.float32)
    if not bool(torch.isfinite(parts[0]).all()):
        raise ValueError("weights must lie within the range of bfloat16, up to 3.389e38")
    return Operand(torch.stack(parts), None, given)


def _digits(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Three digits for each weight, and the least power of two for each row with which its largest weight fits."""
    largest = matrix.abs().amax(1) if matrix.shape[1] else matrix.new_zeros(len(matrix))
    exponent = torch.frexp(largest).exponent.clamp(min=-126) - 23
    exponent = exponent + (largest.double() / _power_of_two(exponent) > LARGEST_NUMBER).to(exponent.dtype)
    scale = _power_of_two(exponent)
    rest = torch.round(matrix.double() / scale[:, None]).to(torch.int32)
    digits = []
    for _ in range(2):
        digits.append(((rest + 128) & 255) - 128)
        rest = (rest - digits[-1]) >> 8
    return torch.stack([rest, *reversed(digits)]).to(torch.int8), scale.to(torch.float32)


def _power_of_two(exponent: Tensor) -> Tensor:
    """Exact, from the bits; float64."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)
