"""The time limit of Python code."""

import contextlib
import itertools
import signal
import sys
import time

import pytest
from boltzbench.harness.discovery import time_limit
from boltzbench.harness.discovery.time_limit import TookTooLong, limited_to


def test_an_alarm_that_was_set_before_is_set_again():
    heard = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: heard.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 60.0)
        with pytest.raises(TookTooLong), limited_to(0.01):
            time.sleep(5)
        assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] < 60
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        with limited_to(60.0):
            time.sleep(0.02)
        time.sleep(0.01)
        assert heard == [signal.SIGALRM]
        with limited_to(60.0):
            pass
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_alarm_outside_the_body_leaves_neither_alarm_nor_handler():
    """As the body ends just when the time is over. The alarm comes before each instruction of the limit in turn."""
    files = time_limit.__file__, contextlib.__file__, signal.__file__
    before = signal.getsignal(signal.SIGALRM)
    for place in itertools.count():
        instructions, reached = itertools.count(), False

        def alarm(frame, event, argument):
            nonlocal reached
            frame.f_trace_opcodes = True
            if frame.f_code.co_filename not in files:
                return None
            handler = signal.getsignal(signal.SIGALRM)
            if event == "opcode" and handler is not before and next(instructions) == place:  # noqa: B023
                reached = True
                handler(signal.SIGALRM, frame)
            return alarm

        tracing = sys.gettrace()
        sys._getframe().f_trace_opcodes = True  # Python 3.12 asks for it before `settrace`
        sys.settrace(alarm)
        try:
            with contextlib.suppress(TookTooLong), limited_to(60.0):
                pass
        finally:
            sys.settrace(tracing)
        left = signal.getitimer(signal.ITIMER_REAL), signal.getsignal(signal.SIGALRM)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        assert left == ((0.0, 0.0), before), place
        if not reached:
            break
    assert place > 20
