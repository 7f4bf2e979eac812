"""The host's message buses. https://dbus.freedesktop.org/doc/dbus-specification.html

dbus-fast is loaded with the first connection, and so not at all where there is no bus: it costs a daemon that starts
15 ms and 3 MB.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

SYSTEM_SOCKET = "/run/dbus/system_bus_socket"
SYSTEM_ADDRESS = "DBUS_SYSTEM_BUS_ADDRESS"  # of the environment, before the socket
SESSION_ADDRESS = "DBUS_SESSION_BUS_ADDRESS"
TIMEOUT_S = 10.0


class BusError(Exception):
    """A bus that cannot be reached, went away or does not answer; `refusal`: a service answered with an error."""

    def __init__(self, text: str, *, refusal: bool = False) -> None:
        super().__init__(text)
        self.refusal = refusal


class Service(NamedTuple):
    """An object of a service, seen through one of its interfaces."""

    name: str
    path: str
    interface: str


class Reply(NamedTuple):
    """What a method answered; the descriptors are the caller's to close."""

    body: list[Any]
    fds: list[int]


class Signal(NamedTuple):
    """A signal that was asked for."""

    interface: str
    member: str
    body: list[Any]


THE_BUS = Service("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def variant(kind: str, value: object) -> Any:
    """A value with its type, for a variant in a body."""
    from dbus_fast import Variant

    return Variant(kind, value)


class Bus:
    """A connection to a bus; as a context it is closed at the end."""

    def __init__(self, connection: "MessageBus") -> None:
        self._connection = connection

    @classmethod
    async def connect(cls, *, session: bool = False, timeout: float = TIMEOUT_S) -> Self:
        """Connect to the system's bus, or to the session's. Raises BusError."""
        if not session and not _has_system_bus():
            raise BusError("Could not connect: No such file or directory")
        from dbus_fast import BusType, DBusError
        from dbus_fast.aio import MessageBus

        connection = MessageBus(bus_type=BusType.SESSION if session else BusType.SYSTEM, negotiate_unix_fd=True)
        try:
            async with asyncio.timeout(timeout):
                await connection.connect()
        except (OSError, EOFError, DBusError, TimeoutError) as exc:
            connection.disconnect()
            raise BusError(f"Could not connect: {_reason(exc)}") from exc
        return cls(connection)

    @property
    def connected(self) -> bool:
        return bool(self._connection.connected)

    async def call(
        self,
        service: Service,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        fds: Sequence[int] = (),
        timeout: float = TIMEOUT_S,
    ) -> Reply:
        """Call a method. Raises BusError."""
        from dbus_fast import DBusError, MessageType

        message = _message(service, member, signature, body, fds)
        try:
            async with asyncio.timeout(timeout):
                reply = await self._connection.call(message)
        except TimeoutError:
            raise BusError(f"no answer within {timeout:.0f} s") from None
        except (OSError, EOFError, DBusError) as exc:
            raise BusError(_reason(exc)) from exc
        assert reply is not None
        if reply.message_type is not MessageType.METHOD_RETURN:
            raise BusError(str(reply.body[0] if reply.body else reply.error_name), refusal=True)
        return Reply(reply.body, list(reply.unix_fds))

    def send(self, service: Service, member: str, signature: str = "", body: Sequence[object] = ()) -> None:
        """Call a method and do not wait for what it answers."""
        if self.connected:
            self._connection.send(_message(service, member, signature, body))

    async def listen(self, callback: Callable[[Signal], None], *rules: str) -> None:
        """Call back at each signal that one of the match rules names. Raises BusError."""
        from dbus_fast import MessageType

        def heard(message: "Message") -> None:
            if message.message_type is MessageType.SIGNAL:
                callback(Signal(message.interface or "", message.member or "", message.body))

        self._connection.add_message_handler(heard)
        for rule in rules:
            await self.call(THE_BUS, "AddMatch", "s", [f"type='signal',{rule}"])

    async def wait_closed(self) -> None:
        """Until the connection is gone, from whichever side."""
        from dbus_fast import DBusError

        try:
            await self._connection.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except (OSError, EOFError, DBusError):
            return

    def close(self) -> None:
        """Leave the bus."""
        self._connection.disconnect()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _has_system_bus() -> bool:
    return SYSTEM_ADDRESS in os.environ or os.path.exists(SYSTEM_SOCKET)


def _message(
    service: Service, member: str, signature: str, body: Sequence[object], fds: Sequence[int] = ()
) -> "Message":
    from dbus_fast import Message

    return Message(
        destination=service.name,
        path=service.path,
        interface=service.interface,
        member=member,
        signature=signature,
        body=list(body),
        unix_fds=list(fds),
    )


def _reason(exc: BaseException) -> str:
    return os.strerror(exc.errno) if isinstance(exc, OSError) and exc.errno else str(exc) or type(exc).__name__
