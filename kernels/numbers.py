"""Checks of numbers: every public function of the kernels passes its integers to `integer`, its real numbers to `real`.

Both return a Python number, so that no backend sees another type. A wrong type raises TypeError, a wrong value
ValueError, and the message begins with the argument's name. A bool is not a number here: where one is given, it was
meant for another argument.
"""

import math
import numbers
import operator
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.autograd import forward_ad

INT64_MAX = (1 << 63) - 1
CHECKED_ON = ("cpu",)
"""Types of devices whose tensors may be read to check them. Reading from a GPU would wait for it."""


def integer(name: str, value: object, least: int = 0, most: int = INT64_MAX, why: str = "") -> int:
    """``value`` as an int in [``least``, ``most``]; ``why`` ends the message about a value outside.

    Accepts what `operator.index` accepts, which includes NumPy's integers, and integer tensors of no dimensions on the
    CPU.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        value = _as_int(name, value)
    if not least <= value <= most:
        bound = f"lie in [{_text(least)}, {_text(most)}]"
        if most == INT64_MAX:
            bound = f"be at least {least}" if value < least else f"be at most {_text(most)}"
        raise ValueError(f"{name} must {bound}{why}, got {value}")
    return value


def real(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    positive: bool = False,
    infinite: bool = False,
) -> float:
    """``value`` as a float in [``least``, ``most``], not NaN, and finite unless ``infinite``.

    Accepts int, float, NumPy's numbers, and real tensors of no dimensions on the CPU. The result has no derivative: a
    tensor that requires a gradient or has a tangent is refused. A function with a derivative with respect to a number
    takes the tensor without this check. Under ``torch.compile`` only the type is checked: an operator checks the value
    again when it runs. A compiled transform of ``torch.func`` runs no operator, and accepts any value.
    """
    if isinstance(value, bool) or not isinstance(value, float | int):
        value = _as_float(name, value)
    if torch.compiler.is_compiling():
        return float(value)
    in_range = least <= value <= most and (infinite or -math.inf < value < math.inf) and not (positive and value <= 0)
    if not in_range:
        raise ValueError(f"{name} must {_range(least, most, positive, infinite)}, got {value}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(
            f"{name} must {_range(least, most, positive, infinite)}, got more than a float holds"
        ) from None


def reals(name: str, values: Iterable[object], *, least: float = -math.inf) -> list[float]:
    """The finite numbers of a sequence, or of a tensor of one dimension on any device."""
    if isinstance(values, Tensor):
        require_no_gradient(name, values)
        if values.dim() != 1:
            raise ValueError(f"{name} must have one dimension, got shape {tuple(values.shape)}")
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a sequence of numbers, got {_described(values)}")
    return [real(f"{name}[{index}]", value, least=least) for index, value in enumerate(values)]


def can_check(x: Tensor) -> bool:
    """Whether a function may read the values of ``x`` to check them, and there are any."""
    return x.device.type in CHECKED_ON and x.numel() > 0


def require_no_gradient(name: str, value: Tensor) -> None:
    """Raise ValueError if autograd expects a derivative with respect to ``value``, since there is none."""
    tangent = forward_ad._current_level >= 0 and forward_ad.unpack_dual(value).tangent is not None  # type: ignore[no-untyped-call]
    traced = torch._C._functorch.is_functorch_wrapped_tensor(value)
    if (value.requires_grad and torch.is_grad_enabled()) or tangent or traced:
        raise ValueError(
            f"{name} must not require a gradient or have a tangent, since there is none with respect to it: detach it"
        )


def _as_int(name: str, value: object) -> int:
    if isinstance(value, Tensor):
        fits = not (value.is_floating_point() or value.is_complex() or value.dtype is torch.bool)
        if fits and value.dim() == 0 and value.device.type == "cpu":
            return int(value)
    elif not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]  # it raises for what it cannot convert
        except TypeError:
            pass
    raise TypeError(f"{name} must be an integer, or a CPU tensor with one and no dimensions; got {_described(value)}")


def _as_float(name: str, value: object) -> float:
    if isinstance(value, Tensor):
        if value.dim() == 0 and not value.is_complex() and value.dtype is not torch.bool and value.device.type == "cpu":
            require_no_gradient(name, value)
            return float(value)
    elif not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:  # a fraction
            return math.copysign(math.inf, value)
    raise TypeError(f"{name} must be a number, or a CPU tensor with one and no dimensions; got {_described(value)}")


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        return f"a {dtype} tensor of shape {tuple(value.shape)} on {value.device}"
    return "None" if value is None else f"{value!r:.60} of type {type(value).__name__}"


def _range(least: float, most: float, positive: bool, infinite: bool) -> str:
    finite = "" if infinite else "be finite"
    if most < math.inf:
        return f"lie in [{least:g}, {most:g}]"
    if positive:
        return f"{finite} and positive" if finite else "be positive"
    if least == 0:
        return f"{finite} and not negative" if finite else "not be negative or NaN"
    if least > -math.inf:
        return f"{finite} and at least {least:g}" if finite else f"be at least {least:g}"
    return finite or "not be NaN"


def _text(number: int) -> str:
    """``number``, as the distance from a power of two if it is near a large one."""
    power = number.bit_length()
    distance = (1 << power) - number
    return f"2**{power} - {distance}" if power > 20 and distance < 1 << 16 else str(number)
