"""Descriptors that the daemon closes in threads."""

import time

from pyvirtd.util.threads import closers

WAIT_S = 5.0


def until_closed() -> None:
    """Wait until all that were handed over for closing are closed."""
    end = time.monotonic() + WAIT_S
    while not closers.idle:
        assert time.monotonic() < end, "descriptors stay open"
        time.sleep(0.001)
