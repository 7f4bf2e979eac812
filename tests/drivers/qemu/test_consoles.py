"""Consoles and channels: which device, whose it is, and the bytes both ways."""

import asyncio
import os
import pty
import socket
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from pyvirtd.api.types import Hole, Stream
from pyvirtd.drivers.qemu import consoles
from pyvirtd.drivers.qemu.consoles import Consoles, find_channel, find_console, take_lock
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import InternalError, OperationFailed, OperationInvalid, VirtError
from pyvirtd.model.chardev import PtySource, UnixSource
from tests.drivers.qemu.stats_support import off, running
from tests.support.domains import bare_domain
from tests.support.host import SystemHost

if TYPE_CHECKING:
    import libvirt

    from pyvirtd.drivers.qemu.driver import QemuDriver

FORCE = 1
DEVICES = (
    "<serial type='pty'/><serial type='pty'/><console type='pty'/><console type='pty'><target type='virtio'/></console>"
    "<parallel type='pty'/><channel type='unix'><target type='virtio' name='com.example.a'/></channel>"
    "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>"
)


class FakeStream(Stream):
    """A client that the test plays: `say` what it sends, `heard` is what it got."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.said: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.error: VirtError | None = None
        self.eof = asyncio.Event()
        self.changed = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.pump: asyncio.Task[None] | None = None

    def serve(self, pump: Coroutine[Any, Any, None], *, reads: bool) -> None:
        assert reads
        self.pump = asyncio.ensure_future(self._run(pump))

    async def _run(self, pump: Coroutine[Any, Any, None]) -> None:
        await pump
        self.eof.set()

    async def read(self) -> bytes | Hole | None:
        return await self.said.get()

    async def write(self, data: bytes) -> None:
        await self.gate.wait()
        self.heard += data
        self.changed.set()

    def abort(self, error: VirtError) -> None:
        self.error = error
        if self.pump is not None:
            asyncio.get_running_loop().call_soon(self.pump.cancel)

    async def hear(self, wanted: bytes) -> None:
        while wanted not in self.heard:
            self.changed.clear()
            await self.changed.wait()


class Bench:
    """A running domain without QEMU: a pty behind serial0, a socket behind channel0; the test plays the guest."""

    def __init__(self, folder: Path) -> None:
        self.guest_end, terminal = pty.openpty()
        os.set_blocking(self.guest_end, False)
        self.tty = os.ttyname(terminal)
        os.close(terminal)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(folder / "channel"))
        self.listener.listen(1)
        self.listener.setblocking(False)
        self.dom = off(devices=DEVICES)
        running(self.dom, {})
        live = self.dom.live_def
        live.devices.serial[0].source = live.devices.console[0].source = [PtySource(path=self.tty)]
        live.devices.channel[0].source = [UnixSource(path=str(folder / "channel"))]
        self.part = Consoles(cast("QemuDriver", None))

    async def console(self, stream: FakeStream, flags: int = 0) -> None:
        await self.part.domain_open_console(self.dom, None, flags, stream)

    async def accept(self) -> socket.socket:
        connection, _ = await asyncio.get_running_loop().sock_accept(self.listener)
        connection.setblocking(False)
        return connection

    async def hear(self, wanted: int) -> bytes:
        """What the guest reads from its pty."""
        got = b""
        while len(got) < wanted:
            try:
                got += os.read(self.guest_end, 65536)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        return got

    async def close(self) -> None:
        for session in list(self.dom.running.consoles.values()):
            await session.end(OperationFailed("the test is over"))
        self.listener.close()
        os.close(self.guest_end)


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: sockets live in it, and lock files."""
    with tempfile.TemporaryDirectory(prefix="pv-con-") as made:
        monkeypatch.setattr(consoles, "LOCKS", Path(made))
        yield Path(made)


