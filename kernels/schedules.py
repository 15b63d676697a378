"""Temperatures for annealing, one for each step: float64 tensors (steps,) on the CPU, all positive and finite.

Sources: Kirkpatrick, Gelatt and Vecchi, Science 220 (1983), geometric cooling; Loshchilov and Hutter, ICLR 2017, and
Zhang et al., ICLR 2020, cycles of a cosine.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def constant(steps: int, temperature: float) -> Tensor:
    """``T_t = temperature``."""
    _require_steps(steps)
    _require_positive(temperature=temperature)
    return torch.full((steps,), temperature, dtype=torch.float64)


def linear(steps: int, start: float, end: float) -> Tensor:
    """Cooling from ``start`` to ``end``, both included, by the same difference each step; a single step is at ``end``.

    Raises ValueError where ``end`` is above ``start``.
    """
    _require_steps(steps)
    _require_cooling(start, end)
    return start + (end - start) * _fractions(steps)


def geometric(steps: int, start: float, end: float) -> Tensor:
    """Cooling from ``start`` to ``end``, both included, by the same factor each step; a single step is at ``end``.

    Raises ValueError where ``end`` is above ``start``.
    """
    _require_steps(steps)
    _require_cooling(start, end)
    return start * torch.exp(math.log(end / start) * _fractions(steps))


def cyclic_cosine(steps: int, hot: float, cold: float, cycles: int) -> Tensor:
    """``T = cold + (hot - cold) (1 + cos(pi phi)) / 2`` with phi from 0 to 1, both included, in each of the cycles.

    Raises ValueError where ``cold`` is above ``hot``, or the steps do not make so many cycles of two steps or more.
    """
    _require_steps(steps)
    _require_positive(hot=hot, cold=cold)
    if cold > hot:
        raise ValueError(f"cold must not be above hot, got {cold} above {hot}")
    if cycles < 1 or steps % cycles or steps // cycles < 2:
        raise ValueError(f"cycles must divide steps into cycles of two or more, got {cycles} for {steps} steps")
    phase = math.pi * _fractions(steps // cycles)
    return (cold + (hot - cold) * (1 + torch.cos(phase)) / 2).repeat(cycles)


def custom(temperatures: Sequence[float] | Tensor, cooling: bool = False) -> Tensor:
    """The given temperatures, checked. ``cooling`` promises that none is above the one before it.

    Raises ValueError where there are none, one is not positive and finite, or the promise is broken.
    """
    values = torch.as_tensor(temperatures, dtype=torch.float64, device="cpu").clone()
    require_schedule("temperatures", values)
    rising = (values.diff() > 0).nonzero()
    if cooling and len(rising):
        step = int(rising[0])
        pair = f"step {step + 1} has {float(values[step + 1])} after {float(values[step])}"
        raise ValueError(f"temperatures must not rise where cooling is promised; {pair}")
    return values


def require_schedule(name: str, temperatures: Tensor) -> None:
    """Raise ValueError, naming the argument, unless it is (steps,), not empty, positive and finite.

    The values are looked at on a CPU alone, so that nothing waits for a GPU.
    """
    if temperatures.ndim != 1 or not len(temperatures):
        raise ValueError(
            f"{name} must have one temperature for each step, at least one; got {tuple(temperatures.shape)}"
        )
    if temperatures.device.type == "cpu":
        wrong = (~((temperatures > 0) & temperatures.isfinite())).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise ValueError(f"{name} must be positive and finite, got {float(temperatures[step])} for step {step}")


def _fractions(steps: int) -> Tensor:
    """From 0 to 1, both included; 1 alone for a single step."""
    return torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.ones(1, dtype=torch.float64)


def _require_steps(steps: int) -> None:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")


def _require_positive(**temperatures: float) -> None:
    for name, value in temperatures.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def _require_cooling(start: float, end: float) -> None:
    _require_positive(start=start, end=end)
    if end > start:
        raise ValueError(f"end must not be above start, which is where cooling begins; got {end} above {start}")
