"""Consoles and channels: bytes between a client's stream and what QEMU has behind a character device.

One session at a time for each device. It ends when either side does: the client's end lets go of the device, the
guest's end is told to the client as the end of the data.
"""

import asyncio
import errno
import os
import socket
import termios
import tty
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.api.domain_device import DevicePart
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import Stream
from pyvirtd.constants.domain import DomainChannelFlags, DomainConsoleFlags
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.errors import InternalError, OperationFailed, RpcError, VirtError, from_os_error
from pyvirtd.model.chardev import Channel, Chardev, ChardevType, VirtioTarget
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

CHUNK = 1 << 16
CONNECT_S = 10.0
# Programs that use terminal devices leave their process id there (FHS 5.9); who finds one keeps off the device.
LOCKS = Path("/var/lock")
LOCK_BYTES = 64


class Consoles(DevicePart[QemuDomain]):
    """Procedures that open a character device of a running guest."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(DomainConsoleFlags.SAFE | DomainConsoleFlags.FORCE)
    async def domain_open_console(self, dom: QemuDomain, dev_name: str | None, flags: int, stream: Stream) -> None:
        guest = dom.running
        device = find_console(dom.live_def, dev_name)
        path = device.path
        if device.type is not ChardevType.PTY or path is None:
            name = dev_name if dev_name is not None else device.info.alias
            raise InternalError(f"character device {name} is not using a PTY", domain=From.QEMU)
        busy = OperationFailed("Active console session exists for this domain", domain=From.QEMU)
        await self._open(guest, Pty(path), stream, busy, force=bool(flags & DomainConsoleFlags.FORCE))

    @accepts(DomainChannelFlags.FORCE)
    async def domain_open_channel(self, dom: QemuDomain, name: str | None, flags: int, stream: Stream) -> None:
        guest = dom.running
        device = find_channel(dom.live_def, name)
        path = device.path
        if device.type is not ChardevType.UNIX or path is None:
            shown = name if name is not None else device.info.alias
            raise InternalError(f"channel {shown} is not using a UNIX socket", domain=From.QEMU)
        busy = OperationFailed("Active channel stream exists for this domain", domain=From.QEMU)
        await self._open(guest, UnixSocket(path), stream, busy, force=bool(flags & DomainChannelFlags.FORCE))

    async def _open(self, guest: Guest, device: "Opened", stream: Stream, busy: VirtError, *, force: bool) -> None:
        """Begin the session of a device; another one's is ended by `force`, else `busy` is raised."""
        sessions: dict[str, Session] = guest.consoles
        if (other := sessions.get(device.path)) is not None:
            if not force:
                raise busy
            await other.end(RpcError("stream had I/O failure", domain=From.STREAMS))
            if device.path in sessions:
                raise busy  # a third client was quicker
        session = sessions[device.path] = Session(device, stream)
        try:
            await device.open()
        except BaseException:
            del sessions[device.path]
            await device.close()
            session.over.set()
            raise

        def ended() -> None:
            if sessions.get(device.path) is session:
                del sessions[device.path]

        session.start(ended)


# --- which device -----------------------------------------------------------------------------------------------


def find_console(live: DomainDef, name: str | None) -> Chardev:
    """A console, serial or parallel device by alias; without a name the first console or serial port.

    Raises InternalError.
    """
    devices = live.devices
    if name is None:
        found = (*devices.console[:1], *devices.serial[:1])
    else:
        # A first console that mirrors a serial port is known by two names.
        consoles = [device for index, device in enumerate(devices.console) if name == f"console{index}"]
        ports = (*devices.console, *devices.serial, *devices.parallel)
        found = (*consoles, *(device for device in ports if device.info.alias == name))
    if found:
        return found[0]
    raise InternalError(f"cannot find character device {'<null>' if name is None else name}", domain=From.QEMU)


def find_channel(live: DomainDef, name: str | None) -> Channel:
    """A channel by alias or by its name inside the guest; without a name the first. Raises InternalError."""
    for channel in live.devices.channel:
        target = channel.target
        inside = target.name if isinstance(target, VirtioTarget) else None
        if name is None or name in (channel.info.alias, inside):
            return channel
    raise InternalError(f"cannot find channel {'<null>' if name is None else name}", domain=From.QEMU)


# --- opened devices ---------------------------------------------------------------------------------------------


class Opened(ABC):
    """A device that bytes go through; `fd` does not block, and is -1 when closed."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = -1

    @abstractmethod
    async def open(self) -> None:
        """Open the device for this client alone. Raises VirtError."""

    async def close(self) -> None:
        """Let go of the device."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