def on_bench(folder: Path, work: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench(folder)
        try:
            await asyncio.wait_for(work(bench), 20)
        finally:
            await bench.close()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


async def fill(connection: socket.socket) -> int:
    """Send until nobody takes more; how many bytes."""
    sent = 0
    while True:
        try:
            sent += connection.send(bytes(1 << 16))
        except BlockingIOError:
            return sent
        await asyncio.sleep(0.001)


# --- which device -----------------------------------------------------------------------------------------------


@pytest.fixture
def live() -> QemuDomain:
    dom = off(devices=DEVICES)
    running(dom, {})
    devices = dom.live_def.devices
    for kind in ("serial", "parallel", "channel"):
        for index, device in enumerate(getattr(devices, kind)):
            device.info.alias = f"{kind}{index}"
    devices.console[0].info.alias = "serial0"
    devices.console[1].info.alias = "console1"
    return dom


def test_without_a_name_the_console_is_the_first(live: QemuDomain) -> None:
    assert find_console(live.live_def, None) is live.live_def.devices.console[0]


@pytest.mark.parametrize(
    ("name", "kind", "index"),
    [
        ("console0", "console", 0),
        ("serial0", "console", 0),
        ("serial1", "serial", 1),
        ("console1", "console", 1),
        ("parallel0", "parallel", 0),
    ],
)
def test_consoles_are_found_by_alias(live: QemuDomain, name: str, kind: str, index: int) -> None:
    assert find_console(live.live_def, name) is getattr(live.live_def.devices, kind)[index]


def test_a_console_that_is_not_there(live: QemuDomain) -> None:
    with pytest.raises(InternalError, match="cannot find character device nope"):
        find_console(live.live_def, "nope")
    with pytest.raises(InternalError, match="cannot find character device <null>"):
        find_console(off(devices="<parallel type='pty'/>").config, None)


@pytest.mark.parametrize("name", [None, "channel0", "com.example.a"])
def test_channels_are_found_by_alias_and_by_name(live: QemuDomain, name: str | None) -> None:
    assert find_channel(live.live_def, name) is live.live_def.devices.channel[0]


def test_a_channel_without_a_socket_is_refused(live: QemuDomain) -> None:
    part = Consoles(cast("QemuDriver", None))
    with pytest.raises(InternalError, match="channel channel1 is not using a UNIX socket"):
        asyncio.run(part.domain_open_channel(live, "channel1", 0, FakeStream()))
    with pytest.raises(InternalError, match="cannot find channel nope"):
        asyncio.run(part.domain_open_channel(live, "nope", 0, FakeStream()))


def test_a_domain_that_is_off_has_no_console() -> None:
    with pytest.raises(OperationInvalid, match="domain is not running"):
        asyncio.run(Consoles(cast("QemuDriver", None)).domain_open_console(off(), None, 0, FakeStream()))


# --- lock files -------------------------------------------------------------------------------------------------


def test_the_lock_of_a_living_process_keeps_us_off(folder: Path) -> None:
    (folder / "LCK.._pts_7").write_text(f"{os.getppid():10d}\n")
    with pytest.raises(OperationFailed, match=r"'/dev/pts/7' is locked by lock file '.*' held by process \d+"):
        take_lock("/dev/pts/7")


@pytest.mark.parametrize("content", ["   4194305\n", "", "nobody", "99999999999999999999"])
def test_a_stale_lock_is_replaced(folder: Path, content: str) -> None:
    (folder / "LCK.._pts_7").write_text(content)
    path = take_lock("/dev/pts/7")
    assert path == folder / "LCK.._pts_7"
    assert path.read_text() == f"{os.getpid():10d}\n"


def test_where_locks_cannot_be_left_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consoles, "LOCKS", folder / "absent")
    assert take_lock("/dev/pts/7") is None


# --- sessions ---------------------------------------------------------------------------------------------------


