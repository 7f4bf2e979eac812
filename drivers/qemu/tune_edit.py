"""Changing a domain's definitions together with the guest: all of it or nothing, and durable before the reply."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from pyvirtd.core.domains import targets
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.model.domain import DomainDef

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver


class Edit(Protocol):
    """Changes a definition in place, the live or the persistent one. Raises VirtError for what may not be."""

    def __call__(self, definition: DomainDef, *, live: bool) -> None: ...


async def change(
    driver: "QemuDriver",
    dom: QemuDomain,
    flags: int,
    edit: Edit,
    tell_qemu: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Edit the definitions that the AFFECT flags name, after QEMU took the change if the live one is among them.

    The edit is tried before anything is changed, and done on definitions as they are once QEMU has answered: events
    change the live one meanwhile. When the disk refuses, the definitions are as before; what QEMU took stays.
    """
    async with dom.jobs.hold(Job.MODIFY, "DomainChange"):
        live, config = targets(dom, flags)
        if live:
            edit(dom.live_def.copy(), live=True)
        if config:
            edit(dom.config.copy(), live=False)
        if live and tell_qemu is not None:
            await tell_qemu()
        old_config, old_live = dom.config, dom.live
        new_live = dom.live_def.copy() if live else old_live
        new_config = dom.config.copy() if config else old_config
        if live and new_live is not None:
            edit(new_live, live=True)
        if config:
            edit(new_config, live=False)
        dom.live = new_live
        if config:
            dom.config = new_config
        try:
            if config:
                await driver.save_config(dom)
            if live:
                await driver.save_status(dom)
        except BaseException:
            if config:
                dom.config = old_config
            if dom.live is new_live:
                dom.live = old_live
            raise
