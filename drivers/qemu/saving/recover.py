"""A guest that was being saved, dumped or restored when the daemon died: it goes on."""

import logging
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainPausedReason
from pyvirtd.core.jobs import LongJob
from pyvirtd.drivers.qemu import dump
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.drivers.qemu.incoming import RESTORED
from pyvirtd.drivers.qemu.pause import go_on
from pyvirtd.drivers.qemu.saving.managed import remove_image, remove_used
from pyvirtd.drivers.qemu.saving.save import SAVE_CANCELED
from pyvirtd.drivers.qemu.saving.transfer import stop_transfer
from pyvirtd.errors import VirtError
from pyvirtd.model.status import StatusRestored

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

STOPS_THE_GUEST = {LongJob.SAVE.value, LongJob.DUMP.value, LongJob.SNAPSHOT.value}
# Why such a job stops the guest; what another reason stopped stays stopped. UNKNOWN: the daemon died before it noted
# the stop, while its last note said that the guest ran.
PAUSED_BY_JOB = {
    DomainPausedReason.SAVE,
    DomainPausedReason.SNAPSHOT,
    DomainPausedReason.UNKNOWN,
}
PAUSED_BY_RESTORE = {DomainPausedReason.MIGRATION}


async def recover(driver: "QemuDriver", dom: QemuDomain) -> None:
    """End what is left of an earlier daemon's job that stops the guest, and let the guest go on. Raises VirtError.

    Until all of that is done the status file goes on naming the job, for the daemon after this one.
    """
    guest = dom.running
    job = guest.unfinished.async_ if guest.unfinished is not None else "none"
    if guest.restored is not None:
        await _restored(driver, dom, guest.restored, under_way=job == LongJob.START.value)
    if job == LongJob.DUMP.value:  # QEMU may be at it for long
        driver.host.tasks.start(_end_dump(driver, dom, guest), f"end of a dump of {dom.name}")
        return
    if job in STOPS_THE_GUEST:
        await stop_transfer(dom.monitor)
        if job == LongJob.SAVE.value:
            # Whole or not: the guest is here, and the image of a guest that goes on is worth nothing.
            await remove_image(driver, dom)
        await go_on(driver, dom, SAVE_CANCELED, PAUSED_BY_JOB)
    await _done(driver, dom, guest)


async def _end_dump(driver: "QemuDriver", dom: QemuDomain, guest: Guest) -> None:
    try:
        await dump.recover(driver, dom)
        await _done(driver, dom, guest)
    except VirtError as exc:
        log.error("domain %s: its dump is not ended: %s", dom.name, exc)


async def _done(driver: "QemuDriver", dom: QemuDomain, guest: Guest) -> None:
    """Note that nothing of an earlier daemon's is left to do."""
    if guest.restored is not None or guest.unfinished is not None:
        guest.restored = guest.unfinished = None
        await driver.save_status(dom)


async def _restored(driver: "QemuDriver", dom: QemuDomain, restored: StatusRestored, *, under_way: bool) -> None:
    """End the start of a guest that has all of its image."""
    await remove_used(driver, dom, restored)
    if under_way and restored.resume:
        await go_on(driver, dom, RESTORED, PAUSED_BY_RESTORE)
