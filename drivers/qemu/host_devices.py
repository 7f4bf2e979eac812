"""Devices of the host that a definition asks for: found, or refused by name before QEMU is run.

Everything here blocks, and costs nothing to guests that ask for none: for a thread.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.host_pci import PciBus
from pyvirtd.drivers.qemu.command.context import Context
from pyvirtd.drivers.qemu.command.host_facts import VHOST_SCSI
from pyvirtd.drivers.qemu.command.hostdev import no_vhost_scsi
from pyvirtd.errors import (
    ConfigUnsupported,
    InternalError,
    OperationFailed,
    VirtError,
    XmlError,
    from_os_error,
)
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.graphics import DbusGraphics, EglHeadlessGraphics, Gl, RenderGl, SpiceGraphics
from pyvirtd.model.hostdev import (
    Hostdev,
    MdevSource,
    ScsiHostdevSource,
    UsbHostAddress,
    UsbHostdevSource,
    VhostScsiSource,
)
from pyvirtd.model.net import InterfaceType, VdpaSource
from pyvirtd.model.words import StartupPolicy

DRI = Path("/dev/dri")
VFIO = Path("/dev/vfio")
VHOST_VSOCK = "/dev/vhost-vsock"
SYS = Path("/sys")
# linux/vhost.h VHOST_VSOCK_SET_GUEST_CID; the first numbers are the hypervisor's, the host's and reserved ones.
SET_GUEST_CID, CID_FIRST, CID_LAST = 0x4008AF60, 3, 0xFFFFFFFE
CIDS_TRIED = 10_000


def find_host_devices(live: DomainDef, ours: ExitStack, context: Context) -> None:
    """Look up what the host must have, and write into the live definition what was found. Raises VirtError."""
    _choose_render_nodes(live)
    if live.devices.vsock is not None:
        context.vhost_vsock_fd = _open_vsock(live, ours)
    for net in live.devices.interface:
        if isinstance(net.source, VdpaSource):
            context.files[net.info.alias or ""] = _open_vdpa(net.source.dev or "", ours)
    for hostdev in list(live.devices.hostdev):
        _find_hostdev(live, hostdev)
        if isinstance(hostdev.source, VhostScsiSource):
            context.files[hostdev.info.alias or ""] = _open_vhost_scsi(hostdev.source.wwpn or "", ours)


def wants_host_devices(live: DomainDef) -> bool:
    """Whether there is anything to look up."""
    devices = live.devices
    return bool(
        devices.hostdev
        or devices.vsock is not None
        or any(net.type is InterfaceType.VDPA for net in devices.interface)
        or any(_gl(graphics) is not None for graphics in devices.graphics)
    )


# --- render nodes -----------------------------------------------------------------------------------------------


def _gl(graphics: object) -> Gl | RenderGl | None:
    """How a display draws, where it does so by the host's graphics card."""
    match graphics:
        case EglHeadlessGraphics():
            graphics.gl = graphics.gl or RenderGl()
            return graphics.gl
        case SpiceGraphics() | DbusGraphics():
            return graphics.gl if graphics.gl is not None and graphics.gl.enable else None
    return None


def _choose_render_nodes(live: DomainDef) -> None:
    for graphics in live.devices.graphics:
        gl = _gl(graphics)
        if gl is None:
            continue
        if gl.rendernode is None:
            gl.rendernode = render_node()
        else:
            _accessible(gl.rendernode)


def render_node() -> str:
    """The first render node that can be used."""
    try:
        names = sorted(os.listdir(DRI))
    except OSError as exc:
        raise from_os_error(exc, f"cannot open directory '{DRI}'") from exc
    for name in names:
        if name.startswith("renderD") and os.access(DRI / name, os.R_OK | os.W_OK):
            return str(DRI / name)
    raise ConfigUnsupported("No DRM render nodes available", domain=From.NONE)


def _accessible(path: str) -> None:
    if not os.path.exists(path):
        raise from_os_error(FileNotFoundError(errno.ENOENT, ""), f"Path '{path}' is not accessible", domain=From.CGROUP)


# --- vdpa and vsock ---------------------------------------------------------------------------------------------


def _open_vdpa(path: str, ours: ExitStack) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise from_os_error(exc, f"Unable to open '{path}' for vdpa device", domain=From.QEMU) from exc
    ours.callback(os.close, fd)
    return fd


