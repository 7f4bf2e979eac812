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


OWNER_CHANGED = "NameOwnerChanged"
THE_BUS = Service("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


def variant(kind: str, value: object) -> Any:
    """A value with its type, for a variant in a body."""
    from dbus_fast import Variant

    return Variant(kind, value)


class Bus:
    """A connection to a bus; as a context it is closed at the end."""

    def __init__(self, connection: "MessageBus") -> None:
        self._connection = connection
        self._owners: dict[str, str] = {THE_BUS.name: THE_BUS.name}  # of services listened to: who they are on the bus
        self._late: set[asyncio.Future[Message]] = set()  # answers that nobody waits for any more

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
        answer = asyncio.ensure_future(self._connection.call(message))
        try:
            async with asyncio.timeout(timeout):
                reply = await asyncio.shield(answer)
        except TimeoutError:
            self._late.add(answer)
            answer.add_done_callback(self._forget)
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

    def _forget(self, answer: "asyncio.Future[Message]") -> None:
        """What came too late: its descriptors are nobody's."""
        self._late.discard(answer)
        if not answer.cancelled() and answer.exception() is None:
            for fd in answer.result().unix_fds:
                os.close(fd)

    async def listen(self, callback: Callable[[Signal], None], service: Service, member: str) -> None:
        """Call back at each signal `member` of a service, and at the bus's own NameOwnerChanged for it.

        Anybody may send us a signal of any name: one counts only if the service's owner sent it. Raises BusError.
        """
        from dbus_fast import MessageType

        def heard(message: "Message") -> None:
            if message.message_type is not MessageType.SIGNAL:
                return
            signal = Signal(message.interface or "", message.member or "", message.body)
            if message.sender == THE_BUS.name:
                if signal.member != OWNER_CHANGED or signal.body[0] != service.name:
                    return
                self._owners[service.name] = signal.body[2]
            elif message.sender != self._owners[service.name] or (signal.interface, signal.member) != wanted:
                return
            callback(signal)

        wanted = (service.interface, member)
        self._owners[service.name] = ""
        self._connection.add_message_handler(heard)
        rules = (
            f"sender='{service.name}',interface='{service.interface}',member='{member}'",
            f"sender='{THE_BUS.name}',member='{OWNER_CHANGED}',arg0='{service.name}'",
        )
        for rule in rules:
            await self.call(THE_BUS, "AddMatch", "s", [f"type='signal',{rule}"])
        try:
            (self._owners[service.name],) = (await self.call(THE_BUS, "GetNameOwner", "s", [service.name])).body
        except BusError as exc:
            if not exc.refusal:  # nobody has the name yet
                raise

    async def wait_closed(self) -> None:
        """Until the connection is gone, from whichever side."""
        from dbus_fast import DBusError

        try:
            await self._connection.wait_for_disconnect()  # type: ignore[no-untyped-call]
        except (OSError, EOFError, DBusError):
            return

    def close(self) -> None:
        """Leave the bus."""
        for answer in list(self._late):
            answer.cancel()
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
