"""The time limit of Python code."""

import signal
import time

import pytest
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
