"""Dumps that nobody calls for: of a guest that panicked, or whose watchdog barked, into a directory of their own."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainCoreDumpFlags as Flags
from pyvirtd.constants.domain import (
    DomainCoreDumpFormat,
    DomainPausedReason,
)
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.domain import CRASHED, QemuDomain
from pyvirtd.drivers.qemu.dump import dump_job, write_dump
from pyvirtd.drivers.qemu.pause import UNPAUSED, go_on
from pyvirtd.errors import VirtError
from pyvirtd.paths import short_name

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)


async def after_watchdog(driver: "QemuDriver", dom: QemuDomain) -> None:
    """QEMU stopped the guest for its watchdog: dump it and let it go on."""
    await _dump(driver, dom)
    await go_on(driver, dom, UNPAUSED, (DomainPausedReason.WATCHDOG,))


async def after_panic(driver: "QemuDriver", dom: QemuDomain, *, restart: bool) -> None:
    """Dump a guest that panicked, then start it again or end it."""
    guest = dom.guest
    await _dump(driver, dom)
    if dom.guest is None or dom.guest is not guest:
        return
    if restart:
        await driver.finish_reboot(dom)
    else:
        driver.end(dom, CRASHED)


async def _dump(driver: "QemuDriver", dom: QemuDomain) -> None:
    flags = Flags.MEMORY_ONLY | (Flags.BYPASS_CACHE if driver.config.auto_dump_bypass_cache else Flags(0))
    try:
        allow = Job.QUERY | Job.DESTROY | Job.ABORT
        async with dump_job(driver, dom, "guest's own dump", allow, memory_only=True) as job:
            path = _path(driver, dom)
            await write_dump(driver, dom, job, str(path), DomainCoreDumpFormat.RAW, flags)
            log.info("domain %s is dumped to %s", dom.name, path)
    except VirtError as exc:
        log.error("domain %s is not dumped: %s", dom.name, exc)


def _path(driver: "QemuDriver", dom: QemuDomain) -> Path:
    folder = driver.config.auto_dump_path
    when = time.strftime("%Y-%m-%d-%H:%M:%S")
    return (Path(folder) if folder else driver.host.paths.qemu.dump) / f"{short_name(dom.id, dom.name)}-{when}"
