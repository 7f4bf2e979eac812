"""Starting what is marked for it, once for each boot of the host."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import DomainCreateFlags
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.errors import VirtError
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

AT_ONCE = 4  # starts side by side, where no delay between them is asked for


async def start_marked(driver: "QemuDriver") -> None:
    """Start the domains that are marked; each failure is logged, and the others start all the same."""
    if not await in_thread(_first_of_this_boot, driver.host.paths.qemu.autostarted_file):
        return
    marked = [dom for dom in driver.domains if dom.autostart or dom.autostart_once]
    if delay_ms := driver.config.auto_start_delay:
        for number, dom in enumerate(marked):
            if number:
                await asyncio.sleep(delay_ms / 1000)
            await _start(driver, dom)
        return
    waiting = asyncio.Semaphore(AT_ONCE)

    async def one(dom: QemuDomain) -> None:
        async with waiting:
            await _start(driver, dom)

    async with asyncio.TaskGroup() as group:
        for dom in marked:
            group.create_task(one(dom))


async def _start(driver: "QemuDriver", dom: QemuDomain) -> None:
    try:
        # Before the start: one that fails is not tried at the next boot.
        if dom.autostart_once:
            await driver.mark_autostart(dom, on=False, once=True)
        if not dom.active:
            bypass = driver.config.auto_start_bypass_cache
            await driver.start_domain(dom, DomainCreateFlags.BYPASS_CACHE if bypass else 0, None)
    except VirtError as exc:
        log.error("domain %s does not autostart: %s", dom.name, exc)


def _first_of_this_boot(mark: Path) -> bool:
    """Whether autostart is yet to be done since the host's boot; notes that it is done."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    # libvirtd's own mark is empty, and lies where a boot removes it.
    if mark.exists() and mark.read_text().strip() in ("", boot):
        return False
    mark.write_text(boot)
    return True
