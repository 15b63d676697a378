"""Efficiency of a sampler: independent draws per second, beside steps per second.

How well chains mix (`mixing`) does not depend on what else runs. The steps are timed apart (`steps_per_second`), when
nothing else does. Effective sample size and R-hat come from ``arviz-stats`` (Vehtari et al. 2021). A sampler with twice
the step rate but three times the autocorrelation time is the worse one here.
"""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..api.records import Efficiency
from ..api.samplers import ExactLaw, Sampler, State, Target
from .chains import start_of

CHAINS = 16
STEPS = 512
TIMINGS = 3
TIMED_STEPS = 64, 8
"""In a timed call: of quick steps, and of slow ones, 8 of which take longer than `SLOW` seconds. All steps cost the
same, and `bench` times more carefully."""
SLOW = 0.02
TRACED_ELEMENTS = 1 << 15
"""Of positions for which an observable is computed at once."""
FEWEST_CHANGES = 2
"""A chain is stuck if an observable changes fewer times than this in one half of it.

Effective sample size and split R-hat compare the halves of all chains. With fewer than two changes
in a half, no stay at a value is seen from its beginning to its end, so that half gives no correlation time.
"""
MOST_R_HAT = 1.05
"""Chains with a larger split R-hat did not mix.

Halves of n steps at autocorrelation time tau have ``R-hat^2 = 1 + (tau - 1) / n``, so 1.05 means about 10 independent
draws in each half, and 320 in the 32 halves of `CHAINS` chains. Vehtari et al. ask for 400 draws in at least 4 chains:
50 in each half, or 1.01. With 32 halves that would ask for four times their number of draws.
"""


class SkippedWork(RuntimeError):
    """A timed call did not make its steps, or left them for later."""


class Undefined(ValueError):
    """A chain is stuck, so the draws have no effective sample size. The message names the chain."""


