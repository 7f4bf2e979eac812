"""Disks of a guest that is about to start: are they there, and what the definition says of those that are not."""

import os
import stat
from typing import TYPE_CHECKING

from pyvirtd.api.events import DomainEventDiskChange
from pyvirtd.constants.domain import ConnectDomainEventDiskChangeReason as Reason
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import VirtError, from_os_error
from pyvirtd.model.disk import Disk, DiskDevice
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import BackingStore, BlockSource, DirSource, FileSource, StorageFormat
from pyvirtd.model.words import StartupPolicy
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

REMOVABLE = (DiskDevice.CDROM, DiskDevice.FLOPPY)


def local_path(disk: Disk) -> str | None:
    """The file or device of the host that holds the disk."""
    match disk.source:
        case FileSource(file=path) | BlockSource(dev=path):
            return path or None
    return None


async def check_presence(driver: "QemuDriver", dom: QemuDomain, live: DomainDef) -> None:
    """Refuse a missing image, or go on without it where startupPolicy allows. Raises VirtError naming the file."""
    for disk in list(live.devices.disk):
        path = local_path(disk)
        if path is None or (missing := await in_thread(_missing, path)) is None:
            continue
        # "requisite" forgives only a migration or a restore.
        if getattr(disk.source, "startup_policy", None) is not StartupPolicy.OPTIONAL:
            raise missing
        reason = Reason.CHANGE_MISSING_ON_START
        if disk.device in REMOVABLE:
            disk.source = None
        else:
            live.devices.disk.remove(disk)
            reason = Reason.DROP_MISSING_ON_START
        driver.host.events.emit(driver, DomainEventDiskChange(dom, path, None, disk.info.alias or "", reason))


async def note_chains(live: DomainDef) -> None:
    """Write into the live definition that a chain of images ends, where it does."""
    for disk in live.devices.disk:
        path = local_path(disk)
        if disk.source is None:
            if disk.driver is not None:
                disk.driver.type = None
        elif disk.backing_store is None and isinstance(disk.source, DirSource):
            disk.backing_store = BackingStore()
        elif disk.backing_store is None and path is not None and disk.driver is not None:
            kind = disk.driver.type
            if kind is StorageFormat.RAW or (kind is StorageFormat.QCOW2 and await in_thread(_stands_alone, path)):
                disk.backing_store = BackingStore()


def _stands_alone(path: str) -> bool:
    """Whether a qcow2 image has no backing file: docs/interop/qcow2.txt of QEMU, header bytes 8 to 15."""
    try:
        head = read_head(path, 16)
    except OSError:
        return False
    return head[:4] == b"QFI\xfb" and head[8:16] == bytes(8)


def read_head(path: str, size: int) -> bytes:
    """The first bytes of an image; never waits for a pipe's other end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def _missing(path: str) -> VirtError | None:
    """Why an image cannot be used; None where it is there. Others' permissions are QEMU's matter."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return None
    except OSError as exc:
        return from_os_error(exc, f"Cannot access storage file '{path}'", domain=From.STORAGE)
    if stat.S_ISDIR(mode):
        return from_os_error(IsADirectoryError(21, ""), f"Cannot access storage file '{path}'", domain=From.STORAGE)
    return None
