"""The questions to polkit's authority, over the system bus.

https://polkit.pages.freedesktop.org/polkit/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from enum import IntFlag
from typing import Any, NamedTuple

from dbus_fast import BusType, DBusError, Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.access.identity import Identity
from pyvirtd.core.access.subjects import Details
from pyvirtd.errors import AuthFailed, DBusServiceError, InternalError

log = logging.getLogger(__name__)

SERVICE = "org.freedesktop.PolicyKit1"
PATH = "/org/freedesktop/PolicyKit1/Authority"
INTERFACE = "org.freedesktop.PolicyKit1.Authority"
DBUS = "org.freedesktop.DBus"
CONNECT_S = 10.0
CHECK_S = 25.0  # for an answer that nobody has to type
INTERACTIVE_S = 300.0  # for a person to find the password
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
        self._bus: MessageBus | None = None
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
        subject: dict[str, Variant] = {
            "pid": Variant("u", identity.pid),
            "start-time": Variant("t", identity.start_time),
            "uid": Variant("i", identity.uid),
        }
        fds: list[int] = []
        if self._takes_pidfd and (fd := pidfd()) is not None:
            subject["pidfd"] = Variant("h", 0)
            fds.append(fd)
        cancellation = f"pyvirtd-{os.getpid()}-{next(self._serial)}" if interactive else ""
        flags = CheckFlags.ALLOW_USER_INTERACTION if interactive else CheckFlags.NONE
        body = [["unix-process", subject], action, dict(details), int(flags), cancellation]
        question = _message("CheckAuthorization", "(sa{sv})sa{ss}us", body, fds)
        try:
            reply = await self._call(bus, question, INTERACTIVE_S if interactive else CHECK_S)
        except BaseException:
            if cancellation:
                self._take_back(bus, cancellation)
            raise
        finally:
            for fd in fds:
                os.close(fd)
        return _verdict(reply)

    async def _call(self, bus: MessageBus, question: Message, timeout: float) -> Message:
        try:
            async with asyncio.timeout(timeout):
                reply = await bus.call(question)
        except TimeoutError:
            raise InternalError(f"polkit does not answer within {timeout:.0f} s", domain=From.POLKIT) from None
        except (OSError, EOFError, DBusError) as exc:
            self._lost(bus)
            raise InternalError(f"lost the system bus: {exc}", domain=From.POLKIT) from exc
        assert reply is not None
        if reply.message_type is MessageType.ERROR:
            text = reply.body[0] if reply.body else reply.error_name
            raise DBusServiceError(f"{question.member}: {text}", domain=From.POLKIT)
        return reply

    @staticmethod
    def _take_back(bus: MessageBus, cancellation: str) -> None:
        if bus.connected:
            bus.send(_message("CancelCheckAuthorization", "s", [cancellation]))

    # --- the connection --------------------------------------------------------------------------------------

    async def _connected(self) -> MessageBus:
        async with self._connecting:
            if self._bus is not None and self._bus.connected:
                return self._bus
            self._changed()
            bus = MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await bus.connect()
                    bus.add_message_handler(self._heard)
                    await self._watch(bus)
            except (OSError, EOFError, DBusError, TimeoutError) as exc:
                bus.disconnect()
                what = "Unable to get system bus connection"
                raise InternalError(f"{what}: Could not connect: {_reason(exc)}", domain=From.DBUS) from exc
            self._bus = bus
            return bus

    async def _watch(self, bus: MessageBus) -> None:
        """Be told of changes, and learn what this polkit can do."""
        rules = (
            f"type='signal',sender='{SERVICE}',interface='{INTERFACE}',member='Changed'",
            f"type='signal',sender='{DBUS}',member='NameOwnerChanged',arg0='{SERVICE}'",
        )
        for rule in rules:
            await bus.call(
                Message(
                    destination=DBUS,
                    path="/org/freedesktop/DBus",
                    interface=DBUS,
                    member="AddMatch",
                    signature="s",
                    body=[rule],
                )
            )
        reply = await bus.call(
            Message(
                destination=SERVICE,
                path=PATH,
                interface="org.freedesktop.DBus.Properties",
                member="Get",
                signature="ss",
                body=[INTERFACE, "BackendVersion"],
            )
        )
        version = ""
        if reply is not None and reply.message_type is MessageType.METHOD_RETURN:
            version = str(reply.body[0].value)
        self._takes_pidfd = version.partition(".")[0].isdigit() and int(version.partition(".")[0]) >= PIDFD_SINCE

    def _heard(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.member in ("Changed", "NameOwnerChanged"):
            self._changed()

    def _changed(self) -> None:
        for callback in self._listeners:
            callback()

    def _lost(self, bus: MessageBus) -> None:
        if self._bus is bus:
            self._bus = None
            self._changed()

    def close(self) -> None:
        """Leave the bus."""
        if self._bus is not None:
            with suppress(OSError):
                self._bus.disconnect()
            self._bus = None


def _message(member: str, signature: str, body: list[Any], fds: list[int] | None = None) -> Message:
    return Message(
        destination=SERVICE,
        path=PATH,
        interface=INTERFACE,
        member=member,
        signature=signature,
        body=body,
        unix_fds=fds or [],
    )


def _verdict(reply: Message) -> Verdict:
    authorized, challenge, details = reply.body[0]
    dismissed = details.get("polkit.dismissed", "") == "true"
    # One who had to authenticate, now or a while ago, must do so again when the time is up.
    keep = not challenge and "polkit.temporary_authorization_id" not in details
    return Verdict(bool(authorized), bool(challenge), dismissed, keep)


def _reason(exc: BaseException) -> str:
    return os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc) or type(exc).__name__
