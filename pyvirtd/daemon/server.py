"""Listening sockets, clients and their limits, the end when idle."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from pyvirtd.api.rpc import ADMIN, LXC, QEMU, REMOTE
from pyvirtd.config import DaemonConfig
from pyvirtd.core.access import Access
from pyvirtd.core.access.polkit import Authority
from pyvirtd.core.access.polkit_rules import PolkitAccess
from pyvirtd.core.driver import Driver, Handler, Host
from pyvirtd.daemon.auth import needs_no_step
from pyvirtd.daemon.client import Client
from pyvirtd.daemon.listeners import Listener, Wire, network_listeners
from pyvirtd.daemon.refusal import TURNED_AWAY_MAX, Crowd, Refusal
from pyvirtd.daemon.session import DaemonDriver
from pyvirtd.daemon.tls import TlsTransport
from pyvirtd.daemon.transport import TcpTransport, Transport, UnixTransport, keep_talking
from pyvirtd.errors import RpcError
from pyvirtd.util.memory import give_back

if TYPE_CHECKING:
    from pyvirtd.daemon.certificates import TlsServer

log = logging.getLogger(__name__)

CLOSE_S = 5.0  # for calls in flight to be answered when the daemon ends
ACCEPTS_AT_ONCE = 32  # a storm of connections must not hold the loop
REST_S = 0.5  # without accepting, after descriptors ran out
STRANGER_IDLE_S = 60.0  # that a client may do nothing before authentication while others wait
CROWD = 256  # clients whose memory is worth giving back
AUTH_S = 300.0  # that a client may take until it is let in; somebody may have to type a password
STRANGER_LOOK_S = 5.0  # between two looks for such clients
FULL_WORDS_S = 60.0  # between two log lines about the same limit
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PROGRAMS = frozenset({REMOTE.number, QEMU.number, LXC.number})
ADMIN_PROGRAMS = frozenset({ADMIN.number})

Tables = tuple[dict[tuple[int, int], Handler], dict[type, Driver]]


class Server:
    """Accepts clients and owns them.

    Who connects before `start`, or while too many have not said who they are, waits in the socket's queue. Who finds no
    place is told so.
    """

    def __init__(self, host: Host, config: DaemonConfig) -> None:
        self.host = host
        self.polkit = Authority()
        self.access = PolkitAccess(self.polkit) if "polkit" in config.access_drivers else Access()
        self.clients: set[Client] = set()
        self.anonymous: set[Client] = set()  # those that have not proved who they are
        self.daemon = DaemonDriver(host)
        self.base_handlers = self.daemon.handlers
        self.on_idle: Callable[[], None] | None = None
        self._tables: dict[Driver, Tables] = {}
        self.tls: TlsServer | None = None
        self._listeners: dict[socket.socket, Listener] = {}
        self._crowd = Crowd()
        self._places: dict[Client, Callable[[], None]] = {}  # how each gives its place back
        self._turned_away: set[Refusal] = set()
        self._started = False
        self._accepting = False
        self._resting: asyncio.TimerHandle | None = None
        self._full_told = -FULL_WORDS_S
        self._most = 0  # clients at the same time, since memory was given back
        self._stranger_look: asyncio.TimerHandle | None = None
        self._serial = 0
        self._all_gone: asyncio.Event | None = None
        self._idle_s = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self.apply(config)

    def apply(self, config: DaemonConfig) -> None:
        """Take the limits of a (re)read configuration."""
        self.config = config
        self._crowd.places = config.max_clients
        self.max_anonymous = config.max_anonymous_clients
        self.max_client_requests = max(1, config.max_client_requests)
        self.keepalive_interval = config.keepalive_interval
        self.keepalive_count = config.keepalive_count
        self._watch_listeners()

    def set_limits(self, clients: int, anonymous: int) -> None:
        """How many clients there may be, and how many that have not proved who they are."""
        self._crowd.places, self.max_anonymous = clients, anonymous
        self._watch_listeners()

    @property
    def max_clients(self) -> int:
        return self._crowd.places

    def programs(self, client: Client) -> frozenset[int]:
        """Numbers of the programs that a client's socket serves."""
        return ADMIN_PROGRAMS if client.admin else PROGRAMS

    def tables(self, driver: Driver) -> Tables:
        """Handlers and resolvers of a connection to `driver`: its own, then the secondary drivers', then ours."""
        if driver not in self._tables:
            handlers: dict[tuple[int, int], Handler] = {}
            resolvers: dict[type, Driver] = {}
            secondary = [other for other in self.host.drivers if not other.schemes]
            for source in (self.daemon, *secondary, driver):
                handlers.update(source.handlers)
                resolvers.update(dict.fromkeys(source.objects, source))
            self._tables[driver] = handlers, resolvers
        return self._tables[driver]

    # --- sockets ---------------------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Serve the clients of a listening socket, which is the server's from now on."""
        self._listeners[listener.sock] = listener
        self._accepting = False
        self._watch_listeners()

    async def listen_network(self, *, wanted: bool, activated: bool) -> None:
        """Serve TLS and TCP where `wanted`, as configured, or on the sockets that the service manager passed."""
        config, passed = self.config, {listener.wire for listener in self._listeners.values()}
        made = wanted and not activated
        if Wire.TLS in passed or (made and config.listen_tls):
            self.tls = await asyncio.to_thread(self._tls_server)
        for wire, on, port in (
            (Wire.TLS, config.listen_tls, config.tls_port),
            (Wire.TCP, config.listen_tcp, config.tcp_port),
        ):
            if made and on:
                backlog = config.max_queued_clients
                for listener in await asyncio.to_thread(network_listeners, wire, config.listen_addr, port, backlog):
                    self.listen(listener)

    async def reload_tls(self) -> None:
        """Read certificates, revocations and lists of names again, for connections from now on. Raises VirtError.

        Nothing is done where TLS is not served.
        """
        if self.tls is not None:
            self.tls = await asyncio.to_thread(self._tls_server)
            log.info("certificates for TLS read again")

    def _tls_server(self) -> "TlsServer":
        # certificates need a library of several megabytes, which most daemons never use
        from pyvirtd.daemon.certificates import tls_server

        return tls_server(self.config, self.host.paths)

    def start(self) -> None:
        """Accept clients from now on."""
        self._started = True
        self._watch_listeners()

    def _watch_listeners(self) -> None:
        """Accept, or not: by the limits, and by whether descriptors ran out a moment ago."""
        full = bool(self.max_anonymous) and len(self.anonymous) >= self.max_anonymous
        wanted = self._started and not full and self._resting is None
        loop = asyncio.get_running_loop()
        if wanted != self._accepting:
            self._accepting = wanted
            for sock in self._listeners:
                if wanted:
                    loop.add_reader(sock, self._accept, sock)
                else:
                    loop.remove_reader(sock)
        if full and loop.time() >= self._full_told + FULL_WORDS_S:
            self._full_told = loop.time()
            log.warning("max_anonymous_clients reached: further clients wait until one leaves or says who it is")
        if full and self._started and self._stranger_look is None:
            self._stranger_look = loop.call_later(STRANGER_LOOK_S, self._drop_idle_strangers)

    def _drop_idle_strangers(self) -> None:
        """At a limit, nobody keeps others out by connecting and never saying who he is."""
        self._stranger_look = None
        if not self._accepting:
            since = asyncio.get_running_loop().time() - STRANGER_IDLE_S
            for client in list(self.anonymous):
                if client.last_heard < since and not client.in_flight:
                    log.warning("conn=%d dropped: it does not authenticate, and others wait", client.number)
                    client.transport.close()
            self._watch_listeners()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if not self._accepting:
                return
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:
                if exc.errno not in OUT_OF_RESOURCES:
                    raise
                self._rest(exc)
                return
            self._welcome(sock, self._listeners[listener])

    def _rest(self, exc: OSError) -> None:
        """Leave the sockets alone for a moment: they would be ready for as long as accepting fails."""
        log.error("cannot accept clients for now: %s", exc.strerror)
        self._resting = asyncio.get_running_loop().call_later(REST_S, self._rested)
        self._watch_listeners()

    def _rested(self) -> None:
        self._resting = None
        self._watch_listeners()

    def _welcome(self, sock: socket.socket, listener: Listener) -> None:
        self._serial += 1
        auth = self._auth(listener)
        client = Client(self, self._serial, read_only=listener.read_only, auth=auth, admin=listener.admin)
        client.transport = self._transport(sock, listener.wire, client)
        try:
            client.identity = client.transport.identity()
        except OSError as exc:  # it is gone already
            log.debug("conn=%d not opened: %s", client.number, exc)
            client.transport.close()
            return
        try:
            self._places[client] = self._crowd.enter(client.identity)
        except RpcError as exc:
            self._turn_away(client, exc)
            return
        self.clients.add(client)
        self.anonymous.add(client)
        if listener.wire is not Wire.TLS:  # those have to show their certificates first
            self._arrived(client)
        if not client.authenticated:
            self._watch_stranger(client)
        self._watch_idle()
        self._watch_listeners()
        identity = client.identity
        if identity.address:
            log.debug("conn=%d opened from %s", client.number, identity.address)
        else:
            log.debug("conn=%d opened by uid %s pid %s", client.number, identity.uid, identity.pid)

    def _auth(self, listener: Listener) -> str:
        if listener.wire is Wire.UNIX:
            return self.config.unix_auth(readonly=listener.read_only, privileged=self.host.privileged)
        return self.config.auth_tls if listener.wire is Wire.TLS else self.config.auth_tcp

    def _transport(self, sock: socket.socket, wire: Wire, client: Client) -> Transport:
        if wire is Wire.UNIX:
            return UnixTransport(sock, client)
        with contextlib.suppress(OSError):  # it is gone already
            keep_talking(sock)
        if wire is Wire.TCP:
            return TcpTransport(sock, client)
        tls = self.tls
        assert tls is not None  # made before the listener

        def verdict(der: bytes | None) -> None:
            client.identity = replace(client.identity, x509_dname=tls.name_of(der))
            if client in self.clients:
                self._arrived(client)

        return TlsTransport(sock, client, tls.context, verdict)

    def _arrived(self, client: Client) -> None:
        if needs_no_step(client):
            client.let_in()

    def _turn_away(self, client: Client, error: RpcError) -> None:
        """Answer a client's first call with why it may not stay."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._full_told + FULL_WORDS_S:
            self._full_told = loop.time()
            log.warning("%s", error)
        if len(self._turned_away) >= TURNED_AWAY_MAX:
            client.transport.close()
            return
        refusal = Refusal(error, client.error_reply, lambda: self._turned_away.discard(refusal))
        self._turned_away.add(refusal)
        refusal.take(client.transport)

    def _watch_stranger(self, client: Client) -> None:
        """Who has not said who he is after a while has to go."""
        timer = asyncio.get_running_loop().call_later(AUTH_S, self._drop_stranger, client)
        client.on_close(timer.cancel)

    def _drop_stranger(self, client: Client) -> None:
        if client.authenticated or client.gone:
            return
        if client.authenticating:  # somebody may be at the password's prompt
            self._watch_stranger(client)
            return
        log.warning("conn=%d dropped: not authenticated after %g s", client.number, AUTH_S)
        client.transport.close()

    def client_known(self, client: Client) -> None:
        """A client proved who it is."""
        self.anonymous.discard(client)
        self._watch_listeners()

    def client_gone(self, client: Client) -> None:
        """A client's connection ended."""
        self.clients.discard(client)
        self.anonymous.discard(client)
        if (leave := self._places.pop(client, None)) is not None:
            leave()
        self._watch_memory()
        self._watch_idle()
        self._watch_listeners()
        if not self.clients and self._all_gone is not None:
            self._all_gone.set()

    def _watch_memory(self) -> None:
        """Once most of a crowd is gone, what it took is given back."""
        now = len(self.clients)
        self._most = max(self._most, now + 1)  # one has just gone
        if self._most >= CROWD and now * 4 <= self._most:
            self._most = now
            self.host.tasks.start(asyncio.to_thread(give_back), "memory")

    # --- the end ---------------------------------------------------------------------------------------------

    def end_when_idle(self, seconds: int, callback: Callable[[], None]) -> None:
        """Call back once no client is connected and nothing runs for `seconds` (0: never)."""
        self._idle_s, self.on_idle = seconds, callback
        self._watch_idle()

    def _watch_idle(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        if self._idle_s and not self.clients:
            self._idle_timer = asyncio.get_running_loop().call_later(self._idle_s, self._idle)

    def _idle(self) -> None:
        self._idle_timer = None
        if self.clients or self.host.inhibit:
            self._watch_idle()
        elif self.on_idle is not None:
            self.on_idle()

    async def close(self) -> None:
        """Stop listening, answer the calls in flight (for a few seconds at most), end every connection."""
        loop = asyncio.get_running_loop()
        listeners, self._listeners = self._listeners, {}
        self._started = self._accepting = False
        for sock in listeners:
            loop.remove_reader(sock)
            sock.close()
        for timer in (self._resting, self._idle_timer, self._stranger_look):
            if timer is not None:
                timer.cancel()
        self._idle_s = 0
        for listener in listeners.values():
            if listener.path is not None:
                listener.path.unlink(missing_ok=True)
        for client in list(self.clients):
            client.end()
        if self.clients:
            self._all_gone = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), CLOSE_S)
        for client in list(self.clients):
            client.transport.close()
        self.polkit.close()
