"""How the host can be put to sleep: systemd's login manager knows.

https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html
"""

import asyncio
import logging

from dbus_fast import BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
# libvirt's element -> the manager's question
_QUESTIONS = {"suspend_mem": "CanSuspend", "suspend_disk": "CanHibernate", "suspend_hybrid": "CanHybridSleep"}


async def suspend_targets() -> tuple[str, ...]:
    """The ways that work without asking anyone, in libvirt's words; none where no login manager answers."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            try:
                return tuple([name for name, member in _QUESTIONS.items() if await _says_yes(bus, member)])
            finally:
                bus.disconnect()
    except (OSError, TimeoutError, DBusError, EOFError) as exc:
        log.info("Cannot ask how the host may sleep: %r", exc)
        return ()


async def _says_yes(bus: MessageBus, member: str) -> bool:
    reply = await bus.call(
        Message(
            destination="org.freedesktop.login1",
            path="/org/freedesktop/login1",
            interface="org.freedesktop.login1.Manager",
            member=member,
        )
    )
    return reply is not None and reply.message_type is MessageType.METHOD_RETURN and reply.body == ["yes"]
