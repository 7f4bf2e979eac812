"""Streams and descriptors with libvirt's own client library on the other side."""

import asyncio
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pyvirtd.api.types import Hole, Stream
from pyvirtd.errors import OperationFailed
from tests.daemon.doubles import DoubleDriver
from tests.daemon.harness import Serving, eventually, serving

pytest.importorskip("libvirt", reason="python3-libvirt is not installed")
HEAD = """
import io, os, socket, sys, libvirt
libvirt.registerErrorHandler(lambda *_: None, None)
conn = libvirt.open(sys.argv[1])
vol = conn.storageVolLookupByKey("/key")
"""
Work = Callable[[Serving, DoubleDriver], Awaitable[None]]


def run(folder: Path, work: Work) -> None:
    async def main() -> None:
        async with serving(folder, "", [DoubleDriver]) as server:
            driver = server.host.drivers[0]
            assert isinstance(driver, DoubleDriver)
            await work(server, driver)
            await eventually(lambda: not server.server.clients)

    asyncio.run(main())


async def client(server: Serving, code: str) -> str:
    """Run a snippet with `conn` and `vol`; what it prints."""
    uri = f"test+unix:///default?socket={server.path}"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", HEAD + code, uri, stdout=pipe, stderr=pipe)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    return out.decode().strip()


class Sink:
    """Keeps what a client uploads."""

    def __init__(self) -> None:
        self.items: list[bytes | Hole] = []

    async def __call__(self, stream: Stream) -> None:
        while (item := await stream.read()) is not None:
            self.items.append(item)


def source(*items: bytes | Hole) -> Callable[[Stream], Awaitable[None]]:
    """A pump that sends data and holes."""

    async def pump(stream: Stream) -> None:
        for item in items:
            if isinstance(item, Hole):
                await stream.write_hole(item.length)
            else:
                await stream.write(item)

    return pump


DOWNLOAD = """
out = io.BytesIO()
stream = conn.newStream()
vol.download(stream, 0, 0, {flags})
{receive}
stream.finish()
print(len(out.getvalue()), sum(out.getvalue()) % 65521)
"""
RECEIVE = "stream.recvAll(lambda s, data, o: o.write(data), out)"
SPARSE = "stream.sparseRecvAll(lambda s, data, o: o.write(data), lambda s, length, o: o.write(bytes(length)), out)"


@pytest.mark.parametrize(("flags", "receive"), [(0, RECEIVE), (1, SPARSE)], ids=["plain", "sparse"])
def test_a_download_arrives_whole(tmp_path: Path, flags: int, receive: str) -> None:
    data = os.urandom(3_000_000)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = source(data, Hole(500_000), b"end")  # type: ignore[assignment]
        printed = await client(server, DOWNLOAD.format(flags=flags, receive=receive))
        assert printed == f"{3_500_003} {(sum(data) + sum(b'end')) % 65521}"

    run(tmp_path, work)


UPLOAD = """
data = b"0123456789" * 300000
stream = conn.newStream()
vol.upload(stream, 0, 0, 0)
source = io.BytesIO(data)
stream.sendAll(lambda s, count, f: f.read(count), source)
stream.finish()
"""


