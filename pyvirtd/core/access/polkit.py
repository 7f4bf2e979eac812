"""The questions to polkit's authority, over the system bus.

https://polkit.pages.freedesktop.org/polkit/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Callable
from enum import IntFlag
from typing import Any, NamedTuple

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.access.identity import Identity
from pyvirtd.core.access.subjects import Details
from pyvirtd.errors import AuthFailed, DBusServiceError, InternalError
from pyvirtd.util.bus import Bus, BusError, Service, variant

log = logging.getLogger(__name__)

AUTHORITY = Service(
    "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority"
)
CHECK_S = 25.0  # for an answer that nobody has to type
INTERACTIVE_S = 300.0  # for a person to find the password
CHECK = "CheckAuthorization"
PIDFD_SINCE = 124  # the version of polkit from which a subject may be a pidfd


class CheckFlags(IntFlag):
    """CheckAuthorizationFlags."""

    NONE = 0
    ALLOW_USER_INTERACTION = 1


class Verdict(NamedTuple):
    """polkit's answer; `keep` if it may be given again without asking."""

    authorized: bool
    challenge: bool  # it could be, had somebody authenticated
    dismissed: bool  # somebody was asked and declined to answer
    keep: bool


class Authority:
    """A connection to the system bus that is made when it is needed, and again after it broke."""

    def __init__(self) -> None:
        self._bus: Bus | None = None
        self._connecting = asyncio.Lock()
        self._takes_pidfd = False
        self._serial = itertools.count(1)
        self._listeners: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back when answers given so far no longer count."""
        self._listeners.append(callback)

    async def check(
        self,
        identity: Identity,
        action: str,
        details: Details = (),
        *,
        pidfd: Callable[[], int | None] = lambda: None,
        interactive: bool = False,
    ) -> Verdict:
        """Whether the process may. Cancelled, it takes the question back, and with it a password prompt.

        `pidfd` gives a descriptor of the process, which is closed here. Raises AuthFailed for somebody who is no
        process of this host, InternalError and DBusServiceError where polkit cannot be asked.
        """
        if identity.pid is None or identity.uid is None or not identity.start_time:
            raise AuthFailed("the caller is no process of this host", domain=From.POLKIT)
        bus = await self._connected()
        subject: dict[str, Any] = {
            "pid": variant("u", identity.pid),
            "start-time": variant("t", identity.start_time),
            "uid": variant("i", identity.uid),
        }
        fds: list[int] = []
        if self._takes_pidfd and (fd := pidfd()) is not None:
            subject["pidfd"] = variant("h", 0)
            fds.append(fd)
        cancellation = f"pyvirtd-{os.getpid()}-{next(self._serial)}" if interactive else ""
        flags = CheckFlags.ALLOW_USER_INTERACTION if interactive else CheckFlags.NONE
        body = [["unix-process", subject], action, dict(details), int(flags), cancellation]
        timeout = INTERACTIVE_S if interactive else CHECK_S
        try:
            reply = await bus.call(AUTHORITY, CHECK, "(sa{sv})sa{ss}us", body, fds=fds, timeout=timeout)
        except BusError as exc:
            if exc.refusal:
                raise DBusServiceError(f"{CHECK}: {exc}", domain=From.POLKIT) from exc
            if not bus.connected:
                self._lost(bus)
            raise InternalError(f"polkit cannot be asked: {exc}", domain=From.POLKIT) from exc
        except BaseException:
            if cancellation:
                bus.send(AUTHORITY, "CancelCheckAuthorization", "s", [cancellation])
            raise
        finally:
            for fd in fds:
                os.close(fd)
        return _verdict(reply.body[0])

    # --- the connection --------------------------------------------------------------------------------------

    async def _connected(self) -> Bus:
        async with self._connecting:
            if self._bus is not None and self._bus.connected:
                return self._bus
            self._changed()
            try:
                bus = await Bus.connect()
                try:
                    await self._watch(bus)
                except BaseException:
                    bus.close()
                    raise
            except BusError as exc:
                raise InternalError(f"Unable to get system bus connection: {exc}", domain=From.DBUS) from exc
            self._bus = bus
            return bus

    async def _watch(self, bus: Bus) -> None:
        """Be told of changes, and learn what this polkit can do."""
        await bus.listen(lambda _: self._changed(), AUTHORITY, "Changed")
        properties = AUTHORITY._replace(interface="org.freedesktop.DBus.Properties")
        try:
            reply = await bus.call(properties, "Get", "ss", [AUTHORITY.interface, "BackendVersion"])
            major = str(reply.body[0].value).partition(".")[0]
        except BusError as exc:
            if not exc.refusal:
                raise
            major = ""
        self._takes_pidfd = major.isdigit() and int(major) >= PIDFD_SINCE

    def _changed(self) -> None:
        for callback in self._listeners:
            callback()

    def _lost(self, bus: Bus) -> None:
        if self._bus is bus:
            self._bus = None
            self._changed()

    def close(self) -> None:
        """Leave the bus."""
        if self._bus is not None:
            self._bus.close()
            self._bus = None


def _verdict(answer: tuple[bool, bool, dict[str, str]]) -> Verdict:
    authorized, challenge, details = answer
    dismissed = details.get("polkit.dismissed", "") == "true"
    # One who had to authenticate, now or a while ago, must do so again when the time is up.
    keep = not challenge and "polkit.temporary_authorization_id" not in details
    return Verdict(bool(authorized), bool(challenge), dismissed, keep)
