"""Runs of a sampler that show whether its random numbers are independent and new: p-values, in words.

The tests of the paths that they make are in `independence`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .chains import Advances, Chains
from .independence import (
    RARELY,
    above_the_median,
    dependence,
    idle_chains,
    never_changed,
    never_left,
    repeats,
    same_paths,
)

APART = 1 << 26
"""Between the numbers of chains, or seeds, that are compared: numbers modulo any smaller power of 2 agree."""
FAR = 1_000_003
"""Number of a first chain elsewhere: odd, and beyond 16 bits."""
MOST_IDLE, COPIES = 8, 32
"""Chains that never moved whose starts are tried again, and how often each."""
STREAM_STEPS = 4
EVERY_STEP, FEW = 200, 15
"""See `compared_steps`."""

Array = np.ndarray[Any, Any]


def dependent_streams(run: Chains, starts: Tensor, chains: int, seed: int, temperature: float) -> tuple[float, str]:
    """Whether chains from one of ``starts`` depend on each other, or on those of other seeds and numbers."""
    start = _movable(run, starts, seed, temperature).expand(chains, *starts.shape[1:]).contiguous()
    groups: dict[str, Array] = {}
    paths: dict[str, Tensor] = {}
    for number, first in ((seed, 0), (seed + 1, 0), (seed, APART), (seed + APART, 0)):
        name = f"seed {number}" + f" from chain {first}" * (first > 0)
        path = torch.stack([start, *run.path(start, number, [(1, temperature)] * STREAM_STEPS, first)]).cpu()
        if bool((path[-1] == path[-1][0]).all()):
            words = f"from one start, all {chains} chains are in the same state after {STREAM_STEPS} steps"
            return float((1 - RARELY) ** (chains - 1)), words
        paths[name] = path[1:].transpose(0, 1).flatten(1)
        above = above_the_median(path)
        groups[f"{name}, even chains"], groups[f"{name}, odd chains"] = above[:, ::2], above[:, 1::2]
    p_value, words = min(same_paths(paths), dependence(groups))
    return min(2 * p_value, 1.0), words


def _movable(run: Chains, starts: Tensor, seed: int, temperature: float) -> Tensor:
    """One of ``starts``, (1, *shape): that which most chains leave in a step."""
    copies = starts.repeat_interleave(8, 0)
    left = (run.last(copies, seed, [(1, temperature)]) != copies).flatten(1).any(1)
    return starts[left.view(len(starts), 8).sum(1).argmax()][None]


def never_moved(run: Chains, path: Tensor, start: Tensor, seed: int, temperature: float) -> tuple[float, str]:
    """Whether some element or chain of ``path`` (steps + 1, chains, ...) from ``start`` never moves.

    Copies of an idle chain, with other numbers, tell whether its start is hard to leave.
    """
    elements = path.flatten(2)
    p_value, words = never_changed(elements)
    steps, chains = len(path) - 1, path.shape[1]
    idle = idle_chains(elements)[:MOST_IDLE]
    if p_value < 1 or not idle:
        return p_value, words
    copies = start[idle].repeat_interleave(COPIES, 0)
    calls: Advances = [(1, temperature)] * min(steps, COPIES)
    again = torch.stack([copies, *run.path(copies, seed, calls, FAR)]).cpu()
    found = [never_left(part, steps) for part in torch.split(again, COPIES, 1)]
    worst = int(np.argmin(found))
    return min(found[worst] * chains, 1.0), f"chain {idle[worst]} never moved in {steps} steps; copies of it do"


def repeated_numbers(
    run: Chains, moves: Mapping[int, tuple[Tensor, Tensor]], seed: int, temperature: float
) -> tuple[float, str]:
    """Whether a step repeats the random numbers of step 1, as a new run draws them.

    ``moves`` holds the positions before and after the step that follows so many others; `compared_steps` says which
    are enough. A sampler with state beside its positions can pass undetected, because that state changes the move.
    """

    steps = compared_steps(moves)

    def p_value(step: int) -> float:
        here, there = moves[step]
        again = run.last(here, seed, [(1, temperature)]).cpu()
        if not torch.equal(again, there):
            return 1.0
        control = run.last(here, seed + 1, [(1, temperature)]).cpu()
        return min(repeats(again, control, there) * len(steps), 1.0)

    for step in steps:
        if p_value(step) < 1:
            first = next(each for each in sorted(moves) if step % each == 0 and p_value(each) < 1)
            return p_value(first), f"step {first + 1} draws the same random numbers as step 1"
    return 1.0, f"{len(steps)} steps draw other random numbers than step 1"


def compared_steps(steps: Iterable[int]) -> list[int]:
    """Those of ``steps`` to compare with step 1.

    Of `EVERY_STEP` or more in a row the later half has a multiple of every period up to the last, of fewer the first
    `FEW` and every eighth one of every period up to 32. The first `FEW` also find noise that a few steps share.
    """
    *given, last = sorted(steps)
    if len(given) < EVERY_STEP:
        return [*given[:FEW], *[*given, last][FEW::8]]
    return [*given[:FEW], *given[len(given) // 2 :], last]
