"""How far a result may lie from the expected value: `bound` derives it from a dtype and the length of a reduction."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Bound:
    """The largest error allowed: ``relative * |y| + typical * rms(y) + absolute`` for each expected value y.

    ``rms(y)`` is the root mean square of all finite values of the result: the size of a typical one. Errors that come
    from terms larger than their sum need it, since there y says nothing about the size of the terms.
    """

    relative: float = 0.0
    typical: float = 0.0
    absolute: float = 0.0

    def __post_init__(self) -> None:
        for name in ("relative", "typical", "absolute"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                raise ValueError(f"{name} must be a finite number of at least 0: got {value!r}")

    def allowed(self, expected: Tensor) -> Tensor:
        """The bound of each element of ``expected``, which is float64. Not finite where that is not."""
        size = expected.abs()
        finite = size[size.isfinite()]
        peak = float(finite.max()) if finite.numel() else 0.0
        rms = peak * float((finite / peak).square().mean().sqrt()) if peak else 0.0  # no square overflows
        return self.relative * size + (self.typical * rms + self.absolute)

    def __str__(self) -> str:
        return f"{self.relative:.2g} of each value + {self.typical:.2g} of a typical one" + (
            f" + {self.absolute:.2g}" if self.absolute else ""
        )


def bound(dtype: torch.dtype, reduction_length: int = 1, *, accumulate: torch.dtype | None = None) -> Bound:
    """The bound for results of ``dtype``, each a sum of ``reduction_length`` terms.

    With eps, the machine epsilon of ``dtype``, and g = 4 (sqrt(reduction_length) + 4) eps(accumulate)::

        |error| <= (2 eps + g) |y| + (eps + g) rms(y)

    Rounding a right result to ``dtype`` costs eps / 2 of it; the rest of the eps is for intermediate results in that
    dtype. Roundings of a sum are nearly independent, so their errors grow as the square root of its length (Higham and
    Mary 2019); they are relative to the partial sums, which are as large as a typical result. For a plain loop g is
    some ten standard deviations. The 4 in it allows for functions such as erf, whose float32 versions are off by up to
    ten eps of a typical result. ``accumulate`` is float32 unless given (float64 for float64). Integers and bools must
    be equal.

    Raises TypeError if an argument is of another type, ValueError if the length is below 1.
    """
    for name, value in (("dtype", dtype), ("accumulate", accumulate)):
        if not isinstance(value, torch.dtype) and (name == "dtype" or value is not None):
            raise TypeError(f"{name} must be a torch.dtype, such as torch.bfloat16: got {value!r}")
    try:
        length = operator.index(reduction_length)
    except TypeError:
        raise TypeError(f"reduction_length must be a whole number: got {reduction_length!r}") from None
    if length < 1:
        raise ValueError(f"reduction_length must be at least 1: got {length}")
    if accumulate is not None and not accumulate.is_floating_point:
        raise TypeError(f"accumulate must be a floating-point dtype: got {accumulate}")
    if not dtype.is_floating_point:
        return Bound()
    accumulate = accumulate or (torch.float64 if dtype is torch.float64 else torch.float32)
    eps, growth = torch.finfo(dtype).eps, 4 * (math.sqrt(length) + 4) * torch.finfo(accumulate).eps
    return Bound(2 * eps + growth, eps + growth)


def reduction_length(results: Sequence[Tensor], inputs: Sequence[Tensor]) -> int | None:
    """The most elements of the inputs that the first, middle or last element of a result depends on, as autograd says.

    None if no result depends on any.
    """
    longest = 0
    for result in results:
        if not (result.requires_grad and result.numel()):
            continue
        for place in sorted({0, result.numel() // 2, result.numel() - 1}):
            element = result.reshape(-1)[place]
            found = torch.autograd.grad(element, inputs, retain_graph=True, allow_unused=True)
            longest = max(longest, sum(int(each.count_nonzero()) for each in found if each is not None))
    return longest or None
