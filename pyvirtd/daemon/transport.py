"""Bytes and descriptors to and from one peer. We own the sockets: asyncio's transports lose descriptors.

A received descriptor is kept until the packet that announced it takes it. Writing never waits: what the peer does
not take at once is queued, and the owner watches `queued`. Layers that change the bytes are in tls.py and here.
"""

import array
import asyncio
import logging
import socket
import sys
from collections import deque
from contextlib import suppress
from typing import NamedTuple, Protocol

from pyvirtd.core.access import Identity
from pyvirtd.util.process import process_start_time
from pyvirtd.util.threads import close_fds
from pyvirtd.wire.packet import FDS_MAX

log = logging.getLogger(__name__)

READ_SIZE = 65536
WRITE_PARTS = 64  # queued pieces that go out in one system call
LINGER_S = 5.0  # for the last bytes to a peer that is about to be closed
STALL_S = 120.0  # that a peer may leave waiting bytes untouched before it is dropped
SO_PEERPIDFD = 77  # asm-generic/socket.h, since Linux 6.5
_CONTROL_SIZE = socket.CMSG_SPACE(FDS_MAX * 4)


class Endpoints(NamedTuple):
    """Both ends of a network connection as Cyrus SASL writes them: ADDRESS;PORT."""

    local: str
    remote: str


