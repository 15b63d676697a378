"""The likely cause of failed laws: another law that the sampler's states do have."""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import kstest
from torch import Tensor

from ..api.samplers import Dynamics, ExactLaw, Target
from ..api.statistics import chi_square
from .chains import start_of
from .means import ExactDraws, mean_test

EXACT_DRAWS = 1 << 14
NO_EXCUSE = 1e-3
"""A law explains states if no test of it has a smaller p-value than this, divided by the number of tests."""
CERTAIN = 1e-6
"""States are wrong if a test of their law has a smaller p-value than this."""
FACTORS = (0.25, 0.5, 2.0, 4.0)
"""Of a step size."""
HOT = 1e6
WIDEST = 16.0
"""Largest factor between the temperatures that are tried."""
SEARCHES = 24
SIMPLE = (0.25, 0.5, 1.0, 2.0, 4.0)


def likely_cause(
    target: Target, dynamics: Dynamics, states: Mapping[float, Tensor], seed: int, rejects: bool
) -> str | None:
    """What explains ``states``, which should have the law of ``dynamics`` at the temperatures that they are for.

    ``states`` holds positions (chains, *shape) on the CPU. ``rejects`` says that some chains stay in place in a step.
    None if no other law explains them all.
    """
    if all(_worst(target, t, dynamics, x, seed) > CERTAIN for t, x in states.items()):
        return None
    others = {
        words: min(_worst(target, factor * t, other, x, seed) for t, x in states.items())
        for words, factor, other in _other_laws(target, dynamics, rejects)
    }
    best = max(others, key=others.__getitem__, default="")
    if best and others[best] > NO_EXCUSE:
        return best
    sampled = {t: _temperature_of(target, t, dynamics, x, seed) for t, x in states.items()}
    found = {t: other for t, other in sampled.items() if other is not None}
    if len(found) < len(sampled):
        return None
    return _temperatures_in_words(found)


def _other_laws(target: Target, dynamics: Dynamics, rejects: bool) -> Iterator[tuple[str, float, Dynamics]]:
    """What is wrong if the sampler has another law: that at a multiple of the temperature, of these dynamics."""
    if not target.torch_dtype.is_floating_point:
        yield "all states are equally likely: the energy is ignored, or every proposal is accepted", HOT, dynamics
        yield "the law is that of the energy with the opposite sign", -1.0, dynamics
    step_size = dynamics.numbers.get("step_size")
    if step_size is None or (rejects and dynamics.name == "exact"):
        return
    if dynamics.name == "exact":
        for factor, of in ((1.0, ""), (0.5, " at half the step size"), (2.0, " at twice the step size")):
            words = f"the law is that of Langevin steps without a Metropolis correction{of}"
            yield words, 1.0, Dynamics("langevin", {"step_size": factor * step_size})
        words = "the law is that of leapfrog steps without a Metropolis correction"
        yield words, 1.0, Dynamics("langevin", {"step_size": step_size**2})  # of one or more steps in a quadratic well
        return
    yield f"the law has no bias of the step size, which {dynamics.name} steps have", 1.0, Dynamics()
    for factor in FACTORS:
        other = replace(dynamics, numbers={**dynamics.numbers, "step_size": factor * step_size})
        yield f"the law is that of a step size {factor:g} times as large ({factor * step_size:.4g})", 1.0, other
        yield f"the law is that of a gradient {factor:g} times as large", 1 / factor, other


def _temperatures_in_words(found: Mapping[float, float]) -> str:
    """The rule behind the temperatures ``found`` for those that were asked for."""
    ratios = {t: other / t for t, other in found.items()}
    if len(found) > 1 and max(found.values()) < 1.05 * min(found.values()):
        return f"the law is that of temperature {_about(found.values())} at every temperature: it is ignored"
    if max(ratios.values()) < 1.1 * min(ratios.values()):
        return f"the law is that of {_about(ratios.values())} times the temperature"
    for power in (0.5, 2.0, -1.0):
        if all(abs(math.log(other / t**power)) < 0.1 for t, other in found.items()):
            return f"the law is that of the temperature to the power {power:g}"
    return "the law is that of another temperature: " + ", ".join(f"{o:.3g} for T = {t:g}" for t, o in found.items())


def _about(numbers: Iterable[float]) -> str:
    """The mean of ``numbers`` to two digits, or a simple number that is within 5 % of it."""
    mean = float(np.mean(list(numbers)))
    simple = min(SIMPLE, key=lambda each: abs(math.log(mean / each)))
    return f"{simple:g}" if abs(math.log(mean / simple)) < 0.05 else f"{mean:.2g}"


def _temperature_of(target: Target, temperature: float, dynamics: Dynamics, x: Tensor, seed: int) -> float | None:
    """The temperature whose law explains ``x``: that of the same mean energy, by bisection. None if it does not."""
    energy = float(target.energy(x).double().mean())
    low, high = temperature / WIDEST, temperature * WIDEST
    for _ in range(SEARCHES):
        middle = math.sqrt(low * high)
        law = target.law(middle, dynamics)
        if law is None:
            return None
        found = float(target.energy(start_of(target, law, EXACT_DRAWS, seed, "search")).double().mean())
        low, high = (middle, high) if found < energy else (low, middle)
        if high < 1.005 * low:
            break
    return middle if _worst(target, middle, dynamics, x, seed) > NO_EXCUSE else None


def _worst(target: Target, temperature: float, dynamics: Dynamics, x: Tensor, seed: int) -> float:
    """The smallest p-value of ``x`` under a law, times the number of tests; 0 if there is no such law."""
    try:
        with warnings.catch_warnings(action="ignore"):
            law = target.law(temperature, dynamics)
            p_values = [p for p in _p_values(target, law, x, seed) if not math.isnan(p)] if law else []
    except Exception:  # a target need not have a law at other temperatures and step sizes than it asks for
        return 0.0
    return min(p_values, default=0.0) * len(p_values)


def _p_values(target: Target, law: ExactLaw, x: Tensor, seed: int) -> Iterator[float]:
    draws = start_of(target, law, EXACT_DRAWS, seed, "cause")
    for projection in law.projections:
        values = projection.of(x)
        if projection.probabilities is not None:
            counts = torch.bincount(values.long(), minlength=len(projection.probabilities)).numpy()
            try:
                yield chi_square(counts, projection.probabilities.double().numpy()).p_value or 0.0
            except ValueError:
                yield math.nan  # too few chains for the cells
        numbers = values.double().numpy()
        if projection.cdf is not None:
            yield float(kstest(numbers, projection.cdf, method="asymp").pvalue)
        if projection.mean is not None:
            moments = ExactDraws(projection.of(draws).double().numpy()).moments
            if moments is not None:
                yield mean_test(float(numbers.mean()), projection.mean, moments, len(numbers))[2]
