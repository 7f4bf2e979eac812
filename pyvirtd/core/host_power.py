"""How the host can be put to sleep, and doing it: systemd's login manager knows.

https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from dbus_fast import BusType, DBusError, Message, MessageType
from dbus_fast.aio import MessageBus

from pyvirtd.constants.host import NodeSuspendTarget
from pyvirtd.errors import ArgumentUnsupported, InvalidArg, OperationFailed, OperationInvalid, from_os_error
from pyvirtd.util.process import run

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
DELAY_S = 10.0
SHORTEST_S = 60  # a shorter sleep is none


class Way(NamedTuple):
    """A way to sleep: libvirt's element, libvirt's words, the manager's method."""

    element: str
    words: str
    member: str


_TARGETS = {
    NodeSuspendTarget.MEM: Way("suspend_mem", "Suspend-to-RAM", "Suspend"),
    NodeSuspendTarget.DISK: Way("suspend_disk", "Suspend-to-Disk", "Hibernate"),
    NodeSuspendTarget.HYBRID: Way("suspend_hybrid", "Hybrid-Suspend", "HybridSleep"),
}


async def suspend_targets() -> tuple[str, ...]:
    """The ways that work without asking anyone, in libvirt's words; none where no login manager answers."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            try:
                ways = _TARGETS.values()
                return tuple([way.element for way in ways if await _says_yes(bus, f"Can{way.member}")])
            finally:
                bus.disconnect()
    except (OSError, TimeoutError, DBusError, EOFError) as exc:
        log.info("Cannot ask how the host may sleep: %r", exc)
        return ()


class HostSleep:
    """Sending the host to sleep; `start` runs what is to be done later."""

    def __init__(self, start: Callable[[Coroutine[Any, Any, None], str], object]) -> None:
        self._start = start
        self._due = 0.0  # by the loop's time: until then a sleep is under way

    async def suspend(self, target: int, duration_s: int) -> None:
        """Send the host to sleep and have its clock wake it `duration_s` from now. Raises VirtError.

        It sleeps in DELAY_S, when the caller has its reply.
        """
        if target not in list(NodeSuspendTarget):
            raise InvalidArg("Invalid suspend target")
        way = _TARGETS[NodeSuspendTarget(target)]
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            raise OperationInvalid("Suspend operation already in progress")
        if way.element not in await suspend_targets():
            raise ArgumentUnsupported(way.words)
        if duration_s < SHORTEST_S:
            raise InvalidArg("Suspend duration is too short")
        self._due = loop.time() + DELAY_S
        try:
            await _wake_after(duration_s)
        except BaseException:
            self._due = 0.0
            raise
        self._start(_sleep(way), "sleep of the host")


async def _wake_after(seconds: int) -> None:
    argv = ["rtcwake", "-m", "no", "-s", str(seconds)]
    try:
        done = await run(argv, timeout=TIMEOUT_S)
    except OSError as exc:
        raise from_os_error(exc, "cannot run rtcwake") from exc
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise OperationFailed(f"the host's clock cannot be set to wake it: {words}")


async def _sleep(way: Way) -> None:
    await asyncio.sleep(DELAY_S)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            try:
                reply = await _call(bus, way.member, "b", [False])
            finally:
                bus.disconnect()
    except (OSError, TimeoutError, DBusError, EOFError) as exc:
        log.error("the host does not go to sleep: %r", exc)
        return
    if reply is None or reply.message_type is not MessageType.METHOD_RETURN:
        log.error("the host does not go to sleep: %s", reply.body if reply is not None else "")


async def _call(bus: MessageBus, member: str, signature: str = "", body: Sequence[object] = ()) -> Message | None:
    return await bus.call(
        Message(
            destination="org.freedesktop.login1",
            path="/org/freedesktop/login1",
            interface="org.freedesktop.login1.Manager",
            member=member,
            signature=signature,
            body=list(body),
        )
    )


async def _says_yes(bus: MessageBus, member: str) -> bool:
    reply = await _call(bus, member)
    return reply is not None and reply.message_type is MessageType.METHOD_RETURN and reply.body == ["yes"]
