"""Efficiency of a sampler: independent draws per second, beside steps per second.

Effective sample size and R-hat come from ``arviz-stats`` (Vehtari et al. 2021). A sampler with twice the step rate but
three times the autocorrelation time is the worse one here.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..api.records import Efficiency
from ..api.samplers import Sampler, Target
from .chains import start_of

CHAINS = 16
STEPS = 512
TIMINGS = 3
TIMED_SHARE = 8
"""A timed call makes ``steps / TIMED_SHARE`` steps. All steps cost the same, and `bench` times more carefully."""


def efficiency(
    sampler: Sampler,
    target: Target,
    temperature: float,
    device: torch.device,
    seed: int,
    *,
    chains: int = CHAINS,
    steps: int = STEPS,
    clock: Callable[[], float] = perf_counter,
) -> Efficiency:
    """Run ``chains`` chains, record ``steps`` steps, and time `TIMINGS` more calls of ``advance`` with ``clock``.

    The chains begin with exact draws if the law is known. Otherwise they begin at random and discard ``steps / 4``
    steps as burn-in. Of the timed calls, ``steps / TIMED_SHARE`` steps each, the fastest counts.
    """
    law = target.law(temperature, sampler.dynamics(target))
    start = start_of(target, law, chains, seed, f"efficiency {temperature}")
    state = sampler.init(target, start.to(device), seed, 0)
    if law is None:
        state = sampler.advance(state, max(steps // 4, 1), temperature)
    path = []
    for _ in range(steps):
        state = sampler.advance(state, 1, temperature)
        path.append(state["x"].detach().cpu().clone())
    accepted = sampler.accepted(state).double().mean().item() if sampler.accepted else None

    seconds = []
    timed = max(steps // TIMED_SHARE, 1)
    for _ in range(TIMINGS):
        _wait_for(device)
        since = clock()
        state = sampler.advance(state, timed, temperature)
        _wait_for(device)
        seconds.append(clock() - since)
    rate = chains * timed / max(min(seconds), 1e-9)

    traces = {"energy": _trace(target.energy, path)}
    for projection in law.projections if law else ():
        if projection.mean is not None:
            traces[projection.name] = _trace(projection.of, path)
    worth = {name: effective_sample_size(trace) for name, trace in traces.items()}
    worst = min(worth, key=lambda name: worth[name])
    share = worth[worst] / (chains * steps)
    energies = traces["energy"].mean(0)
    return Efficiency(
        steps_per_second=rate,
        ess_per_second=rate * share,
        r_hat=max(split_r_hat(trace) for trace in traces.values()),
        autocorrelation_time=1 / share,
        acceptance=accepted,
        energy_mean=float(energies.mean()),
        quantity=worst,
        energy_trace=tuple(energies.tolist()),
    )


def effective_sample_size(draws: np.ndarray[Any, Any]) -> float:
    """The number of independent draws that estimate the mean of ``draws`` (chains, steps) equally well.

    It is 1 if all draws are equal.
    """
    from arviz_stats.base.array import array_stats

    if draws.min() == draws.max():
        return 1.0
    stats: Any = array_stats
    return float(stats.ess(draws, chain_axis=0, draw_axis=1, method="mean"))


def split_r_hat(draws: np.ndarray[Any, Any]) -> float:
    """Split R-hat of ``draws`` (chains, steps): near 1 if the halves of all chains agree, infinite if all are equal."""
    from arviz_stats.base.array import array_stats

    if draws.min() == draws.max():
        return float("inf")
    stats: Any = array_stats
    return float(stats.rhat(draws, chain_axis=0, draw_axis=1, method="split"))


def _trace(of: Callable[[Tensor], Tensor], path: list[Tensor]) -> np.ndarray[Any, Any]:
    """An observable along the path, (chains, steps), float64."""
    values = of(torch.cat(path)).detach().double().numpy()
    return np.asarray(values.reshape(len(path), -1).T)


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