class Receiver(Protocol):
    """The owner of a transport."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def writable(self) -> None:
        """The queue ran empty."""

    def lost(self) -> None:
        """The peer is gone; called once."""


class Transport:
    """A connected stream socket on the running loop; this one carries bytes as they are."""

    carries_fds = False

    def __init__(self, sock: socket.socket, receiver: Receiver) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._out: deque[bytes | memoryview | int] = deque()  # bytes, or a descriptor (owned) to pass on one byte
        self.queued = 0
        self.fds: deque[int] = deque()
        self._closing = False
        self._closed = False
        self._reading = True
        self._moved_at = 0.0  # when the peer last took queued bytes, by the loop's clock
        self._stall: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock, self._read)

    def peer_pidfd(self) -> int | None:
        """A new descriptor of the peer's process, None where the kernel gives none; the caller closes it."""
        return None

    # --- in --------------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether what the peer sends is left unread."""
        return not self._reading

    def pause(self) -> None:
        """Stop reading until `resume`."""
        if self._reading and not self._closed:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def resume(self) -> None:
        """Read again."""
        if not self._reading and not self._closing:
            self._reading = True
            self._loop.add_reader(self._sock, self._read)

    @property
    def secure(self) -> bool:
        """Whether others on the way cannot read along."""
        return False

    @property
    def strength(self) -> int:
        """How strong the encryption of the connection itself is, in bits."""
        return 0

    def endpoints(self) -> Endpoints | None:
        """The addresses of a network connection; None for another, and for one that is gone."""
        try:
            (host, port, *_), (peer, peer_port, *_) = self._sock.getsockname(), self._sock.getpeername()
        except OSError:
            return None
        return Endpoints(f"{host};{port}", f"{peer};{peer_port}")

    def identity(self) -> Identity:
        """What the socket says about the peer. Raises OSError when it is gone."""
        host, port, *_ = self._sock.getpeername()
        return Identity(address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._arrived(data)
        else:
            self.close()

    def _arrived(self, data: bytes) -> None:
        """Bytes came from the socket."""
        self.receiver.received(data)

    def take_fds(self, count: int) -> list[int] | None:
        """The next `count` descriptors; None, and none is left, where fewer came."""
        if len(self.fds) < count:
            self.drop_fds()
            return None
        return [self.fds.popleft() for _ in range(count)]

    def drop_fds(self) -> None:
        """Close descriptors that no packet announced."""
        if self.fds:
            close_fds(self.fds)
            self.fds.clear()

    # --- out -------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, or queue what does not fit now."""
        if self._closing:
            return
        rest: bytes | memoryview = data
        if not self._out:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.close()
                return
            if sent == len(data):
                return
            if sent:
                rest = memoryview(data)[sent:]
            self._start_flushing()
        self._out.append(rest)
        self.queued += len(rest)

    def _start_flushing(self) -> None:
        self._loop.add_writer(self._sock, self._flush)
        self._moved_at = self._loop.time()
        if self._stall is None:
            self._stall = self._loop.call_later(STALL_S, self._look_for_stall)

    def _look_for_stall(self) -> None:
        self._stall = None
        if not self._out:
            return
        due = self._moved_at + STALL_S
        if self._loop.time() >= due:
            log.warning("a client is dropped: for %g s it took nothing of what waits for it", STALL_S)
            self.close()
        else:
            self._stall = self._loop.call_at(due, self._look_for_stall)

    def write_fd(self, fd: int) -> None:
        """Pass a descriptor on one byte after what is queued; it is closed once passed."""
        if self._closing:
            close_fds([fd])
            return
        if not self._out:
            self._start_flushing()
        self._out.append(fd)

    def _flush(self) -> None:
        try:
            while self._out:
                if isinstance(self._out[0], int):
                    self._send_fd(self._out[0])
                elif not self._send_bytes():
                    return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        self._loop.remove_writer(self._sock)
        if self._closing:
            self.close()
        else:
            self.receiver.writable()

    def _send_fd(self, fd: int) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self._sock.sendmsg([b"\0"], rights)
        self._out.popleft()
        close_fds([fd])

    def _send_bytes(self) -> bool:
        """Send the queued pieces up to the next descriptor; whether the socket took all of them."""
        parts: list[bytes | memoryview] = []
        for item in self._out:
            if isinstance(item, int) or len(parts) == WRITE_PARTS:
                break
            parts.append(item)
        sent = self._sock.sendmsg(parts)
        self.queued -= sent
        self._moved_at = self._loop.time()
        for part in parts:
            if sent < len(part):
                self._out[0] = memoryview(part)[sent:]
                return False
            sent -= len(part)
            self._out.popleft()
        return True

    # --- end -------------------------------------------------------------------------------------------------

    def close_when_sent(self) -> None:
        """Close after what is queued is sent; nothing more is read."""
        if self._closing:
            return
        if not self._out:
            self.close()
            return
        self.pause()
        self._closing = True
        self._loop.call_later(LINGER_S, self.close)

    def close(self) -> None:
        """Close now and tell the owner."""
        if self._closed:
            return
        self._closed = self._closing = True
        if self._stall is not None:
            self._stall.cancel()
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        close_fds(item for item in self._out if isinstance(item, int))
        self._out.clear()
        self.queued = 0
        self.drop_fds()
        self._sock.close()
        self.receiver.lost()


class Layer(Protocol):
    """Protects bytes, as a SASL mechanism's security layer does."""

    def encode(self, data: bytes) -> bytes:
        """What to send for `data`."""

    def decode(self, data: bytes) -> bytes:
        """The whole messages that are complete with `data`. Raises LayerError for what is not the peer's."""


class LayerError(Exception):
    """The peer's bytes are not what the layer can read: the connection can only be closed."""


class TcpTransport(Transport):
    """Bare TCP, until authentication gives it a layer."""

    def __init__(self, sock: socket.socket, receiver: Receiver) -> None:
        super().__init__(sock, receiver)
        self._layer: Layer | None = None
        self._next: Layer | None = None

    @property
    def secure(self) -> bool:
        """Whether others on the way cannot read along."""
        return self._layer is not None

    def protect_after_next(self, layer: Layer) -> None:
        """Put every byte through a layer: those that come from now on, and those sent after the next write."""
        self._next = layer

    def _arrived(self, data: bytes) -> None:
        layer = self._layer or self._next
        if layer is not None:
            try:
                data = layer.decode(data)
            except LayerError as exc:
                log.warning("a connection ends: %s", exc)
                self.close()
                return
            if not data:
                return
        self.receiver.received(data)

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        if self._layer is not None:
            try:
                data = self._layer.encode(data)
            except LayerError as exc:
                log.warning("a connection ends: %s", exc)
                self.close()
                return
        elif self._next is not None:
            self._layer = self._next
        super().write(data)


def keep_talking(sock: socket.socket) -> None:
    """Settings of a TCP connection: replies are not held back, and a host that died is noticed in the end."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class UnixTransport(Transport):
    """A unix stream socket: descriptors come and go with the bytes, and the kernel vouches for the peer."""

    carries_fds = True

    @property
    def secure(self) -> bool:
        return True

    def endpoints(self) -> Endpoints | None:
        return None

    def identity(self) -> Identity:
        """The peer's credentials, as the kernel took them at connect."""
        pid, uid, gid = array.array("I", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        start_time = None
        with suppress(ProcessLookupError):  # it is gone already, or in a process namespace that we do not see into
            start_time = process_start_time(pid)
        context = ""
        with suppress(OSError, UnicodeDecodeError):  # no security module; AppArmor's labels have no colons
            label = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERSEC, 256).rstrip(b"\0\n").decode()
            context = label if ":" in label else ""
        return Identity(pid, uid, gid, start_time, selinux_context=context)

    def peer_pidfd(self) -> int | None:
        """A new descriptor of the peer's process, None where the kernel gives none; the caller closes it."""
        try:
            return int.from_bytes(self._sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4), sys.byteorder)
        except OSError:
            return None

    def _read(self) -> None:
        try:
            data, control, flags, _ = self._sock.recvmsg(READ_SIZE, _CONTROL_SIZE, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if control:
            for level, kind, payload in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self.fds.extend(array.array("i", payload[: len(payload) // 4 * 4]))
        if not data or flags & socket.MSG_CTRUNC or len(self.fds) > FDS_MAX:
            self.close()
            return
        self.receiver.received(data)