def test_bytes_go_both_ways_unchanged(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        stream = FakeStream()
        await bench.console(stream)
        os.write(bench.guest_end, b"login:\r\n\x04")
        await stream.hear(b"login:\r\n\x04")
        await stream.said.put(b"root\n\x03\xff")
        assert await bench.hear(7) == b"root\n\x03\xff"
        assert (folder / ("LCK.." + bench.tty.removeprefix("/dev").replace("/", "_"))).exists()

    on_bench(folder, work)


def test_a_second_client_is_refused_and_the_first_goes_on(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        first = FakeStream()
        await bench.console(first)
        with pytest.raises(OperationFailed, match="Active console session exists for this domain"):
            await bench.console(FakeStream())
        os.write(bench.guest_end, b"still here")
        await first.hear(b"still here")

    on_bench(folder, work)


def test_force_ends_the_first_session(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        first, second = FakeStream(), FakeStream()
        await bench.console(first)
        await bench.console(second, FORCE)
        assert first.error is not None
        assert first.error.message == "stream had I/O failure"
        os.write(bench.guest_end, b"for the second")
        await second.hear(b"for the second")
        assert not first.heard

    on_bench(folder, work)


def test_the_clients_end_frees_the_device(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        for _ in range(2):
            stream = FakeStream()
            await bench.console(stream)
            await stream.said.put(b"bye")
            await stream.said.put(None)
            assert await bench.hear(3) == b"bye"
            await until(lambda: not bench.dom.running.consoles)

    on_bench(folder, work)
    assert not list(folder.glob("LCK*"))


def test_the_guests_end_is_the_end_of_the_data(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        stream = FakeStream()
        await bench.part.domain_open_channel(bench.dom, None, 0, stream)
        connection = await bench.accept()
        connection.send(b"last words")
        connection.close()
        await stream.eof.wait()
        assert stream.heard == b"last words"
        assert stream.error is None
        await until(lambda: not bench.dom.running.consoles)

    on_bench(folder, work)


def test_nothing_is_lost_to_a_guest_that_reads_late(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        stream = FakeStream()
        await bench.part.domain_open_channel(bench.dom, None, 0, stream)
        connection = await bench.accept()
        sent = os.urandom(3 << 20)
        await stream.said.put(sent)
        await asyncio.sleep(0.05)
        assert not stream.eof.is_set()
        got = b""
        while len(got) < len(sent):
            got += await asyncio.get_running_loop().sock_recv(connection, 1 << 16)
        assert got == sent
        connection.close()

    on_bench(folder, work)


def test_a_slow_client_holds_up_the_guest_and_nobody_else(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        stream = FakeStream()
        stream.gate.clear()
        await bench.part.domain_open_channel(bench.dom, None, 0, stream)
        connection = await bench.accept()
        sent = await fill(connection)
        assert sent < 4 << 20
        stream.gate.set()
        await until(lambda: len(stream.heard) == sent)
        connection.close()

    on_bench(folder, work)


def test_a_failed_open_leaves_the_device_free(folder: Path) -> None:
    async def work(bench: Bench) -> None:
        bench.dom.live_def.devices.channel[0].source = [UnixSource(path=str(folder / "gone"))]
        for _ in range(2):
            with pytest.raises(VirtError, match="No such file or directory"):
                await bench.part.domain_open_channel(bench.dom, None, 0, FakeStream())
        assert not bench.dom.running.consoles

    on_bench(folder, work)


# --- a real QEMU ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def connection(host: SystemHost) -> "Iterator[libvirt.virConnect]":
    """A client of a daemon with the running domain `c`, whose firmware writes to the serial port."""
    host.define(bare_domain("c", devices=DEVICES.replace("type='spicevmc'", "type='pty'")))
    host.ok("start c")
    opened = host.connect()
    yield opened
    opened.close()


def refused(function: Callable[[], Any]) -> str:
    import libvirt

    libvirt.registerErrorHandler(lambda *_: None, None)
    with pytest.raises(libvirt.libvirtError) as caught:
        function()
    return str(caught.value)


@pytest.mark.guest
def test_a_clients_death_frees_the_console_of_a_real_guest(host: SystemHost, connection: "libvirt.virConnect") -> None:
    dom = connection.lookupByName("c")
    dom.openConsole(None, connection.newStream(), 0)
    assert "Active console session exists" in refused(lambda: dom.openConsole("serial0", connection.newStream(), 0))
    other = host.connect()
    other.lookupByName("c").openConsole(None, other.newStream(), FORCE)
    other.close()
    dom.openChannel("com.example.a", connection.newStream(), 0)
    assert "Active channel stream exists" in refused(lambda: dom.openChannel(None, connection.newStream(), 0))


@pytest.mark.guest
def test_the_end_of_a_real_guest_ends_its_console(host: SystemHost, connection: "libvirt.virConnect") -> None:
    dom = connection.lookupByName("c")
    stream = connection.newStream()
    dom.openConsole(None, stream, FORCE)
    dom.destroy()
    while stream.recv(1 << 16):
        pass
    stream.finish()
