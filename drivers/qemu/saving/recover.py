"""A guest that was being saved, dumped or restored when the daemon died: it goes on."""

from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainPausedReason
from pyvirtd.core.jobs import LongJob
from pyvirtd.drivers.qemu import dump
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.incoming import RESTORED
from pyvirtd.drivers.qemu.pause import go_on
from pyvirtd.drivers.qemu.saving.managed import remove_image, remove_used
from pyvirtd.drivers.qemu.saving.save import SAVE_CANCELED
from pyvirtd.drivers.qemu.saving.transfer import stop_transfer
from pyvirtd.model.status import DomStatus, StatusRestored

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

STOPS_THE_GUEST = {LongJob.SAVE.value, LongJob.DUMP.value, LongJob.SNAPSHOT.value}
# Why such a job stops the guest; what another reason stopped stays stopped. UNKNOWN: the daemon died before it noted
# the stop, while its last note said that the guest ran.
PAUSED_BY_JOB = {
    DomainPausedReason.SAVE,
    DomainPausedReason.SNAPSHOT,
    DomainPausedReason.UNKNOWN,
}


async def recover(driver: "QemuDriver", dom: QemuDomain, status: DomStatus) -> None:
    """End what is left of a job that stops the guest, and let the guest go on. Raises VirtError."""
    job = status.job.async_ if status.job is not None else "none"
    if status.restored is not None:
        await _restored(driver, dom, status.restored, under_way=job == LongJob.START.value)
    if job not in STOPS_THE_GUEST:
        return
    if job == LongJob.DUMP.value:  # QEMU may be at it for long
        driver.host.tasks.start(dump.recover(driver, dom), f"end of a dump of {dom.name}")
        return
    await stop_transfer(dom.monitor)
    if job == LongJob.SAVE.value:
        # Whole or not: the guest is here, and the image of a guest that goes on is worth nothing.
        await remove_image(driver, dom)
    await go_on(driver, dom, SAVE_CANCELED, PAUSED_BY_JOB)


async def _restored(driver: "QemuDriver", dom: QemuDomain, restored: StatusRestored, *, under_way: bool) -> None:
    """End the start of a guest that has all of its image."""
    await remove_used(driver, dom, restored)
    if under_way and restored.resume:
        await go_on(driver, dom, RESTORED)
