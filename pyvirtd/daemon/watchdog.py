"""The service manager's watchdog, fed by the event loop: a loop that hangs feeds nothing. sd_watchdog_enabled(3)"""

import asyncio
import os
from collections.abc import Callable

import systemd.daemon as service


def interval_s() -> float:
    """How often to feed it: twice in the time that the manager waits. 0: there is none for this process."""
    time_us, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not time_us.isdecimal() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(time_us) / 2e6


def feed_watchdog() -> Callable[[], None]:
    """Begin to feed it from the running loop; returns what ends that."""
    interval = interval_s()
    if not interval:
        return lambda: None
    loop = asyncio.get_running_loop()
    handle: asyncio.TimerHandle | None = None

    def feed() -> None:
        nonlocal handle
        service.notify("WATCHDOG=1")
        handle = loop.call_later(interval, feed)

    def stop() -> None:
        if handle is not None:
            handle.cancel()

    feed()
    return stop
