"""A time limit for Python code of plugins."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TookTooLong(BaseException):
    """Raised in code that exceeds its time limit. Not an ``Exception``, which that code might catch."""


@contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Raise `TookTooLong` in the body after this time, and again every second in case the body catches it.

    Uses SIGALRM, and sets an alarm that was set before again afterwards. There is no limit outside the main thread, on
    systems without that signal, or for a call that never returns from machine code.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"stopped after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    begin = time.monotonic()
    alarm, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, max(alarm - (time.monotonic() - begin), 1e-3), interval)


def clean_up_in_peace() -> None:
    """Raise `TookTooLong` no more in the body of `limited_to`, which has noticed its end and cleans up."""
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)