def mixing(
    sampler: Sampler,
    target: Target,
    temperature: float,
    device: torch.device,
    seed: int,
    *,
    chains: int = CHAINS,
    steps: int = STEPS,
) -> Efficiency:
    """Run ``chains`` chains and record ``steps`` steps, untimed.

    The chains begin with exact draws if the law is known. Otherwise they begin at random and discard ``steps / 4``
    steps as burn-in. Raises `Undefined` if a chain is stuck.
    """
    law = target.law(temperature, sampler.dynamics(target))
    state = _begun(sampler, target, law, temperature, device, seed, chains)
    if law is None:
        state = sampler.advance(state, max(steps // 4, 1), temperature)
    path = []
    for _ in range(steps):
        state = sampler.advance(state, 1, temperature)
        path.append(state["x"].detach().cpu().clone())
    accepted = sampler.accepted(state).double().mean().item() if sampler.accepted else None
    traces = {"energy": _trace(target.energy, path)}
    for projection in law.projections if law else ():
        if projection.mean is not None:
            traces[projection.name] = _trace(projection.of, path)
    worth = {name: effective_sample_size(trace, name) for name, trace in traces.items()}
    worst = min(worth, key=lambda name: worth[name])
    energies = traces["energy"].mean(0)
    return Efficiency(
        steps_per_second=None,
        ess_per_second=None,
        r_hat=max(split_r_hat(trace) for trace in traces.values()),
        autocorrelation_time=chains * steps / worth[worst],
        acceptance=accepted,
        energy_mean=float(energies.mean()),
        quantity=worst,
        energy_trace=tuple(energies.tolist()),
    )


def steps_per_second(
    sampler: Sampler,
    target: Target,
    temperature: float,
    device: torch.device,
    seed: int,
    *,
    chains: int = CHAINS,
    clock: Callable[[], float] = perf_counter,
) -> float:
    """Steps per second of ``chains`` chains together, by ``clock``: the fastest of `TIMINGS` calls of ``advance``.

    Afterwards the same steps are made again, one in a call. Raises `SkippedWork` if these end in other states.
    """
    law = target.law(temperature, sampler.dynamics(target))
    state = _begun(sampler, target, law, temperature, device, seed, chains)
    ends: list[tuple[int, Tensor]] = []

    def seconds(steps: int) -> float:
        nonlocal state
        _wait_for(device)
        since = clock()
        state = sampler.advance(state, steps, temperature)
        _wait_for(device)
        spent = clock() - since
        if type(state) is not dict or type(state["x"]) is not Tensor:
            raise SkippedWork('advance must return a plain dict with a plain tensor "x": others may compute later')
        ends.append((steps, state["x"].detach().clone()))
        return spent

    many, few = TIMED_STEPS
    seconds(1)  # what is prepared once
    steps = many if seconds(few) < SLOW else few
    rate = chains * steps / max(min(seconds(steps) for _ in range(TIMINGS)), 1e-9)
    again = _begun(sampler, target, law, temperature, device, seed, chains)
    for made, end in ends:
        for _ in range(made):
            again = sampler.advance(again, 1, temperature)
        if not torch.equal(again["x"], end):
            raise SkippedWork(f"a timed call of {made} steps ended in other states than the same steps one by one")
    return rate


def at_speed(found: Efficiency, rate: float) -> Efficiency:
    """``found`` with this number of steps per second."""
    return replace(found, steps_per_second=rate, ess_per_second=rate / found.autocorrelation_time)


def _begun(
    sampler: Sampler,
    target: Target,
    law: ExactLaw | None,
    temperature: float,
    device: torch.device,
    seed: int,
    chains: int,
) -> State:
    start = start_of(target, law, chains, seed, f"efficiency {temperature}")
    return sampler.init(target, start.to(device), seed, 0)


def effective_sample_size(draws: np.ndarray[Any, Any], quantity: str = "the observable") -> float:
    """The number of independent draws that estimate the mean of ``draws`` (chains, steps) equally well.

    Raises `Undefined` if a chain is stuck: ArviZ would return a number, often larger than that of all draws.
    """
    from arviz_stats.base.array import array_stats

    if words := stuck_in_words(draws, quantity):
        raise Undefined(words)
    stats: Any = array_stats
    return float(stats.ess(draws, chain_axis=0, draw_axis=1, method="mean"))


def split_r_hat(draws: np.ndarray[Any, Any]) -> float:
    """Split R-hat of ``draws`` (chains, steps): near 1 if the halves of all chains agree.

    Raises `Undefined` if a chain is stuck.
    """
    from arviz_stats.base.array import array_stats

    if words := stuck_in_words(draws, "the observable"):
        raise Undefined(words)
    stats: Any = array_stats
    return float(stats.rhat(draws, chain_axis=0, draw_axis=1, method="split"))


def not_mixed(r_hat: float) -> str:
    """Why chains with this R-hat did not mix, in words; empty if they did."""
    return "" if r_hat <= MOST_R_HAT else f"R-hat is {r_hat:.4g}, above {MOST_R_HAT}"


def changes_of(draws: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How often each chain of ``draws`` (chains, steps) changes in the half in which it changes less: (chains,)."""
    half = draws.shape[1] // 2
    halves = draws[:, :half], draws[:, -half:]
    changes = [(each[:, 1:] != each[:, :-1]).sum(1) for each in halves]
    return np.asarray(np.min(changes, axis=0))


def stuck_in_words(draws: np.ndarray[Any, Any], quantity: str) -> str:
    """Which chain of ``draws`` (chains, steps) is stuck (see `FEWEST_CHANGES`), in words; empty if none is."""
    changes = changes_of(draws)
    stuck = np.flatnonzero(changes < FEWEST_CHANGES)
    if not len(stuck):
        return ""
    changed = "never changed" if changes[stuck[0]] == 0 else "changed only once"
    words = f"chain {stuck[0]} is stuck: {quantity} {changed} in {draws.shape[1] // 2} steps"
    return words + (f"; {len(stuck)} of {len(draws)} chains are stuck" if len(stuck) > 1 else "")


def _trace(of: Callable[[Tensor], Tensor], path: list[Tensor]) -> np.ndarray[Any, Any]:
    """An observable along the path, (chains, steps), float64; asked for parts that fit into a CPU's cache."""
    together = max(TRACED_ELEMENTS // max(path[0].numel(), 1), 1)
    parts = [of(torch.cat(path[i : i + together])).detach().double().numpy() for i in range(0, len(path), together)]
    return np.concatenate(parts).reshape(len(path), -1).T


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
