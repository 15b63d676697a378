"""A limit on the time that some Python code of another may take."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TookTooLong(BaseException):
    """Raised within code that took longer than it may. No ``Exception``, so that this code does not catch it."""


@contextmanager
def limited_to(seconds: float) -> Iterator[None]:
    """Raises `TookTooLong` in what runs longer; again each second, if that is caught there.

    By a signal of the system's clock: in another thread than the main one, and where no such signal exists, nothing is
    limited; nor is a call that never comes back from machine code.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TookTooLong(f"stopped after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
