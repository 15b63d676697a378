"""Notices what a plugin leaves in the process to work outside of the timed interval, and functions that it replaced.

The state to compare with is that of the import of this module, which comes before any plugin is imported, or that of
the moment before an implementation is prepared.
"""

import gc
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FUNCTIONS: list[tuple[Any, tuple[str, ...]]] = [
    (time, ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns")),
    (torch.cuda, ("Event", "CUDAGraph", "Stream", "synchronize", "current_stream", "_sleep")),
    (torch.cuda.Event, ("record", "elapsed_time", "query", "synchronize")),
    (torch, ("allclose", "isclose", "equal", "empty", "zeros", "stack", "sum", "where", "ne")),
    (torch, ("rand", "randn", "randint", "randperm")),
    (np, ("percentile", "median", "quantile", "sort")),
    (statistics, ("median",)),
    (gc, ("disable", "enable", "isenabled")),
    (sys, ("getprofile", "gettrace", "_current_frames")),
]


def _contents(owner: Any) -> dict[str, tuple[Any, Any]]:
    """What a class or a module holds, with the code of its functions, which may be replaced as well."""
    return {name: (each, getattr(each, "__code__", None)) for name, each in vars(owner).items()}


_ORIGINALS = [(owner, name, getattr(owner, name)) for owner, names in _FUNCTIONS for name in names]
_TENSOR = _contents(Tensor)
_MADE_LATER = ("__abstractmethods__", "_abc_impl", "__slotnames__", "__weakref__")


def _operators() -> set[str]:
    """The operators that Python code stands behind. Those of transforms are torch's own, made on their first use."""
    return {name for name in torch.library._impls if name.startswith("aten/") and "/FuncTorch" not in name}


_OPERATORS = _operators()

_get_profile, _get_trace, _collects = sys.getprofile, sys.gettrace, gc.isenabled
_PROFILE, _TRACE = _get_profile(), _get_trace()
_current_frames, _sleep = sys._current_frames, time.sleep
_tool: Callable[[int], str | None] | None = None
if sys.version_info >= (3, 12):
    _tool = sys.monitoring.get_tool
_function_modes = torch._C._len_torch_function_stack
_dispatch_modes = torch._C._len_torch_dispatch_stack

IDLE_SECONDS, BUSY_SECONDS = 5e-3, 5e-4
"""Threads are watched for the former while nothing is launched; those that work longer than the latter are noticed."""

_classes: list[tuple[type, dict[str, tuple[Any, Any]]]] = []


def watch(*classes: type) -> None:
    """Let `replaced_functions` name what is replaced in these classes of the harness from now on."""
    _classes.extend((each, _contents(each)) for each in classes)


def replaced_functions() -> list[str]:
    """Functions that read the time, judge results or stand behind a tensor's methods, and were replaced since this
    module was imported."""
    found = [f"{owner.__name__}.{name}" for owner, name, original in _ORIGINALS if getattr(owner, name) is not original]
    for owner, before in [(Tensor, _TENSOR), *_classes]:
        now = _contents(owner)
        nothing = (None, None)
        changed = [name for name in {**before, **now} if not _same(before.get(name, nothing), now.get(name, nothing))]
        found += [f"{owner.__name__}.{name}" for name in changed if name not in _MADE_LATER]
    return found + sorted(_operators() - _OPERATORS)


def _same(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return one[0] is other[0] and one[1] is other[1]


def hook_in_place(collects: bool) -> str | None:
    """What may call Python code of a plugin at the next event of the interpreter; None if there is nothing.

    ``collects``: whether the garbage collector was on before. Call this within the timed interval, where a hook that
    removes itself in time is paid for: it takes 0.2 us.
    """
    if _get_profile() is not _PROFILE:
        return "a profile function (sys.setprofile)"
    if _get_trace() is not _TRACE:
        return "a trace function (sys.settrace)"
    if _tool and (_tool(0) or _tool(1) or _tool(2) or _tool(3) or _tool(4) or _tool(5)):
        return "a tool of sys.monitoring"
    if not collects and _collects():
        return "the garbage collector, turned on by the launch, whose callbacks run at any time"
    return None


class Surroundings:
    """What a launch finds in the process: taken before ``prepare``, compared after launches."""

    def __init__(self) -> None:
        self._modes = _function_modes(), _dispatch_modes()
        self._threads = set(_current_frames())
        self._timers = self._itimers()

    def mode_in_place(self) -> str | None:
        """Which kind of torch mode was left active: it would run with the next operation of torch."""
        for before, now, kind in zip(
            self._modes, (_function_modes(), _dispatch_modes()), ("function", "dispatch"), strict=True
        ):
            if before != now:
                return f"a torch {kind} mode"
        return None

    def unknown_threads(self) -> int:
        """How many Python threads started since `know_threads`, or since the beginning, and have not ended."""
        return len(_current_frames().keys() - self._threads)

    def know_threads(self) -> None:
        """Take the present threads as known: from now on they may wait, or work during launches."""
        self._threads |= set(_current_frames())

    def remarks(self, disturb: Callable[[], object]) -> list[str]:
        """What a plugin left in the process. ``disturb`` writes other inputs, for which a thread may wait."""
        found = []
        if len(_current_frames()) > 1:
            before = _seconds_of_threads()
            disturb()
            _sleep(IDLE_SECONDS)
            worked = sum(seconds - before.get(number, 0.0) for number, seconds in _seconds_of_threads().items())
            if worked > BUSY_SECONDS:
                found.append("a thread of Python works between the launches")
        if self._itimers() != self._timers:
            found.append("a timer that interrupts the process was set (signal.setitimer)")
        return found

    @staticmethod
    def _itimers() -> list[bool]:
        kinds = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
        return [signal.getitimer(kind) != (0.0, 0.0) for kind in kinds]


def _seconds_of_threads() -> dict[int, float]:
    """The processor time of each thread that `threading` knows, besides this one; nothing where Linux does not tell."""
    found = {}
    for thread in threading.enumerate():
        number = thread.native_id
        if number is None or number == threading.get_native_id():
            continue
        try:
            found[number] = int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0]) * 1e-9
        except (OSError, ValueError, IndexError):
            continue
    return found
