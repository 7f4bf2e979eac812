"""Listening sockets, clients and their limits, the end when idle."""

import asyncio
import contextlib
import errno
import grp
import logging
import os
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from pyvirtd.api.rpc import ADMIN, LXC, QEMU, REMOTE
from pyvirtd.config import DaemonConfig
from pyvirtd.core.access import Access
from pyvirtd.core.driver import Driver, Handler, Host
from pyvirtd.daemon.auth import needs_no_step
from pyvirtd.daemon.client import Client
from pyvirtd.daemon.session import DaemonDriver
from pyvirtd.daemon.transport import UnixTransport
from pyvirtd.errors import InternalError, from_os_error

log = logging.getLogger(__name__)

CLOSE_S = 5.0  # for calls in flight to be answered when the daemon ends
ACCEPTS_AT_ONCE = 32  # a storm of connections must not hold the loop
REST_S = 0.5  # without accepting, after descriptors ran out
STRANGER_IDLE_S = 60.0  # that a client may do nothing before authentication while others wait
STRANGER_LOOK_S = 5.0  # between two looks for such clients
FULL_WORDS_S = 60.0  # between two log lines about the same limit
OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
PROGRAMS = frozenset({REMOTE.number, QEMU.number, LXC.number})
ADMIN_PROGRAMS = frozenset({ADMIN.number})

Tables = tuple[dict[tuple[int, int], Handler], dict[type, Driver]]


class Server:
    """Accepts clients and owns them.

    Who connects before `start`, or while a limit is reached, waits in the socket's queue.
    """

    def __init__(self, host: Host, config: DaemonConfig) -> None:
        self.host = host
        self.access = Access()
        self.clients: set[Client] = set()
        self.anonymous: set[Client] = set()  # those that have not proved who they are
        self.daemon = DaemonDriver(host)
        self.base_handlers = self.daemon.handlers
        self.on_idle: Callable[[], None] | None = None
        self._tables: dict[Driver, Tables] = {}
        self._listeners: dict[socket.socket, bool] = {}  # whether read-only
        self._started = False
        self._accepting = False
        self._resting: asyncio.TimerHandle | None = None
        self._full_told = -FULL_WORDS_S
        self._stranger_look: asyncio.TimerHandle | None = None
        self._paths: list[Path] = []
        self._serial = 0
        self._all_gone: asyncio.Event | None = None
        self._idle_s = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self.apply(config)

    def apply(self, config: DaemonConfig) -> None:
        """Take the limits of a (re)read configuration."""
        self.config = config
        self.max_clients = config.max_clients
        self.max_anonymous = config.max_anonymous_clients
        self.max_client_requests = max(1, config.max_client_requests)
        self.keepalive_interval = config.keepalive_interval
        self.keepalive_count = config.keepalive_count
        self._watch_listeners()

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

    def listen_unix(self, path: Path, mode: int, group: str | None, *, read_only: bool) -> None:
        """Serve a unix socket at `path`; one that a daemon left behind is replaced. Raises VirtError."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            _remove_stale(path)
            old = os.umask(0o777)  # nobody connects before mode and group are right
            try:
                sock.bind(str(path))
            finally:
                os.umask(old)
            self._paths.append(path)
            if group and self.host.privileged:
                os.chown(path, -1, grp.getgrnam(group).gr_gid)
            path.chmod(mode)
            sock.listen(self.config.max_queued_clients)
        except KeyError:
            sock.close()
            raise InternalError(f"unix_sock_group: there is no group '{group}'") from None
        except OSError as exc:
            sock.close()
            raise from_os_error(exc, f"cannot listen on {path}") from exc
        self._listeners[sock] = read_only

    def start(self) -> None:
        """Accept clients from now on."""
        self._started = True
        self._watch_listeners()

    def _watch_listeners(self) -> None:
        """Accept, or not: by the limits, and by whether descriptors ran out a moment ago."""
        full = self._limit_reached()
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
            log.warning("%s reached: further clients wait until one leaves", full)
        if full and self._started and self.anonymous and self._stranger_look is None:
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

    def _limit_reached(self) -> str:
        """The name of the limit that lets no more clients in; empty where none does."""
        if len(self.clients) >= self.max_clients:
            return "max_clients"
        if self.max_anonymous and len(self.anonymous) >= self.max_anonymous:
            return "max_anonymous_clients"
        return ""

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
            self._welcome(sock, read_only=self._listeners[listener])

    def _rest(self, exc: OSError) -> None:
        """Leave the sockets alone for a moment: they would be ready for as long as accepting fails."""
        log.error("cannot accept clients for now: %s", exc.strerror)
        self._resting = asyncio.get_running_loop().call_later(REST_S, self._rested)
        self._watch_listeners()

    def _rested(self) -> None:
        self._resting = None
        self._watch_listeners()

    def _welcome(self, sock: socket.socket, *, read_only: bool) -> None:
        self._serial += 1
        auth = self.config.unix_auth(readonly=read_only, privileged=self.host.privileged)
        client = Client(self, self._serial, read_only=read_only, auth=auth)
        client.transport = UnixTransport(sock, client)
        client.identity = client.transport.identity()
        self.clients.add(client)
        if needs_no_step(client):
            client.let_in()
        else:
            self.anonymous.add(client)
        self._watch_idle()
        self._watch_listeners()
        log.debug("conn=%d opened by uid %s pid %s", client.number, client.identity.uid, client.identity.pid)

    def client_known(self, client: Client) -> None:
        """A client proved who it is."""
        self.anonymous.discard(client)
        self._watch_listeners()

    def client_gone(self, client: Client) -> None:
        """A client's connection ended."""
        self.clients.discard(client)
        self.anonymous.discard(client)
        self._watch_idle()
        self._watch_listeners()
        if not self.clients and self._all_gone is not None:
            self._all_gone.set()

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
        for path in self._paths:
            path.unlink(missing_ok=True)
        for client in list(self.clients):
            client.end()
        if self.clients:
            self._all_gone = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), CLOSE_S)
        for client in list(self.clients):
            client.transport.close()


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises InternalError for one that is in use, and OSError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:  # its queue is full
            raise InternalError(f"another daemon serves {path}") from None
        pid = int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        raise InternalError(f"another daemon serves {path} (pid {pid})")
