"""What a start decides and the live definition shows: caches of shared disks, TLS of sockets, sockets of displays.

Pure: nothing of the host is looked at.
"""

from collections.abc import Iterator
from pathlib import Path

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.model.chardev import CharBackend, EgdBackend, SocketMode, TcpSource, UnixSource
from pyvirtd.model.disk import DiskCache, DiskDriver
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import AddressListen, DbusGraphics, SocketListen, SpiceGraphics, VncGraphics
from pyvirtd.model.storage import VhostUserSource
from pyvirtd.paths import QemuPaths


def fill_in(live: DomainDef, config: QemuConfig, paths: QemuPaths, number: int) -> None:
    """Write into a definition that is about to run what it leaves to us."""
    for disk in live.devices.disk:
        if disk.shareable and not disk.readonly and not isinstance(disk.source, VhostUserSource):
            disk.driver = disk.driver or DiskDriver()
            # Several guests write to it: none may read what another's cache has not written yet.
            disk.driver.cache = disk.driver.cache or DiskCache.NONE
    for backend in backends(live):
        for source in backend.source:
            if isinstance(source, TcpSource) and source.tls is None:
                source.tls = config.chardev_tls
    directory = paths.domain_dir(number, live.name)
    for graphics in live.devices.graphics:
        if isinstance(graphics, VncGraphics):
            _name_socket(graphics, directory / "vnc.sock", automatic=config.vnc_auto_unix_socket)
        elif isinstance(graphics, SpiceGraphics):
            _name_socket(graphics, directory / "spice.sock", automatic=config.spice_auto_unix_socket)
        elif isinstance(graphics, DbusGraphics) and not graphics.p2p and not graphics.address:
            graphics.address = f"unix:path={paths.dbus_file(number, live.name, 'sock')}"


def backends(live: DomainDef) -> Iterator[CharBackend]:
    """All devices with a character device behind them."""
    devices = live.devices
    yield from (*devices.serial, *devices.parallel, *devices.console, *devices.channel, *devices.redirdev)
    yield from (card for card in devices.smartcard)
    yield from (rng.backend for rng in devices.rng if isinstance(rng.backend, EgdBackend))


def listens(source: object) -> bool:
    """QEMU is the server of this unix socket."""
    return isinstance(source, UnixSource) and source.mode is not SocketMode.CONNECT


def _name_socket(graphics: VncGraphics | SpiceGraphics, path: Path, *, automatic: bool) -> None:
    """A socket without a name, or the one that qemu.conf wants instead of an address, is in the guest's directory."""
    listen = graphics.listen[0] if graphics.listen else None
    if isinstance(listen, SocketListen) and not listen.socket:
        listen.socket = str(path)
        listen.origin.auto_generated = True
    elif automatic and isinstance(listen, AddressListen) and not listen.address:
        graphics.listen[0] = SocketListen(socket=str(path))
        graphics.listen[0].origin.from_config = True
