"""One client: its packets in and out, calls in flight and queued, streams, subscriptions."""

import asyncio
import logging
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from pyvirtd.api.rpc import KEEPALIVE, VERSION, EventMessage
from pyvirtd.api.types import Caller, WireError
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.access import Identity, Rules
from pyvirtd.core.events import Subscription, registrable
from pyvirtd.daemon import dispatch
from pyvirtd.daemon.call_queue import CallQueue
from pyvirtd.daemon.keepalive import Keepalive
from pyvirtd.daemon.permissions import Undecided
from pyvirtd.daemon.streams import ClientStream
from pyvirtd.daemon.transport import Transport
from pyvirtd.errors import InternalError, InvalidArg, RpcError, VirtError
from pyvirtd.util.threads import close_fds
from pyvirtd.wire.packet import FRAME_MAX, FrameError, Framer, Packet, PacketType, Status, fd_count, frame
from pyvirtd.wire.xdr import STRING_MAX, codec

if TYPE_CHECKING:
    from pyvirtd.core.driver import Driver, Handler
    from pyvirtd.daemon.server import Server

log = logging.getLogger(__name__)

UNREAD_MAX = 64 << 20  # bytes that a client may leave unread before it is dropped
REPLIES_HIGH = 16 << 20  # unread bytes above which a client's further calls wait
ANONYMOUS_FRAME_MAX = 512 << 10  # bytes of a message before authentication: SASL's are the longest
NO_FDS: list[int] = []  # never filled
KEEPALIVE_PROGRAM = KEEPALIVE.number
STREAM_TYPES = frozenset((int(PacketType.STREAM), int(PacketType.STREAM_HOLE)))
REPLY, OK = int(PacketType.REPLY), int(Status.OK)
PING = 1
PONG = 2
ERROR = codec([(name, WireError.__annotations__[name]) for name in WireError._fields])


class Unread(Enum):
    """Why nothing is read from a client now; there may be several reasons at once."""

    HELD = auto()  # what it sends next means something else in a moment
    BEHIND = auto()  # the driver of one of its streams is
    ENDING = auto()  # the daemon takes no more calls


