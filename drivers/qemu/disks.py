"""Disks of a guest that is about to start: are they there, and what the definition says of those that are not."""

import os
import stat
from typing import TYPE_CHECKING

from pyvirtd.api.events import DomainEventDiskChange
from pyvirtd.constants.domain import ConnectDomainEventDiskChangeReason as Reason
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu import chains
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import VirtError, from_os_error
from pyvirtd.model.disk import DiskDevice
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import host_path
from pyvirtd.model.words import StartupPolicy
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Identity

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

REMOVABLE = (DiskDevice.CDROM, DiskDevice.FLOPPY)


async def check_presence(driver: "QemuDriver", dom: QemuDomain, live: DomainDef, identity: Identity) -> None:
    """Refuse a missing image, or go on without it where startupPolicy allows. Raises VirtError naming the file."""
    for disk in list(live.devices.disk):
        path = host_path(disk.source)
        if path is None or (missing := await in_thread(_missing, path, identity)) is None:
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


def _missing(path: str, identity: Identity) -> VirtError | None:
    """Why an image cannot be used; None where it is there. Others' permissions are QEMU's matter."""
    what = f"Cannot access storage file '{path}'"
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return None
    except OSError as exc:
        return chains.missing(exc, what, identity)
    if stat.S_ISDIR(mode):
        return from_os_error(IsADirectoryError(21, ""), what, domain=From.STORAGE)
    return None
