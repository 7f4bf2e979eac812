"""Managed save images: one beside each domain, which its next start takes up."""

from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainUndefineFlagsValues
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import OperationInvalid
from pyvirtd.util.files import durable_unlink

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver


def has_image(driver: "QemuDriver", dom: QemuDomain) -> bool:
    """Whether a managed save image waits for the domain's next start."""
    return not dom.active and driver.host.paths.qemu.save_file(dom.name).exists()


def require_image(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Raises OperationInvalid where there is none."""
    if not has_image(driver, dom):
        raise OperationInvalid("domain does not have managed save image", domain=From.QEMU)


async def remove_image(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Remove the managed save image, if there is one."""
    await durable_unlink(driver.host.paths.qemu.save_file(dom.name), missing_ok=True)


async def check_undefine(driver: "QemuDriver", dom: QemuDomain, flags: int) -> None:
    """Undefining takes the image along only when told to. Raises OperationInvalid."""
    if not has_image(driver, dom):
        return
    if not flags & DomainUndefineFlagsValues.MANAGED_SAVE:
        raise OperationInvalid("Refusing to undefine while domain managed save image exists", domain=From.QEMU)
    await remove_image(driver, dom)