class Client(Caller):
    """A connected peer. `authenticated`, `read_only` and `handlers` are what the gates look at."""

    def __init__(self, server: "Server", number: int, *, read_only: bool, auth: str, admin: bool = False) -> None:
        self.server = server
        self.number = number
        self.read_only_socket = read_only
        self.auth = auth  # scheme of the socket: none, polkit, sasl
        self.admin = admin
        self.identity = Identity()
        self.authenticated = False
        self.rules: Rules | None = None  # who decides on calls; None where the client may do everything
        self._undecided = Undecided(self)
        self.authenticating = False  # a step of its scheme runs
        self.connected_at = int(time.time())
        self.transport: Transport = None  # type: ignore[assignment] # set by the server before any byte
        self.framer = Framer(ANONYMOUS_FRAME_MAX)
        self.last_heard = time.monotonic()  # the loop's clock
        self.keepalive: Keepalive | None = None
        self.in_flight = 0
        self._unread: set[Unread] = set()
        self._queue = CallQueue(self)
        self.streams: dict[tuple[int, int, int], ClientStream] = {}
        self._behind: dict[ClientStream, asyncio.TimerHandle] = {}
        self._events = server.host.events
        self._subscriptions: dict[tuple[str, int], Subscription] = {}  # by family and callback id
        self._legacy: dict[int, Subscription] = {}  # by event id
        self._closers: list[Callable[[], None]] = []
        self._drained = asyncio.Event()
        self.ending = False  # the daemon takes no more calls
        self.gone = False
        self.reset()

    def reset(self) -> None:
        """No driver is open."""
        self.driver: Driver | None = None
        self.uri = ""
        self.read_only = self.read_only_socket
        self.handlers: dict[tuple[int, int], Handler] = self.server.base_handlers
        self.resolvers: dict[type, Driver] = {}  # by the class of a reference
        self.close_callback = False

    def let_in(self, identity: Identity | None = None) -> None:
        """The client is who it says, or need not say; `identity` holds what its steps found out."""
        self.identify(identity or self.identity)
        self.authenticated = True
        self.framer.limit = FRAME_MAX
        self.server.client_known(self)

    def identify(self, identity: Identity) -> None:
        """From now on the client is whoever `identity` says, and may do what the rules let that one do."""
        self.identity = identity
        self.rules = self.server.access.rules_for(identity, self.transport.peer_pidfd)

    # --- in --------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Bytes from the transport."""
        self.last_heard = time.monotonic()
        try:
            packets = self.framer.feed(data)
        except FrameError as exc:
            log.warning("conn=%d broken frame: %s", self.number, exc)
            self.transport.close()
            return
        for packet in packets:
            self._packet(packet)
            if self.gone:
                return
        if self.transport.fds and not self.framer.wants_fds:
            log.warning("conn=%d sent descriptors that no call announced", self.number)
            self.transport.drop_fds()

    def _packet(self, packet: Packet) -> None:
        fds = self.transport.take_fds(packet.fd_count) if packet.fd_count else NO_FDS
        if packet.program == KEEPALIVE_PROGRAM:
            close_fds(fds or ())
            if packet.procedure == PING and packet.type == PacketType.MESSAGE:
                self._keepalive(PONG)
        elif packet.type in STREAM_TYPES:
            stream = self.streams.get((packet.program, packet.procedure, packet.serial))
            if stream is not None:
                stream.packet(packet)
        elif not (self._queue.calls or self.busy):
            dispatch.call(self, packet, fds)
        elif not self._queue.add(packet, fds):
            self.send(self.error_reply(packet, RpcError("too many calls wait for this client's earlier ones")))

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._queue.calls)

    @property
    def busy(self) -> bool:
        """Whether further calls wait: as many as are allowed run, or their replies are not read."""
        return self.in_flight >= self.server.max_client_requests or self.transport.queued > REPLIES_HIGH

    @property
    def quiet(self) -> bool:
        """Whether one call runs and nothing has come after it."""
        return not (self.in_flight > 1 or self._queue.calls or self.framer.buffered or self.framer.wants_fds)

    def hold(self) -> None:
        """Read nothing until `go_on`: what comes next means something else then."""
        self._pause(Unread.HELD)

    def go_on(self) -> None:
        """Read again."""
        self._resume(Unread.HELD)

    def _pause(self, why: Unread) -> None:
        self._unread.add(why)
        self.transport.pause()

    def _resume(self, why: Unread) -> None:
        """A reason to read nothing is gone; there may be others."""
        self._unread.discard(why)
        if not self._unread:
            self.transport.resume()

    def call_done(self) -> None:
        """A call in flight ended."""
        self.in_flight -= 1
        if self.ending and not self.in_flight:
            self.transport.close_when_sent()
        self._queue.wake()

    # --- out -------------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Queue one framed packet that answers no call; a client that leaves too much unread is dropped."""
        if self.gone:
            return
        self.transport.write(data)
        if self.transport.queued > UNREAD_MAX:
            log.warning("conn=%d dropped: it leaves %d bytes unread", self.number, self.transport.queued)
            self.transport.close()

    def reply(self, call: Packet, payload: bytes, fds: list[int]) -> None:
        """Answer a call; `fds` are closed once sent."""
        program, version, procedure, _, serial, *_ = call
        if not fds:
            self.transport.write(frame(program, version, procedure, REPLY, serial, OK, payload))
            return
        if not self.transport.carries_fds:
            close_fds(fds)
            self.reply_error(call, RpcError("this connection carries no file descriptors"))
            return
        payload = fd_count(len(fds)) + payload
        self.transport.write(frame(program, version, procedure, PacketType.REPLY_WITH_FDS, serial, OK, payload))
        for fd in fds:
            self.transport.write_fd(fd)

    def reply_error(self, call: Packet, error: VirtError) -> None:
        """Answer a call with an error."""
        self.transport.write(self.error_reply(call, error))

    def error_reply(self, call: Packet, error: VirtError) -> bytes:
        """The packet that answers a call with an error."""
        payload = self.error_payload(error)
        return frame(call.program, call.version, call.procedure, PacketType.REPLY, call.serial, Status.ERROR, payload)

    @staticmethod
    def error_payload(error: VirtError) -> bytes:
        """The error struct."""
        detail = _clean(error.detail)
        return ERROR.encode(
            error.code,
            error.domain,
            _clean(error.message),
            error.level,
            None,
            error.form,
            detail or None,
            None,
            error.int1,
            error.int2,
            None,
        )

    def _keepalive(self, procedure: int) -> None:
        self.send(frame(KEEPALIVE.number, VERSION, procedure, PacketType.MESSAGE, 0, Status.OK, b""))

    def ping(self) -> None:
        """Ask whether the client lives."""
        self._keepalive(PING)

    async def queue_below(self, limit: int) -> None:
        """Wait until fewer than `limit` bytes are unsent, or the client is gone."""
        while not self.gone and self.transport.queued >= limit:
            self._drained.clear()
            await self._drained.wait()

    def writable(self) -> None:
        """The transport's queue is empty."""
        self._drained.set()
        self._queue.wake()

    # --- events ----------------------------------------------------------------------------------------------

    def subscribe(
        self,
        driver: object,
        family: str,
        event_id: int,
        *,
        about: Any = None,
        pattern: Callable[[Any], bool] | None = None,
    ) -> int:
        check_event(family, event_id)
        subscription = self._events.subscribe(self, driver, family, event_id, about=about, pattern=pattern)
        self._subscriptions[family, subscription.callback_id] = subscription
        return subscription.callback_id

    def unsubscribe(self, family: str, callback_id: int) -> None:
        subscription = self._subscriptions.pop((family, callback_id), None)
        if subscription is None:
            what = f"{family.replace('_', ' ')} event callback {callback_id}"
            raise InternalError(f"{what} not registered", domain=From.RPC)
        self._events.unsubscribe(subscription)

    def subscribe_legacy(self, driver: object, event_id: int) -> None:
        """As the old calls do: one subscription for each event of domains, without a callback id."""
        check_event("domain", event_id, legacy=True)
        if event_id in self._legacy:
            raise InvalidArg("event callback already tracked")
        self._legacy[event_id] = self._events.subscribe(self, driver, "domain", event_id, legacy=True)

    def unsubscribe_legacy(self, event_id: int) -> None:
        """End such a subscription. Raises InternalError where there is none."""
        subscription = self._legacy.pop(event_id, None)
        if subscription is None:
            raise InternalError(f"domain event {event_id} not registered", domain=From.RPC)
        self._events.unsubscribe(subscription)

    def deliver(self, message: EventMessage, obj: Any, data: bytes) -> None:
        """An event from the bus."""
        if self.rules is None:
            self.send(data)
        else:
            self._undecided.add(self.rules, message.permission, obj, data)

    # --- streams ---------------------------------------------------------------------------------------------

    def stream_behind(self, stream: ClientStream, stall_s: float) -> None:
        """A stream's driver is behind: read no more for now."""
        if stream not in self._behind:
            self._behind[stream] = asyncio.get_running_loop().call_later(stall_s, stream.stalled)
            self._pause(Unread.BEHIND)

    def stream_caught_up(self, stream: ClientStream) -> None:
        """The driver took what was queued."""
        timer = self._behind.pop(stream, None)
        if timer is not None:
            timer.cancel()
            if not self._behind:
                self._resume(Unread.BEHIND)

    def stream_closed(self, stream: ClientStream) -> None:
        """Forget a stream that is over."""
        self.streams.pop(stream.key, None)

    # --- end -------------------------------------------------------------------------------------------------

    def on_close(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back when the connection ends."""
        self._closers.append(callback)

        def forget() -> None:
            if callback in self._closers:
                self._closers.remove(callback)

        return forget

    def release(self) -> None:
        """End what the client's connection owns: subscriptions, streams, callbacks. Its calls run on."""
        for subscription in (*self._subscriptions.values(), *self._legacy.values()):
            self._events.unsubscribe(subscription)
        self._subscriptions.clear()
        self._legacy.clear()
        for stream in list(self.streams.values()):
            stream.lost()
        closers, self._closers = self._closers, []
        for callback in closers:  # each on its own: one that fails keeps no other from running
            asyncio.get_running_loop().call_soon(callback)

    def end(self) -> None:
        """The daemon ends: take no more calls, answer those in flight, then close."""
        self.ending = True
        self._pause(Unread.ENDING)
        if not self.in_flight:
            self.transport.close_when_sent()

    def lost(self) -> None:
        """The transport is closed."""
        self.gone = True
        self._undecided.close()
        self._queue.clear()
        self._drained.set()
        if self.keepalive is not None:
            self.keepalive.stop()
        self.release()
        self.server.client_gone(self)

    def start_keepalive(self) -> bool:
        """The client answers pings; whether it will be sent any."""
        if self.keepalive is None and self.server.keepalive_interval > 0:
            self.keepalive = Keepalive(self)
        return self.keepalive is not None


def client_of(caller: Caller) -> Client:
    """Who calls one of the daemon's own procedures."""
    assert isinstance(caller, Client)
    return caller


def check_event(family: str, event_id: int, *, legacy: bool = False) -> None:
    """Refuse the number of an event that there is not, or that the old calls do not know."""
    if not registrable(family, event_id, legacy=legacy):
        which = "" if family == "domain" else f"{family.replace('_', ' ')} "
        raise InternalError(f"unsupported {which}event ID {event_id}", domain=From.RPC)


def _clean(text: str) -> str:
    """Text that fits an error: no NUL, no lone surrogate of a file's name, not above the limit."""
    return text[: STRING_MAX // 4].replace("\0", "").encode("utf-8", "backslashreplace").decode()
