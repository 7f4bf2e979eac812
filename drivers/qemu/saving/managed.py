"""Managed save images: one beside each domain, which its next start takes up."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainUndefineFlagsValues
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import OperationInvalid, from_os_error
from pyvirtd.model.status import StatusRestored
from pyvirtd.paths import QemuPaths
from pyvirtd.util.files import durable_unlink, in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)


class Images:
    """The names of the domains that have images, as far as is known without asking the file system: for lists."""

    def __init__(self, paths: QemuPaths) -> None:
        self._paths = paths
        self._names: set[str] = set()

    async def read(self) -> None:
        """Look at all that there are. Raises OSError."""
        files = await in_thread(os.listdir, self._paths.save)
        self._names = {Path(name).stem for name in files if self._paths.save_file(Path(name).stem).name == name}

    def note(self, name: str, *, there: bool) -> None:
        """There is one now, or none any more."""
        (self._names.add if there else self._names.discard)(name)

    def __contains__(self, name: str) -> bool:
        return name in self._names


async def has_image(driver: "QemuDriver", dom: QemuDomain) -> bool:
    """Whether a managed save image waits for the domain's next start."""
    name = dom.name
    there = await in_thread(driver.host.paths.qemu.save_file(name).exists)
    driver.images.note(name, there=there)
    return there and not dom.active


async def require_image(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Raises OperationInvalid where there is none."""
    if not await has_image(driver, dom):
        raise OperationInvalid("domain does not have managed save image", domain=From.QEMU)


async def remove_image(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Remove the managed save image, if there is one. Raises VirtError."""
    name = dom.name
    path = driver.host.paths.qemu.save_file(name)
    try:
        await durable_unlink(path, missing_ok=True)
    except OSError as exc:
        raise from_os_error(exc, f"cannot remove managed save file '{path}'", domain=From.QEMU) from exc
    driver.images.note(name, there=False)


async def remove_used(driver: "QemuDriver", dom: QemuDomain, restored: StatusRestored | None) -> None:
    """Remove the managed save image, if it is what a run came from: its disks are others now. Raises VirtError."""
    if restored is not None and restored.image == str(driver.host.paths.qemu.save_file(dom.name)):
        log.warning("domain %s: removing the managed save image that it was started from", dom.name)
        await remove_image(driver, dom)


async def make_room(driver: "QemuDriver", dom: QemuDomain, call: str) -> None:
    """Before a new managed image comes, what the guest came from is gone, and no note of it left. Raises VirtError."""
    if dom.running.restored is None:
        return
    async with dom.jobs.hold(Job.MODIFY, call):
        guest = dom.running
        await remove_used(driver, dom, guest.restored)
        guest.restored = None
        await driver.save_status(dom)


async def check_undefine(driver: "QemuDriver", dom: QemuDomain, flags: int) -> None:
    """Undefining takes the image along only when told to. Raises OperationInvalid."""
    if not await has_image(driver, dom):
        return
    if not flags & DomainUndefineFlagsValues.MANAGED_SAVE:
        raise OperationInvalid("Refusing to undefine while domain managed save image exists", domain=From.QEMU)
    await remove_image(driver, dom)
