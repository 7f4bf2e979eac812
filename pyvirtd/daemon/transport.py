"""Bytes and descriptors to and from one peer. A unix connection owns its socket: asyncio's transports lose descriptors.

A received descriptor is kept until the packet that announced it takes it. Writing never waits: what the peer does
not take at once is queued, and the owner watches `queued`.
"""

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

from pyvirtd.core.access import Identity
from pyvirtd.wire.packet import FDS_MAX

READ_SIZE = 65536
WRITE_PARTS = 64  # queued pieces that go out in one system call
LINGER_S = 5.0  # for the last bytes to a peer that is about to be closed
_CONTROL_SIZE = socket.CMSG_SPACE(FDS_MAX * 4)


class Receiver(Protocol):
    """The owner of a transport."""

    def received(self, data: bytes) -> None:
        """Bytes came."""

    def writable(self) -> None:
        """The queue ran empty."""

    def lost(self) -> None:
        """The peer is gone; called once."""


def close_fds(fds: Iterable[int]) -> None:
    """Close descriptors nobody took."""
    for fd in fds:
        with suppress(OSError):  # one that is closed already must not keep the others open
            os.close(fd)


class UnixTransport:
    """A connected unix stream socket on the running loop."""

    def __init__(self, sock: socket.socket, receiver: Receiver) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._out: deque[bytes | memoryview | int] = deque()  # bytes, or a descriptor (owned) to pass on one byte
        self.queued = 0
        self.fds: deque[int] = deque()
        self._closing = False
        self._closed = False
        self._reading = True
        self._loop.add_reader(sock, self._read)

    def identity(self) -> Identity:
        """The peer's credentials, as the kernel took them at connect."""
        pid, uid, gid = array.array("i", self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return Identity(pid, uid, gid)

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
        self._receiver.received(data)

    def take_fds(self, count: int) -> list[int] | None:
        """The next `count` descriptors; None, and none is left, where fewer came."""
        if len(self.fds) < count:
            self.drop_fds()
            return None
        return [self.fds.popleft() for _ in range(count)]

    def drop_fds(self) -> None:
        """Close descriptors that no packet announced."""
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
            self._loop.add_writer(self._sock, self._flush)
        self._out.append(rest)
        self.queued += len(rest)

    def write_fd(self, fd: int) -> None:
        """Pass a descriptor on one byte after what is queued; it is closed once passed."""
        if self._closing:
            close_fds([fd])
            return
        if not self._out:
            self._loop.add_writer(self._sock, self._flush)
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
            self._receiver.writable()

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
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        close_fds(item for item in self._out if isinstance(item, int))
        self._out.clear()
        self.queued = 0
        self.drop_fds()
        self._sock.close()
        self._receiver.lost()
