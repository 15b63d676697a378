"""Run a sampler's chains and check every state: its shape, dtype and values, and that the target is unchanged."""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..api.messages import describe_error
from ..api.operations import Status, Unsupported
from ..api.samplers import ExactLaw, Sampler, State, Target, Temperature, temperature_at

Advances = Sequence[tuple[int, Temperature]]
"""The arguments of successive calls of ``Sampler.advance``: steps and temperature."""


class Fault(Exception):
    """A sampler broke its contract. The message says how, and at which step and chain."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class ImpossibleState(Fault):
    """A state has an element that is not finite, or is not one of a discrete element's values."""


class Chains:
    """A sampler on a target. Every error of the sampler is raised as a `Fault`, except `Unsupported` in ``advance``."""

    def __init__(self, sampler: Sampler, target: Target) -> None:
        self._sampler, self._target = sampler, target
        self._kept = {name: copy.deepcopy(value) for name, value in target.parameters.items()}

    def path(self, start: Tensor, seed: int, advances: Advances, first_chain: int = 0) -> Iterator[Tensor]:
        """Yield the positions (chains, *shape) after each of ``advances``.

        A fault after several steps is located by a second run, step by step, so that the message names its first step.
        """
        done: list[tuple[int, Temperature]] = []
        state = self._begin(start, seed, first_chain)
        for steps, temperature in advances:
            total = sum(each for each, _ in done) + steps
            where = f"step {total}" if steps == 1 else f"one of the steps up to {total}"
            try:
                state = self._advance(state, steps, temperature, where)
                x = self._position(state, start, first_chain, where)
            except Fault as fault:
                if steps > 1:
                    self._locate([*done, (steps, temperature)], start, seed, first_chain)
                raise fault from None
            done.append((steps, temperature))
            yield x

    def last(self, start: Tensor, seed: int, advances: Advances, first_chain: int = 0) -> Tensor:
        """The positions after all of ``advances``."""
        *_, x = self.path(start, seed, advances, first_chain)
        return x

    def _locate(self, advances: Advances, start: Tensor, seed: int, first_chain: int) -> None:
        """Repeat ``advances`` one step at a time, which raises the fault at its first step."""
        single = [(1, temperature_at(temperature, step)) for steps, temperature in advances for step in range(steps)]
        for _ in self.path(start, seed, single, first_chain):
            pass

    def _begin(self, start: Tensor, seed: int, first_chain: int) -> State:
        where = "init"
        try:
            state = self._sampler.init(self._target, start.clone(), seed, first_chain)
        except Exception as error:
            raise Fault(Status.ERROR, f"{where} raised {describe_error(error)}") from error
        x = self._position(state, start, first_chain, where)
        if not torch.equal(x, start):
            chain = first_chain + _first_row(x != start)
            raise Fault(Status.WRONG_VALUES, f"{where}, chain {chain}: the state does not begin at the given start")
        return state

    def _advance(self, state: State, steps: int, temperature: Temperature, where: str) -> State:
        try:
            return self._sampler.advance(state, steps, temperature)
        except Unsupported:
            raise
        except Exception as error:
            raise Fault(Status.ERROR, f"{where}: advance raised {describe_error(error)}") from error

    def _position(self, state: State | None, start: Tensor, first_chain: int, where: str) -> Tensor:
        """A checked copy of ``state["x"]``."""
        if state is None:
            function = "init" if where == "init" else "advance"
            raise Fault(Status.ERROR, f"{where}: {function} returned None instead of the state: its return is missing")
        try:
            x = state["x"]
        except (TypeError, KeyError, IndexError) as error:
            raise Fault(Status.ERROR, f'{where}: the state has no "x": {describe_error(error)}') from error
        if not isinstance(x, Tensor):
            raise Fault(Status.ERROR, f'{where}: state["x"] is a {type(x).__name__}, not a tensor')
        if x.shape != start.shape:
            raise Fault(Status.WRONG_SHAPE, f"{where}: shape {tuple(x.shape)}, not {tuple(start.shape)}")
        if x.dtype != start.dtype:
            raise Fault(Status.WRONG_DTYPE, f"{where}: {x.dtype}, not {start.dtype}")
        if x.device != start.device:
            raise Fault(Status.ERROR, f"{where}: the state lies on {x.device}, not {start.device}")
        x = x.detach().clone()
        wrong, wanted = _impossible(x)
        if wrong.any():
            chain = _first_row(wrong)
            value = x[chain][wrong[chain]].reshape(-1)[0].item()
            words = f"{where}, chain {first_chain + chain}: {value}, which is not {wanted}"
            raise ImpossibleState(Status.WRONG_VALUES, words)
        moved = self._moved_though_clamped(x, start)
        if moved is not None and moved.any():
            chain = _first_row(moved)
            element = int(moved[chain].flatten().nonzero()[0])
            raise Fault(Status.WRONG_VALUES, f"{where}, chain {first_chain + chain}: clamped element {element} changed")
        if name := self._modified():
            raise Fault(Status.MODIFIED_INPUT, f"{where}: the target's parameter {name!r} was modified")
        return x

    def _moved_though_clamped(self, x: Tensor, start: Tensor) -> Tensor | None:
        clamped = self._target.clamped
        return None if clamped is None else (x != start) & clamped.to(x.device)

    def _modified(self) -> str | None:
        """Restore all parameters of the target and return the name of one that was modified, if any."""
        found = None
        for name, kept in self._kept.items():
            value = self._target.parameters.get(name)
            if not _same(value, kept):
                found = found or name
                _restore(value, kept)
        return found


def start_of(target: Target, law: ExactLaw | None, chains: int, seed: int, purpose: str) -> Tensor:
    """Start positions on the CPU: exact draws if the law is known, arbitrary positions otherwise.

    The generator's seed is a digest of ``seed`` and ``purpose``, so a sampler seeded with ``seed`` draws other numbers.
    """
    digest = hashlib.sha256(f"{purpose} {seed}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    shape = (chains, *target.shape)
    if law is not None:
        x = law.draw(chains, generator)
    elif target.torch_dtype.is_floating_point:
        x = torch.randn(shape, generator=generator)
    else:
        x = torch.randint(0, 2, shape, generator=generator)
        x = 2 * x - 1 if target.torch_dtype == torch.int8 else x
    if x.shape != shape:
        raise Fault(Status.ERROR, f"target {target.name}: its law draws {tuple(x.shape)}, not {shape}")
    return x.to(target.torch_dtype)


def _impossible(x: Tensor) -> tuple[Tensor, str]:
    if x.dtype == torch.uint8:
        return x > 1, "0 or 1"
    if x.dtype == torch.int8:
        return (x != 1) & (x != -1), "-1 or 1"
    return ~torch.isfinite(x), "finite"


def _first_row(wrong: Tensor) -> int:
    return int(wrong.reshape(len(wrong), -1).any(1).nonzero()[0].item())


def _same(value: Any, kept: Any) -> bool:
    if isinstance(kept, Tensor):
        return isinstance(value, Tensor) and value.shape == kept.shape and torch.equal(value, kept)
    if isinstance(kept, np.ndarray):
        return isinstance(value, np.ndarray) and np.array_equal(value, kept)
    return bool(value == kept)


def _restore(value: Any, kept: Any) -> None:
    if isinstance(value, Tensor) and isinstance(kept, Tensor) and value.shape == kept.shape:
        with torch.no_grad():
            value.copy_(kept)
    elif isinstance(value, np.ndarray) and isinstance(kept, np.ndarray) and value.shape == kept.shape:
        np.copyto(value, kept)
