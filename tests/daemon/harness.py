"""A server with the in-memory driver on a unix socket, and a raw client that may send anything."""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pyvirtd.api.rpc import PROCEDURES, REMOTE, VERSION, Procedure, Program
from pyvirtd.api.types import DomainRef
from pyvirtd.config import DaemonConfig, QemuConfig
from pyvirtd.core.driver import Driver, Host
from pyvirtd.core.hooks import Hooks
from pyvirtd.core.registry import start_drivers
from pyvirtd.daemon.client import ERROR
from pyvirtd.daemon.listeners import unix_listener
from pyvirtd.daemon.server import Server
from pyvirtd.daemon.transport import UnixTransport
from pyvirtd.drivers.test import TestDriver
from pyvirtd.paths import Paths
from pyvirtd.wire.packet import HEADER, Framer, Packet, PacketType, Status, fd_count, frame
from tests.support.descriptors import until_closed

URI = "test:///default"
TEST = DomainRef("test", bytes.fromhex("6695eb01f6a4830479aa97f2502e193f"), 1)  # the domain that runs from the start
WAIT_S = 5.0
REPLIES = (PacketType.REPLY, PacketType.REPLY_WITH_FDS)


def procedure(name: str, program: Program = REMOTE) -> Procedure:
    """A procedure by name."""
    return next(p for p in PROCEDURES.values() if p.name == name and p.program is program)


def every_call() -> list[Procedure]:
    """All procedures of the programs that the main sockets serve."""
    return [p for p in PROCEDURES.values() if p.program.name != "admin"]


def open_fds() -> int:
    """How many descriptors this process has open, once those that threads close are closed."""
    until_closed()
    return len(os.listdir("/proc/self/fd"))


async def eventually(condition: Any, timeout: float = WAIT_S) -> None:
    """Wait until `condition()` holds."""
    async with asyncio.timeout(timeout):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)


class RawClient:
    """Speaks frames over the project's own transport; `packets` holds what came and was not asked for yet."""

    def __init__(self, sock: socket.socket) -> None:
        self.framer = Framer()
        self.packets: deque[Packet] = deque()
        self.gone = False
        self.serial = 0
        self._news = asyncio.Event()
        self.transport = UnixTransport(sock, self)

    # what the transport calls

    def received(self, data: bytes) -> None:
        self.packets += self.framer.feed(data)
        self._news.set()

    def writable(self) -> None: ...

    def lost(self) -> None:
        self.gone = True
        self._news.set()

    # sending

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def send_call(
        self,
        number: int,
        payload: bytes = b"",
        *,
        program: int = REMOTE.number,
        version: int = VERSION,
        kind: int = PacketType.CALL,
        status: int = Status.OK,
        fds: Sequence[int] = (),
    ) -> int:
        """Send a call; descriptors are duplicated, the caller keeps its own."""
        self.serial += 1
        if fds:
            kind, payload = PacketType.CALL_WITH_FDS, fd_count(len(fds)) + payload
        self.send(frame(program, version, number, kind, self.serial, status, payload))
        for fd in fds:
            self.transport.write_fd(os.dup(fd))
        return self.serial

    def start(self, name: str, *values: Any, program: Program = REMOTE, fds: Sequence[int] = ()) -> int:
        """Send a call by name with wire values; its serial."""
        declared = procedure(name, program)
        return self.send_call(declared.number, declared.args.encode(*values), program=program.number, fds=fds)

    # receiving

    async def receive(self) -> Packet | None:
        """The next packet; None when the server closed the connection."""
        async with asyncio.timeout(WAIT_S):
            while not self.packets:
                if self.gone:
                    return None
                self._news.clear()
                await self._news.wait()
        return self.packets.popleft()

    async def reply(self, serial: int) -> Packet | None:
        """The answer to a call; all other packets stay where they are."""
        kept: list[Packet] = []
        try:
            while (packet := await self.receive()) is not None:
                if packet.serial == serial and packet.type in REPLIES:
                    return packet
                kept.append(packet)
            return None
        finally:
            self.packets.extendleft(reversed(kept))

    async def answer(self, serial: int, name: str, program: Program = REMOTE) -> Any:
        """The first value of a call's reply; raises Answered for an error."""
        packet = await self.reply(serial)
        assert packet is not None, "the connection was closed"
        if packet.status == Status.ERROR:
            raise Answered(packet)
        values = procedure(name, program).reply.decode(packet.payload)
        return values[0] if values else None

    async def call(self, name: str, *values: Any, program: Program = REMOTE, fds: Sequence[int] = ()) -> Any:
        """Call by name with wire values; the reply's first value, or an Answered error."""
        return await self.answer(self.start(name, *values, program=program, fds=fds), name, program)

    async def events(self, count: int) -> list[Packet]:
        """The next `count` packets, which must be events."""
        found = []
        for _ in range(count):
            packet = await self.receive()
            assert packet is not None
            assert packet.type == PacketType.MESSAGE
            found.append(packet)
        return found

    def take_fds(self, count: int) -> list[int]:
        """Descriptors that came; the caller closes them."""
        fds = self.transport.take_fds(count)
        assert fds is not None
        return fds

    async def open(self, uri: str = URI) -> None:
        await self.call("auth_list")
        await self.call("connect_open", uri, 0)

    async def close(self) -> None:
        self.transport.close()
        await asyncio.sleep(0)


class Answered(Exception):
    """An error reply, or the error that ended a stream."""

    def __init__(self, packet: Packet) -> None:
        fields = ERROR.decode(packet.payload)
        self.code, self.domain, self.message = fields[0], fields[1], fields[2]
        super().__init__(f"{self.code}: {self.message}")


class Serving:
    """A running server."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.host = server.host
        self.path = folder / "sock"
        self.path_ro = folder / "sock-ro"
        self.connected: list[RawClient] = []

    async def connect(self, *, read_only: bool = False, opened: bool = True) -> RawClient:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(self.path_ro if read_only else self.path))
        client = RawClient(sock)
        self.connected.append(client)
        if opened:
            await client.open()
        return client

    def peers(self) -> list[Any]:
        """The server's side of the connections, oldest first."""
        return sorted(self.server.clients, key=lambda client: client.number)


@asynccontextmanager
async def serving(
    folder: Path, config: str = "", drivers: Sequence[type[Driver]] = (TestDriver,)
) -> AsyncIterator[Serving]:
    """Serve drivers, by default the in-memory one, from sockets in `folder`."""
    settings = DaemonConfig.parse(config, "libvirtd.conf")
    paths = Paths.system(folder)
    host = Host(paths, True, settings, QemuConfig.parse("", "qemu.conf"), Hooks(paths))
    await start_drivers(host, drivers)
    server = Server(host, settings)
    held = Serving(server, folder)
    server.listen(unix_listener(held.path, 0o600, None, 100))
    server.listen(unix_listener(held.path_ro, 0o600, None, 100, read_only=True))
    server.start()
    try:
        yield held
    finally:
        for client in held.connected:
            await client.close()
        await server.close()
        await host.tasks.close()


def length_frame(length: int) -> bytes:
    """The start of a frame that claims `length` bytes."""
    return struct.pack(">I", length) + bytes(HEADER.size - 4)
