"""A time limit for Python code of plugins."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar


class TookTooLong(BaseException):
    """Raised in code that exceeds its time limit. Not an ``Exception``, which that code might catch."""


class limited_to:
    """Raise `TookTooLong` in the body after this time, and again every second in case the body catches it.

    Uses SIGALRM, and sets an alarm that was set before again afterwards. There is no limit outside the main thread, on
    systems without that signal, or for a call that never returns from machine code.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        self._applies = _has_alarm()
        if not self._applies:
            return
        self._alarm, self._interval = signal.setitimer(signal.ITIMER_REAL, 0)
        self._begin = time.monotonic()
        self._before = signal.signal(signal.SIGALRM, self._stop)
        signal.setitimer(signal.ITIMER_REAL, self._seconds, 1.0)

    def __exit__(self, *reason: object) -> None:
        if not self._applies:
            return
        try:
            signal.setitimer(signal.ITIMER_REAL, 0)
        finally:
            signal.signal(signal.SIGALRM, self._before)
            if self._alarm:
                left = self._alarm - (time.monotonic() - self._begin)
                signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3), self._interval)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        while frame:
            if frame.f_code in _OUTSIDE:  # to raise there would leave the alarm set, or this handler in its place
                return
            frame = frame.f_back
        raise TookTooLong(f"stopped after {self._seconds:g} s")


_OUTSIDE = {limited_to.__enter__.__code__, limited_to.__exit__.__code__}
"""The code in which no limit is raised."""

Function = TypeVar("Function", bound=Callable[..., Any])


def unlimited(function: Function) -> Function:
    """A decorator of functions that must come to their end: `TookTooLong` is not raised in them."""
    _OUTSIDE.add(function.__code__)
    return function


def disarm() -> None:
    """Raise `TookTooLong` no more in the body of `limited_to`, which has noticed its end and cleans up."""
    if _has_alarm() and getattr(signal.getsignal(signal.SIGALRM), "__func__", None) is limited_to._stop:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _has_alarm() -> bool:
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
