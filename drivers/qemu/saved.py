"""Managed save images that are there, and jobs: as much of saved guests as keeps a saved state from being lost.

Saving and restoring are not implemented; a domain with a managed save image is not booted afresh unless it is asked
for, and not undefined with the image in place.
"""

from typing import TYPE_CHECKING

from pyvirtd.api.domain_save import DomainGetJobInfoReply, DomainGetJobStatsReply, SavePart
from pyvirtd.api.rpc import accepts
from pyvirtd.constants.domain import DomainGetJobStatsFlags, DomainJobType, DomainUndefineFlagsValues
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import OperationInvalid
from pyvirtd.util.files import durable_unlink

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver


def has_image(driver: "QemuDriver", dom: QemuDomain) -> bool:
    """Whether a managed save image waits for the domain's next start."""
    return driver.host.paths.qemu.save_file(dom.name).exists()


def require_none(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Refuse to boot over a saved state. Raises OperationInvalid."""
    if has_image(driver, dom):
        path = driver.host.paths.qemu.save_file(dom.name)
        raise OperationInvalid(
            f"domain '{dom.name}' has a managed save image ('{path}'), which cannot be restored here yet:"
            " start it under libvirtd, or boot it afresh with --force-boot",
            domain=From.QEMU,
        )


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


class Saved(SavePart[QemuDomain]):
    """What can be told of saved guests and running jobs."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    @accepts(0)
    def domain_has_managed_save_image(self, dom: QemuDomain, flags: int) -> int:
        return int(has_image(self.driver, dom))

    @accepts(0)
    async def domain_managed_save_remove(self, dom: QemuDomain, flags: int) -> None:
        await remove_image(self.driver, dom)

    def domain_get_job_info(self, dom: QemuDomain) -> DomainGetJobInfoReply:
        """No job that has progress to tell exists yet."""
        return DomainGetJobInfoReply(DomainJobType.NONE, *(0 for _ in DomainGetJobInfoReply._fields[1:]))

    @accepts(DomainGetJobStatsFlags.COMPLETED | DomainGetJobStatsFlags.KEEP_COMPLETED)
    def domain_get_job_stats(self, dom: QemuDomain, flags: int) -> DomainGetJobStatsReply:
        return DomainGetJobStatsReply(DomainJobType.NONE, [])

    def domain_abort_job(self, dom: QemuDomain) -> None:
        dom.require_active()
        raise OperationInvalid("no job is active on the domain", domain=From.QEMU)
