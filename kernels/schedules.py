"""Annealing schedules, one temperature per step: float64 tensors (steps,) on the CPU, positive and finite.

Sources: Kirkpatrick, Gelatt and Vecchi, Science 220 (1983), geometric cooling; Loshchilov and Hutter, ICLR 2017, and
Zhang et al., ICLR 2020, cosine cycles.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .numbers import can_check, integer, real, reals


def constant(steps: int, temperature: float) -> Tensor:
    """``T_t = temperature``."""
    steps, temperature = _require_steps(steps), _require_positive("temperature", temperature)
    return torch.full((steps,), temperature, dtype=torch.float64, device="cpu")


def linear(steps: int, start: float, end: float) -> Tensor:
    """Cooling from ``start`` to ``end``, both included, by equal differences; a single step has ``end``.

    Raises ValueError if ``end`` exceeds ``start``.
    """
    steps, (start, end) = _require_steps(steps), _require_cooling(start, end)
    return _between(start + (end - start) * _fractions(steps), start, end)


def geometric(steps: int, start: float, end: float) -> Tensor:
    """Cooling from ``start`` to ``end``, both included, by equal factors; a single step has ``end``.

    Raises ValueError if ``end`` exceeds ``start``.
    """
    steps, (start, end) = _require_steps(steps), _require_cooling(start, end)
    return _between(start * torch.exp((math.log(end) - math.log(start)) * _fractions(steps)), start, end)


def cyclic_cosine(steps: int, hot: float, cold: float, cycles: int) -> Tensor:
    """``T = cold + (hot - cold) (1 + cos(pi phi)) / 2`` with phi from 0 to 1, both included, in each cycle.

    Raises ValueError if ``cold`` exceeds ``hot``, or unless ``cycles`` divides ``steps`` into cycles of two or more
    steps.
    """
    steps, cycles = _require_steps(steps), integer("cycles", cycles, 1)
    hot, cold = _require_positive("hot", hot), _require_positive("cold", cold)
    if cold > hot:
        raise ValueError(f"cold must not exceed hot, got cold={cold}, hot={hot}")
    if steps % cycles or steps // cycles < 2:
        raise ValueError(f"cycles must divide steps into cycles of two or more, got {cycles} for {steps} steps")
    phase = math.pi * _fractions(steps // cycles)
    return (cold + (hot - cold) * ((1 + torch.cos(phase)) / 2)).repeat(cycles)


def custom(temperatures: Sequence[float] | Tensor, cooling: bool = False) -> Tensor:
    """The given temperatures. ``cooling`` requires that they never rise.

    Raises ValueError if there are none, if one is not positive and finite, or if one rises although ``cooling`` is set.
    """
    values = torch.tensor(reals("temperatures", temperatures), dtype=torch.float64, device="cpu")
    require_schedule("temperatures", values)
    rising = (values.diff() > 0).nonzero()
    if cooling and len(rising):
        step = int(rising[0])
        pair = f"step {step + 1} has {float(values[step + 1])} after {float(values[step])}"
        raise ValueError(f"temperatures must not rise with cooling=True; {pair}")
    return values


def require_schedule(name: str, temperatures: Tensor) -> None:
    """Raise ValueError, naming the argument, unless it is (steps,), not empty, positive and finite.

    Values on a GPU are not checked, since that would wait for the GPU.
    """
    if temperatures.ndim != 1 or not len(temperatures):
        raise ValueError(
            f"{name} must have one temperature for each step, at least one; got {tuple(temperatures.shape)}"
        )
    if can_check(temperatures):
        wrong = (~((temperatures > 0) & temperatures.isfinite())).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise ValueError(f"{name} must be positive and finite, got {float(temperatures[step])} for step {step}")


def _between(temperatures: Tensor, start: float, end: float) -> Tensor:
    """``temperatures``, of which the last is exactly ``end``, and none lies beyond ``start`` or ``end`` by rounding."""
    temperatures.clamp_(end, start)[-1] = end
    return temperatures


def _fractions(steps: int) -> Tensor:
    """From 0 to 1, both included; for a single step 1."""
    if steps == 1:
        return torch.ones(1, dtype=torch.float64, device="cpu")
    return torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")


def _require_steps(steps: int) -> int:
    return integer("steps", steps, 1)


def _require_positive(name: str, temperature: float) -> float:
    return real(name, temperature, positive=True)


def _require_cooling(start: float, end: float) -> tuple[float, float]:
    start, end = real("start", start, infinite=True), real("end", end, infinite=True)
    if 0 <= start < end:
        raise ValueError(
            f"end must not exceed start, since temperatures cool; got start={start}, end={end}; inverse temperatures, "
            "as kernels.ais takes them, are no schedule of temperatures: torch.linspace makes them"
        )
    return _require_positive("start", start), _require_positive("end", end)
