"""The host's shutdown and a session's end: heard of in time, and held back until the guests are cared for.

systemd's login manager announces a shutdown to whoever holds a delay inhibitor, and waits for it, though not longer
than its InhibitDelayMaxSec (5 seconds as it comes). SIGUSR1 says the same where there is no login manager.

https://systemd.io/INHIBITOR_LOCKS/
"""

import asyncio
import logging
import os
from collections.abc import Callable

from pyvirtd.core.driver import Host
from pyvirtd.util.bus import SESSION_ADDRESS, Bus, BusError, Service, Signal

log = logging.getLogger(__name__)

LOGIN = Service("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
PREPARE = "PrepareForShutdown"
RETRY_S = 30.0  # after the bus went away


class HostShutdown:
    """`ended` is called when the guests are cared for: the daemon has no more to do."""

    def __init__(self, host: Host, ended: Callable[[], None]) -> None:
        self._host = host
        self._ended = ended
        self._work: asyncio.Task[None] | None = None
        self._lock_fd = -1

    def begin(self) -> None:
        """The host shuts down, or the session ends: care for the guests, then end the daemon."""
        if self._work is None:
            self._work = asyncio.create_task(self._prepare(), name="shutdown of the host")

    async def finish(self) -> None:
        """Wait until the guests are cared for, if that has begun."""
        if self._work is not None:
            await self._work

    async def _prepare(self) -> None:
        results = await asyncio.gather(
            *(driver.host_shutdown() for driver in self._host.drivers), return_exceptions=True
        )
        for error in results:
            if isinstance(error, BaseException):
                log.error("at the host's shutdown", exc_info=error)
        self._release()
        self._ended()

    # --- who tells -------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Follow the login manager and, in a session, the session's own bus; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_login())
            if not self._host.privileged and os.environ.get(SESSION_ADDRESS):
                group.create_task(self._watch_session())

    async def _watch_login(self) -> None:
        while True:
            try:
                await self._follow_login()
            except BusError as exc:
                log.info("a shutdown of the host is not announced to us: %s", exc)
            self._release()
            await asyncio.sleep(RETRY_S)

    async def _follow_login(self) -> None:
        """Until the bus is gone. Raises BusError."""
        async with await Bus.connect() as bus:
            await bus.listen(self._heard, LOGIN, PREPARE)
            words = ["shutdown", "pyvirtd", "Virtual machines are saved or shut down", "delay"]
            reply = await bus.call(LOGIN, "Inhibit", "ssss", words)
            self._lock_fd = reply.fds[reply.body[0]]
            await bus.wait_closed()

    def _heard(self, signal: Signal) -> None:
        if signal == Signal(LOGIN.interface, PREPARE, [True]):
            self.begin()

    async def _watch_session(self) -> None:
        """A session's bus ends with the session."""
        try:
            async with await Bus.connect(session=True) as bus:
                await bus.wait_closed()
        except BusError as exc:
            log.info("the session's end is not announced to us: %s", exc)
            return
        log.info("the session ends")
        self.begin()

    def _release(self) -> None:
        """Let the login manager go on."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
