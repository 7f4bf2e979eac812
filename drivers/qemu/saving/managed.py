"""Managed save images: one beside each domain, which its next start takes up."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainUndefineFlagsValues
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import OperationInvalid
from pyvirtd.paths import QemuPaths
from pyvirtd.util.files import durable_unlink, in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver


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
    """Remove the managed save image, if there is one."""
    name = dom.name
    await durable_unlink(driver.host.paths.qemu.save_file(name), missing_ok=True)
    driver.images.note(name, there=False)


async def check_undefine(driver: "QemuDriver", dom: QemuDomain, flags: int) -> None:
    """Undefining takes the image along only when told to. Raises OperationInvalid."""
    if not await has_image(driver, dom):
        return
    if not flags & DomainUndefineFlagsValues.MANAGED_SAVE:
        raise OperationInvalid("Refusing to undefine while domain managed save image exists", domain=From.QEMU)
    await remove_image(driver, dom)
