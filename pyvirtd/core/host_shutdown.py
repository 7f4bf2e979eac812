"""The host's shutdown and a session's end: heard of in time, and held back until the guests are cared for.

systemd's login manager announces a shutdown to whoever holds a delay inhibitor, and waits for it, though not longer
than its InhibitDelayMaxSec (5 seconds as it comes). SIGUSR1 says the same where there is no login manager.

https://systemd.io/INHIBITOR_LOCKS/
"""

import asyncio
import logging
import os
from collections.abc import Callable

from dbus_fast import BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus

from pyvirtd.core.driver import Host

log = logging.getLogger(__name__)

LOGIN = "org.freedesktop.login1"
PATH = "/org/freedesktop/login1"
MANAGER = f"{LOGIN}.Manager"
ANSWER_S = 10.0
RETRY_S = 30.0  # after the bus went away
BUS_FAULTS = (OSError, TimeoutError, DBusError, EOFError)


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
            if not self._host.privileged and os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
                group.create_task(self._watch_session())

    async def _watch_login(self) -> None:
        while True:
            try:
                await self._follow_login()
            except BUS_FAULTS as exc:
                log.info("a shutdown of the host is not announced to us: %r", exc)
            self._release()
            await asyncio.sleep(RETRY_S)

    async def _follow_login(self) -> None:
        """Until the bus is gone. Raises one of BUS_FAULTS."""
        async with asyncio.timeout(ANSWER_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
        try:
            async with asyncio.timeout(ANSWER_S):
                bus.add_message_handler(self._on_message)
                rule = f"type='signal',sender='{LOGIN}',interface='{MANAGER}',member='PrepareForShutdown'"
                await _ask(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus", "AddMatch", "s", [rule])
                words = ["shutdown", "pyvirtd", "Virtual machines are saved or shut down", "delay"]
                reply = await _ask(bus, LOGIN, PATH, "Inhibit", "ssss", words, MANAGER)
                self._lock_fd = reply.unix_fds[reply.body[0]]
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        finally:
            bus.disconnect()

    def _on_message(self, message: Message) -> bool:
        if message.message_type is MessageType.SIGNAL and message.member == "PrepareForShutdown":
            if message.interface == MANAGER and message.body == [True]:
                self.begin()
            return True
        return False

    async def _watch_session(self) -> None:
        """A session's bus ends with the session."""
        try:
            async with asyncio.timeout(ANSWER_S):
                bus = await MessageBus(bus_type=BusType.SESSION).connect()
        except BUS_FAULTS as exc:
            log.info("the session's end is not announced to us: %r", exc)
            return
        try:
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except BUS_FAULTS:
            pass
        finally:
            bus.disconnect()
        log.info("the session ends")
        self.begin()

    def _release(self) -> None:
        """Let the login manager go on."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


async def _ask(
    bus: MessageBus, name: str, path: str, member: str, signature: str, body: list[str], interface: str = ""
) -> Message:
    """A method's reply. Raises DBusError."""
    reply = await bus.call(
        Message(
            destination=name,
            path=path,
            interface=interface or name,
            member=member,
            signature=signature,
            body=body,
        )
    )
    assert reply is not None
    if reply.message_type is not MessageType.METHOD_RETURN:
        raise DBusError(reply.error_name or "", str(reply.body[0] if reply.body else ""), reply)
    return reply