class Pty(Opened):
    """The terminal side of a pty whose other side QEMU holds, kept from other programs by a lock file."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._lock: Path | None = None

    async def open(self) -> None:
        self._lock = await in_thread(take_lock, self.path)
        try:
            self.fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
            tty.setraw(self.fd, termios.TCSANOW)
        except OSError as exc:
            raise from_os_error(exc, f"Unable to open PTY path: {self.path}", domain=From.STREAMS) from exc
        except termios.error as exc:
            raise InternalError(f"{self.path} is no terminal", domain=From.QEMU) from exc

    async def close(self) -> None:
        await super().close()
        if self._lock is not None:
            lock, self._lock = self._lock, None
            with suppress(OSError):
                await in_thread(lock.unlink)


class UnixSocket(Opened):
    """A socket that QEMU listens on."""

    async def open(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with sock:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await _connect(sock, self.path)
            except TimeoutError:
                raise InternalError(f"{self.path} takes no connection", domain=From.QEMU) from None
            except OSError as exc:
                raise from_os_error(exc, f"Unable to connect to '{self.path}'", domain=From.STREAMS) from exc
            self.fd = sock.detach()


async def _connect(sock: socket.socket, path: str) -> None:
    while True:
        try:
            sock.connect(path)
        except BlockingIOError:  # more wait to be accepted than QEMU has room for; nothing tells when that ends
            await asyncio.sleep(0.05)
        else:
            return


def take_lock(device: str) -> Path | None:
    """Leave our process id for a terminal device; None where locks cannot be left. Raises OperationFailed."""
    path = LOCKS / ("LCK.." + device.removeprefix("/dev").replace("/", "_"))
    for _ in range(3):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileExistsError:
            holder = _lock_holder(path)
            if holder is not None and holder != os.getpid():
                raise OperationFailed(
                    f"Requested console pty '{device}' is locked by lock file '{path}' held by process {holder}",
                    domain=From.QEMU,
                ) from None
            with suppress(OSError):
                path.unlink()
        except OSError as exc:
            if exc.errno in (errno.EACCES, errno.ENOENT, errno.EROFS):
                return None
            raise from_os_error(exc, f"Couldn't create lock file for device '{device}' in path '{path}'") from exc
        else:
            with os.fdopen(fd, "w") as file:
                file.write(f"{os.getpid():10d}\n")
            return path
    return None


def _lock_holder(path: Path) -> int | None:
    """The living process that a lock file names."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            pid = int(file.read(LOCK_BYTES))
        os.kill(pid, 0)
    except PermissionError:
        return pid
    except (OSError, ValueError, OverflowError):
        return None
    return pid


# --- the session ------------------------------------------------------------------------------------------------


class Session:
    """A client's stream joined to an opened device; `over` is set once the device is free."""

    def __init__(self, device: Opened, stream: Stream) -> None:
        self._device = device
        self._stream = stream
        self.over = asyncio.Event()

    def start(self, ended: Callable[[], None]) -> None:
        """Carry bytes both ways until either side ends; then call `ended`."""
        self._stream.serve(self._run(ended), reads=True)

    async def end(self, error: VirtError) -> None:
        """End the session with an error for its client; returns when the device is free."""
        self._stream.abort(error)
        await self.over.wait()

    async def _run(self, ended: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        ways = [loop.create_task(self._from_guest()), loop.create_task(self._from_client())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            try:
                results = await asyncio.gather(*ways, return_exceptions=True)
                await self._device.close()
            finally:
                ended()
                self.over.set()
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, VirtError | OSError):
                raise result

    async def _from_guest(self) -> None:
        """Until the guest's end, which a pty tells as an error."""
        while data := await self._read():
            await self._stream.write(data)
            await asyncio.sleep(0)  # a guest that never stops talking does not keep the loop to itself

    async def _from_client(self) -> None:
        while (data := await self._stream.read()) is not None:
            assert isinstance(data, bytes)  # the stream of such a call has no holes
            rest = memoryview(data)
            while rest:
                rest = rest[await self._write(rest) :]

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._device.fd, CHUNK)
            except BlockingIOError:
                await _ready(self._device.fd, reading=True)

    async def _write(self, data: memoryview) -> int:
        while True:
            try:
                return os.write(self._device.fd, data)
            except BlockingIOError:
                await _ready(self._device.fd, reading=False)


async def _ready(fd: int, *, reading: bool) -> None:
    """Wait until a descriptor can be read or written."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
    add(fd, _wake, ready)
    try:
        await ready
    finally:
        remove(fd)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