def _open_vhost_scsi(wwpn: str, ours: ExitStack) -> int:
    """A descriptor by which QEMU reaches a target of the host's kernel. Raises ConfigUnsupported, SystemError_."""
    try:
        fd = os.open(VHOST_SCSI, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise no_vhost_scsi(VHOST_SCSI) from None
    except OSError as exc:
        raise from_os_error(exc, f"Failed to open '{VHOST_SCSI}' for SCSI target '{wwpn}'") from exc
    ours.callback(os.close, fd)
    return fd


def _open_vsock(live: DomainDef, ours: ExitStack) -> int:
    """A descriptor that has the guest's number, which is chosen here where the definition leaves it to us."""
    vsock = live.devices.vsock
    assert vsock is not None
    try:
        fd = os.open(VHOST_VSOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        raise ConfigUnsupported("unable to open vhost-vsock device", domain=From.QEMU) from exc
    ours.callback(os.close, fd)
    cid = vsock.cid
    if cid is not None and not cid.auto and cid.address:
        if not _set_cid(fd, cid.address):
            raise from_os_error(OSError(errno.EADDRINUSE, ""), "failed to set guest cid", domain=From.NONE)
    elif cid is not None:
        numbers = range(CID_FIRST, CID_FIRST + CIDS_TRIED)
        cid.address = next((number for number in numbers if _set_cid(fd, number)), None)
        if cid.address is None:
            raise OperationFailed("failed to acquire guest cid", domain=From.NONE)
    return fd


def _set_cid(fd: int, number: int) -> bool:
    """Claim a number; False when another guest has it. Raises SystemError_."""
    try:
        fcntl.ioctl(fd, SET_GUEST_CID, struct.pack("=Q", number))
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            return False
        raise from_os_error(exc, "failed to set guest cid", domain=From.NONE) from exc
    return True


# --- assigned devices -------------------------------------------------------------------------------------------


def _find_hostdev(live: DomainDef, hostdev: Hostdev) -> None:
    match hostdev.source:
        case MdevSource(address=address):
            if PciBus(SYS, nodes=VFIO).lacks() is not None:
                raise _unsupported("Mediated host device assignment requires VFIO support")
            uuid = address.uuid if address is not None else None
            if not (SYS / f"bus/mdev/devices/{uuid}").exists():
                raise from_os_error(FileNotFoundError(errno.ENOENT, ""), f"mediated device '{uuid}' not found")
        case UsbHostdevSource() as source:
            _find_usb(live, hostdev, source)
        case ScsiHostdevSource() if hostdev.managed:
            raise XmlError("SCSI host device doesn't support managed mode", domain=From.NONE)


def _unsupported(text: str) -> VirtError:
    return ConfigUnsupported(text, domain=From.QEMU)


def _find_usb(live: DomainDef, hostdev: Hostdev, source: UsbHostdevSource) -> None:
    """The device's place on its bus, which a definition need not tell; an absent optional device is left out."""
    vendor = source.vendor.id if source.vendor is not None else None
    product = source.product.id if source.product is not None else None
    bus = source.address.bus if source.address is not None else None
    number = source.address.device if source.address is not None else None
    found = [place for place, ids in _usb_devices() if _same(ids, vendor, product) and _same(place, bus, number)]
    if not found:
        if source.startup_policy is StartupPolicy.OPTIONAL:
            live.devices.hostdev.remove(hostdev)
            return
        ids = f" {vendor or 0:04x}:{product or 0:04x}" if vendor is not None else ""
        place = f" bus:{bus} device:{number}" if bus is not None else ""
        raise InternalError(f"Did not find USB device{ids}{place}", domain=From.NONE)
    if len(found) > 1:
        raise OperationFailed(
            f"Multiple USB devices for {vendor or 0:x}:{product or 0:x}, use <address> to specify one", domain=From.NONE
        )
    source.address = UsbHostAddress(bus=found[0][0], device=found[0][1])


def _same(found: tuple[int, int], first: int | None, second: int | None) -> bool:
    return first in (None, found[0]) and second in (None, found[1])


def _usb_devices() -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Every USB device: its bus and number, its vendor and product."""
    folder = SYS / "bus/usb/devices"
    try:
        names = sorted(os.listdir(folder))
    except OSError as exc:
        raise from_os_error(exc, f"cannot open directory '{folder}'") from exc
    for name in names:
        with suppress(OSError, ValueError):
            numbers = [int((folder / name / word).read_text(), 10) for word in ("busnum", "devnum")]
            ids = [int((folder / name / word).read_text(), 16) for word in ("idVendor", "idProduct")]
            yield (numbers[0], numbers[1]), (ids[0], ids[1])
