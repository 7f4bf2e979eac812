"""The server's side of TLS in one process: what a peer may do wrong, pauses, and ends at any point."""

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvirtd.config import DaemonConfig
from pyvirtd.daemon import tls as tls_module
from pyvirtd.daemon.certificates import tls_server
from pyvirtd.daemon.listeners import Wire, network_listeners
from pyvirtd.wire.packet import Framer, Packet, PacketType, frame
from tests.daemon.doubles import DoubleDriver
from tests.daemon.harness import TEST, URI, Answered, Serving, eventually, open_fds, procedure, serving
from tests.support.pki import Authority, Issued, name_of

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Tls:
    """A server that listens for TLS, and a client with a certificate."""

    def __init__(self, server: Serving, folder: Path) -> None:
        self.server = server
        self.folder = folder
        authority = Authority()
        for name, issued in (
            ("server", authority.issue(name_of(CN="localhost"))),
            ("client", authority.issue(name_of(CN="c"))),
        ):
            self._put(name, issued)
        (folder / "ca.pem").write_bytes(authority.cert_pem)
        text = "".join(
            f'{key} = "{folder / file}"\n'
            for key, file in (("ca_file", "ca.pem"), ("cert_file", "server.pem"), ("key_file", "server.key"))
        )
        server.server.tls = tls_server(DaemonConfig.parse(text, "libvirtd.conf"), server.host.paths)
        listener = network_listeners(Wire.TLS, "127.0.0.1", "0", 50)[0]
        self.port = listener.sock.getsockname()[1]
        server.server.listen(listener)

    def _put(self, name: str, issued: Issued) -> None:
        (self.folder / f"{name}.pem").write_bytes(issued.cert_pem)
        (self.folder / f"{name}.key").write_bytes(issued.key_pem)

    async def plain(self) -> Streams:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def connect(self) -> Streams:
        """A client whose certificate was confirmed and which has opened a driver."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname="localhost", limit=1 << 26
        )
        assert await reader.readexactly(1) == b"\1"
        writer.write(call("connect_open", 1, URI, 0))
        assert (await packets(reader, 1))[0].status == 0
        return reader, writer


def call(name: str, serial: int, *values: object) -> bytes:
    declared = procedure(name)
    return frame(declared.program.number, 1, declared.number, PacketType.CALL, serial, 0, declared.args.encode(*values))


async def packets(reader: asyncio.StreamReader, count: int) -> list[Packet]:
    framer, found = Framer(), []
    async with asyncio.timeout(20):
        while len(found) < count:
            data = await reader.read(65536)
            assert data, "the connection ended"
            found += framer.feed(data)
    return found


def run(folder: Path, work: Callable[[Tls], Awaitable[None]]) -> None:
    async def main() -> None:
        async with serving(folder, "", [DoubleDriver]) as server:
            await work(Tls(server, folder))

    asyncio.run(main())


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the server closes the connection."""
    async with asyncio.timeout(5):
        try:
            while await reader.read(65536):
                pass
        except ConnectionError:
            pass
    return True


def test_who_does_not_shake_hands_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls_module, "HANDSHAKE_S", 0.1)

    async def work(tls: Tls) -> None:
        reader, writer = await tls.plain()
        assert await ends(reader)
        writer.close()
        assert not tls.server.server.clients

    run(tmp_path, work)


def test_who_speaks_no_tls_is_sent_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work(tls: Tls) -> None:
        reader, writer = await tls.plain()
        writer.write(call("auth_list", 1))
        assert await ends(reader)
        writer.close()
        await eventually(lambda: not tls.server.server.clients)

    with caplog.at_level(logging.WARNING):
        run(tmp_path, work)
    assert "a TLS session ends: wrong version number" in caplog.text


def test_many_calls_at_once_are_all_answered(tmp_path: Path) -> None:
    async def work(tls: Tls) -> None:
        reader, writer = await tls.connect()
        writer.write(b"".join(call("connect_get_hostname", serial) for serial in range(2, 3002)))
        assert [packet.serial for packet in await packets(reader, 3000)] == list(range(2, 3002))
        writer.close()

    run(tmp_path, work)


def test_what_was_decrypted_before_a_pause_is_not_lost(tmp_path: Path) -> None:
    async def work(tls: Tls) -> None:
        reader, writer = await tls.connect()
        transport = tls.server.peers()[0].transport
        transport.pause()
        writer.write(b"".join(call("connect_get_hostname", serial) for serial in range(2, 2002)))
        await asyncio.sleep(0.05)
        transport._incoming.write(transport._sock.recv(65536))  # as if the pause had come in the midst of it
        transport.resume()
        assert len(await packets(reader, 2000)) == 2000
        writer.close()

    run(tmp_path, work)


def test_a_connection_may_end_after_any_byte_of_the_handshake(tmp_path: Path) -> None:
    async def work(tls: Tls) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(tls.folder / "ca.pem"))
        hello = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        data = outgoing.read()
        before = open_fds()
        for length in range(0, len(data), 7):
            _, writer = await tls.plain()
            writer.write(data[:length])
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        await eventually(lambda: not tls.server.server.clients)
        assert open_fds() <= before
        _, writer = await tls.connect()
        writer.close()

    run(tmp_path, work)


def test_no_descriptors_go_over_the_network(tmp_path: Path) -> None:
    async def work(tls: Tls) -> None:
        driver = tls.server.host.drivers[0]
        assert isinstance(driver, DoubleDriver)
        reader, writer = await tls.connect()
        read_end, write_end = os.pipe()
        driver.given = [read_end]
        before = open_fds()
        writer.write(call("domain_open_graphics_fd", 2, TEST, 0, 0))
        packet = (await packets(reader, 1))[0]
        assert "no file descriptors" in Answered(packet).message
        assert open_fds() == before
        writer.close()
        for fd in (read_end, write_end):
            os.close(fd)

    run(tmp_path, work)
