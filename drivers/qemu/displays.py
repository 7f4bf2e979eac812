"""What a guest shows: a picture of a screen, and display connections handed over as descriptors."""

import os
import secrets
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pyvirtd.api.domain_device import DevicePart
from pyvirtd.api.rpc import Files, WithFiles, accepts
from pyvirtd.api.types import Stream
from pyvirtd.constants.domain import DomainOpenGraphicsFlags
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.errors import BadCall, InternalError, InvalidArg, OperationInvalid, VirtError, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import DbusGraphics, Graphics, SpiceGraphics, VncGraphics
from pyvirtd.util.files import Owner, in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

CHUNK = 1 << 18
PNG_SINCE = 7_001_000  # QEMU whose screendump knows formats; an older one writes PPM
# The names under which QEMU hands a connection to its display servers.
PROTOCOLS: dict[type[Graphics], str] = {VncGraphics: "vnc", SpiceGraphics: "spice", DbusGraphics: "@dbus-display"}
FD_NAME = "graphicsfd"
RELOAD_ANY, RELOAD_VNC = 0, 1  # VIR_DOMAIN_GRAPHICS_RELOAD_TYPE_...


class Displays(DevicePart[QemuDomain]):
    """Screenshots and graphics connections."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    # --- screenshots -----------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_screenshot(self, dom: QemuDomain, screen: int, flags: int, stream: Stream) -> str:
        async with dom.jobs.hold(Job.QUERY, "DomainScreenshot"):
            guest = dom.running
            arguments = screen_arguments(dom.live_def, screen)
            png = guest.caps.version >= PNG_SINCE
            if png:
                arguments["format"] = "png"
            owner = self.driver.credentials.owner if self.driver.host.privileged else None
            fd = await _screendump(guest, owner, arguments)
        stream.serve(_send(stream, fd), reads=False)
        return "image/png" if png else "image/x-portable-pixmap"

    # --- certificates ----------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_graphics_reload(self, dom: QemuDomain, type: int, flags: int) -> None:
        """Have VNC read its certificates again; of QEMU's displays only VNC can."""
        if type not in (RELOAD_ANY, RELOAD_VNC):
            raise InvalidArg(f"unknown graphics type {type}", domain=From.QEMU)
        async with dom.jobs.hold(Job.MODIFY, "DomainGraphicsReload"):
            if not any(isinstance(graphics, VncGraphics) for graphics in dom.live_def.devices.graphics):
                raise OperationInvalid("the domain has no VNC display", domain=From.QEMU)
            await dom.monitor.execute("display-reload", {"type": "vnc", "tls-certs": True})

    # --- connections -----------------------------------------------------------------------------------------

    @accepts(DomainOpenGraphicsFlags.SKIPAUTH)
    async def domain_open_graphics(self, dom: QemuDomain, idx: int, flags: int, files: Files) -> None:
        if len(files) != 1:
            raise InternalError("No FD available at slot 0", domain=From.RPC)
        if not stat.S_ISSOCK(os.fstat(files[0]).st_mode):
            raise BadCall(f"fd {files[0]} must be a socket")
        await _add_client(dom, idx, flags, files[0])

    @accepts(DomainOpenGraphicsFlags.SKIPAUTH)
    async def domain_open_graphics_fd(  # type: ignore[override] # the declaration tells what is on the wire
        self, dom: QemuDomain, idx: int, flags: int
    ) -> WithFiles:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            await _add_client(dom, idx, flags, theirs.fileno())
            return WithFiles(None, [ours.detach()])


class _Head(NamedTuple):
    alias: str
    head: int


def screen_arguments(live: DomainDef, screen: int) -> dict[str, object]:
    """Where screendump finds a screen: they are numbered through the heads of all video devices.

    Raises OperationInvalid for one that is not there.
    """
    videos = live.devices.video
    if not videos:
        raise OperationInvalid("no screens to take screenshot from", domain=From.QEMU)
    if screen == 0:
        return {}
    heads = [
        _Head(video.info.alias or "", head)
        for video in videos
        for head in range((video.model.heads if video.model is not None else None) or 1)
    ]
    if screen >= len(heads):
        raise OperationInvalid("no such screen ID", domain=From.QEMU)
    found = heads[screen]
    return {"device": found.alias, "head": found.head} if found.head else {"device": found.alias}


async def _screendump(guest: Guest, owner: Owner | None, arguments: dict[str, object]) -> int:
    """An open file with the picture; it has no name any more."""
    path = guest.directory / f"qemu.screendump.{secrets.token_hex(6)}"
    try:
        picture = await in_thread(_create, path, owner)
    except OSError as exc:
        raise from_os_error(exc, f"cannot create '{path}'", domain=From.QEMU) from exc
    try:
        await guest.monitor.execute("screendump", {"filename": str(path), **arguments})
    except BaseException:
        os.close(picture)
        raise
    finally:
        await in_thread(path.unlink, missing_ok=True)
    return picture


def _create(path: Path, owner: Owner | None) -> int:
    """A new file that only the guest's QEMU may write to, opened for reading."""
    fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if owner is not None:
        os.fchown(fd, owner.uid, owner.gid)
    return fd


async def _send(stream: Stream, fd: int) -> None:
    """Send a file to the client, and close it."""
    try:
        while data := await in_thread(os.read, fd, CHUNK):
            await stream.write(data)
    finally:
        os.close(fd)


async def _add_client(dom: QemuDomain, idx: int, flags: int, fd: int) -> None:
    """Give a display server of the guest a connected client."""
    graphics = dom.live_def.devices.graphics
    if idx >= len(graphics):
        raise InternalError(f"No graphics backend with index {idx}", domain=From.QEMU)
    protocol = PROTOCOLS.get(type(graphics[idx]))
    if protocol is None:
        kind = type(graphics[idx]).case[0]
        raise OperationInvalid(f"Can only open VNC, SPICE or D-Bus p2p graphics backends, not {kind}", domain=From.QEMU)
    async with dom.jobs.hold(Job.MODIFY, "DomainOpenGraphics"):
        monitor = dom.monitor
        await monitor.pass_fd(FD_NAME, fd)
        skip_auth = bool(flags & DomainOpenGraphicsFlags.SKIPAUTH)
        try:
            await monitor.execute("add_client", {"protocol": protocol, "fdname": FD_NAME, "skipauth": skip_auth})
        except VirtError:
            with suppress(VirtError):  # QEMU may have taken it before it failed
                await monitor.execute("closefd", {"fdname": FD_NAME})
            raise