def test_an_upload_arrives_whole(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        await client(server, UPLOAD)
        assert b"".join(item for item in sink.items if isinstance(item, bytes)) == b"0123456789" * 300000

    run(tmp_path, work)


SPARSE_UPLOAD = """
parts = [(True, 4), (False, 1 << 30), (True, 3)]
stream = conn.newStream()
vol.upload(stream, 0, 0, libvirt.VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM)
stream.send(b"abcd")
stream.sendHole(1 << 30)
stream.send(b"xyz")
stream.finish()
"""


def test_a_sparse_upload_keeps_its_hole(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = sink = Sink()
        await client(server, SPARSE_UPLOAD)
        assert sink.items == [b"abcd", Hole(1 << 30), b"xyz"]

    run(tmp_path, work)


def test_an_upload_that_fails_at_the_end_fails_in_finish(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            while await stream.read() is not None:
                pass
            raise OperationFailed("the disk is full")

        driver.pump = pump
        code = UPLOAD.replace("stream.finish()", "try: stream.finish()\nexcept libvirt.libvirtError as exc: print(exc)")
        assert await client(server, code) == "operation failed: the disk is full"

    run(tmp_path, work)


def test_a_download_that_breaks_off_is_an_error(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        async def pump(stream: Stream) -> None:
            await stream.write(b"x" * 100_000)
            raise OperationFailed("the disk is gone")

        driver.pump = pump
        code = DOWNLOAD.format(flags=0, receive=RECEIVE)
        code = "\ntry:\n" + "".join(f"  {line}\n" for line in code.strip().splitlines())
        code += "except libvirt.libvirtError as exc: print(exc)"
        assert await client(server, code) == "operation failed: the disk is gone"

    run(tmp_path, work)


def test_a_client_may_abort_in_the_middle_and_go_on(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = source(bytes(50_000_000))  # type: ignore[assignment]
        code = """
for _ in range(3):
    stream = conn.newStream()
    vol.download(stream, 0, 0, 0)
    assert len(stream.recv(1000)) == 1000
    stream.abort()
print(conn.getHostname())
"""
        assert await client(server, code) == "localhost"

    run(tmp_path, work)


def test_a_stream_without_blocking_is_driven_by_events(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)

    async def work(server: Serving, driver: DoubleDriver) -> None:
        driver.pump = source(data)  # type: ignore[assignment]
        code = """
conn.close()
libvirt.virEventRegisterDefaultImpl()
conn = libvirt.open(sys.argv[1])
vol = conn.storageVolLookupByKey("/key")
stream = conn.newStream(libvirt.VIR_STREAM_NONBLOCK)
got, over = [], []
def ready(stream, events, opaque):
    while True:
        data = stream.recv(65536)
        if data == -2: return
        if not data:
            stream.eventRemoveCallback(); stream.finish(); over.append(1); return
        got.append(data)
vol.download(stream, 0, 0, 0)
stream.eventAddCallback(libvirt.VIR_STREAM_EVENT_READABLE, ready, None)
while not over: libvirt.virEventRunDefaultImpl()
print(sum(map(len, got)))
"""
        assert await client(server, code) == "1000000"

    run(tmp_path, work)


def test_descriptors_go_both_ways(tmp_path: Path) -> None:
    async def work(server: Serving, driver: DoubleDriver) -> None:
        read_end, write_end = os.pipe()
        driver.given = [write_end]
        code = """
dom = conn.lookupByName("test")
fd = dom.openGraphicsFD(0, 0)
os.write(fd, b"from the client")
here, there = socket.socketpair()
dom.openGraphics(0, there.fileno(), 0)
there.close()
print(here.recv(100).decode())
"""
        task = asyncio.create_task(client(server, code))
        await eventually(lambda: driver.received, 20)
        os.write(driver.received[0], b"from the daemon")
        os.close(driver.received[0])
        assert await task == "from the daemon"
        assert os.read(read_end, 100) == b"from the client"
        os.close(read_end)
        os.close(write_end)

    run(tmp_path, work)


@pytest.mark.skipif(not shutil.which("virsh"), reason="virsh is not installed")
def test_keepalive_keeps_an_idle_virsh_and_a_slow_call(tmp_path: Path) -> None:
    """virsh answers the daemon's pings while it waits, and the daemon answers virsh's while a call is slow."""

    async def work(server: Serving, driver: DoubleDriver) -> None:
        server.server.keepalive_interval, server.server.keepalive_count = 1, 1
        driver.gate.clear()
        uri = f"test+unix:///default?socket={server.path}"
        arguments = ["virsh", "-k1", "-K1", "-c", uri, "domhostname test; event --loop --timeout 4 --all"]
        process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        await asyncio.sleep(4)
        driver.gate.set()
        out, _ = await asyncio.wait_for(process.communicate(), 20)
        assert b"test" in out
        assert b"event loop timed out" in out

    run(tmp_path, work)
