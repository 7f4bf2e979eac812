"""How the host can be put to sleep, and doing it: systemd's login manager knows.

https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from pyvirtd.constants.host import NodeSuspendTarget
from pyvirtd.errors import ArgumentUnsupported, InvalidArg, OperationFailed, OperationInvalid, from_os_error
from pyvirtd.util.bus import Bus, BusError, Service
from pyvirtd.util.process import run

log = logging.getLogger(__name__)

LOGIN = Service("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
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
        async with await Bus.connect(timeout=TIMEOUT_S) as bus:
            return tuple([way.element for way in _TARGETS.values() if await _says_yes(bus, f"Can{way.member}")])
    except BusError as exc:
        log.info("Cannot ask how the host may sleep: %s", exc)
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
        async with await Bus.connect(timeout=TIMEOUT_S) as bus:
            await bus.call(LOGIN, way.member, "b", [False], timeout=TIMEOUT_S)
    except BusError as exc:
        log.error("the host does not go to sleep: %s", exc)


async def _says_yes(bus: Bus, member: str) -> bool:
    try:
        return (await bus.call(LOGIN, member, timeout=TIMEOUT_S)).body == ["yes"]
    except BusError as exc:
        if exc.refusal:
            return False
        raise
