"""What becomes of running guests when the host shuts down: saved, shut down or ended, as qemu.conf says.

Three steps, each for the guests that the one before left running. Whoever ran comes back with the next boot.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from pyvirtd.config import QemuConfig
from pyvirtd.constants.domain import DomainSaveRestoreFlags as Save
from pyvirtd.constants.domain import DomainState
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.lifecycle import Domains
from pyvirtd.drivers.qemu.saving.part import Saved
from pyvirtd.errors import VirtError

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

AT_ONCE = 4  # guests that are saved side by side: a disk is not faster with more
DEFAULT_WAIT_S = 30


class Scope(StrEnum):
    """The guests that a step is for."""

    NONE = "none"
    PERSISTENT = "persistent"
    TRANSIENT = "transient"
    ALL = "all"

    def holds(self, dom: QemuDomain) -> bool:
        if self in (Scope.NONE, Scope.ALL):
            return self is Scope.ALL
        return dom.persistent == (self is Scope.PERSISTENT)


@dataclass(frozen=True, slots=True)
class Policy:
    """What qemu.conf asks for."""

    save: Scope
    shutdown: Scope
    poweroff: Scope
    wait_s: int
    restore: bool
    bypass_cache: bool

    @classmethod
    def of(cls, config: QemuConfig, *, privileged: bool) -> Self:
        """Of a user's guests nothing is lost when he logs out; the system's are the administrator's to decide on."""
        defaults = (Scope.NONE,) * 3 if privileged else (Scope.PERSISTENT, Scope.ALL, Scope.ALL)
        given = (config.auto_shutdown_try_save, config.auto_shutdown_try_shutdown, config.auto_shutdown_poweroff)
        save, shutdown, poweroff = (Scope(word or default) for word, default in zip(given, defaults, strict=True))
        return cls(
            save,
            shutdown,
            poweroff,
            config.auto_shutdown_wait or DEFAULT_WAIT_S,
            config.auto_shutdown_restore,
            config.auto_save_bypass_cache,
        )

    @property
    def wanted(self) -> bool:
        """Whether anything is to be done at all."""
        return any(scope is not Scope.NONE for scope in (self.save, self.shutdown, self.poweroff))


async def leave_none_running(driver: "QemuDriver", policy: Policy) -> None:
    """Do to the running guests what the policy says. What fails for one is logged, and the next step tries it."""
    if not policy.wanted:
        return
    running = [dom for dom in driver.domains if dom.active]
    log.info("the host shuts down: %d guests run", len(running))
    if policy.restore:
        again = _of(running, lambda dom: dom.persistent and not dom.autostart)
        await _each(again, lambda dom: driver.mark_autostart(dom, on=True, once=True))
    await _save(driver, _of(running, policy.save.holds), policy)
    await _shut_down(driver, _of(running, policy.shutdown.holds), policy.wait_s)
    await _each(_of(running, policy.poweroff.holds), lambda dom: driver.destroy_domain(dom, 0))


def _of(running: Iterable[QemuDomain], wanted: Callable[[QemuDomain], bool]) -> list[QemuDomain]:
    return [dom for dom in running if dom.active and wanted(dom)]


async def _each(doms: list[QemuDomain], action: Callable[[QemuDomain], Awaitable[None]]) -> None:
    async def one(dom: QemuDomain) -> None:
        try:
            await action(dom)
        except VirtError as exc:
            if dom.active:
                log.error("domain %s, at the host's shutdown: %s", dom.name, exc)

    await asyncio.gather(*(one(dom) for dom in doms))


async def _save(driver: "QemuDriver", doms: list[QemuDomain], policy: Policy) -> None:
    """Save; all are paused first, as none shall dirty its memory while another one is written."""
    domains, saved = driver.part(Domains), driver.part(Saved)
    ran = {dom for dom in doms if dom.state is DomainState.RUNNING}
    await _each([dom for dom in doms if dom in ran], domains.domain_suspend)
    places = asyncio.Semaphore(AT_ONCE)

    async def save(dom: QemuDomain) -> None:
        flags = Save.RUNNING if dom in ran else Save.PAUSED
        if policy.bypass_cache:
            flags |= Save.BYPASS_CACHE
        async with places:
            try:
                await saved.domain_managed_save(dom, flags)
            except VirtError:
                if dom in ran and dom.active:
                    await domains.domain_resume(dom)
                raise

    await _each(doms, save)


async def _shut_down(driver: "QemuDriver", doms: list[QemuDomain], wait_s: int) -> None:
    """Ask the guests to power off, and wait until they have or time is up."""
    await _each(doms, driver.part(Domains).domain_shutdown)
    ends = [asyncio.ensure_future(dom.guest.over.wait()) for dom in doms if dom.guest is not None]
    if ends:
        _, late = await asyncio.wait(ends, timeout=wait_s)
        for end in late:
            end.cancel()
        if late:
            log.warning("%d guests did not shut down within %d s", len(late), wait_s)
