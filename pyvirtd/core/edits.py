"""Changing a domain's definitions, with the guest where it runs: all of it or nothing, durable before the reply."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from pyvirtd.constants.domain import DomainModificationImpact as Impact
from pyvirtd.constants.error import ErrorDomain
from pyvirtd.core.jobs import Job
from pyvirtd.core.objects import Dom
from pyvirtd.errors import BadCall, OperationInvalid, VirtError
from pyvirtd.model.domain import DomainDef

if TYPE_CHECKING:
    from pyvirtd.core.domains import HypervisorDriver

log = logging.getLogger(__name__)


class Edit(Protocol):
    """Changes a definition in place, the live or the persistent one. Raises VirtError for what may not be."""

    def __call__(self, definition: DomainDef, *, live: bool) -> None: ...


def targets(dom: Any, flags: int) -> tuple[bool, bool]:
    """Which definitions a change is for, (live, config), by AFFECT_LIVE and AFFECT_CONFIG. Raises OperationInvalid."""
    live, config = bool(flags & Impact.LIVE), bool(flags & Impact.CONFIG)
    if not live and not config:
        live, config = dom.active, not dom.active
    if live and not dom.active:
        raise OperationInvalid("domain is not running", domain=ErrorDomain.DOMAIN)
    if config:
        _require_config(dom)
    return live, config


def _require_config(dom: Any) -> None:
    """Raises OperationInvalid for a domain without a persistent definition."""
    if not dom.persistent:
        raise OperationInvalid("transient domains do not have any persistent config", domain=ErrorDomain.DOMAIN)


def one_target(dom: Any, flags: int) -> DomainDef:
    """The definition that a read is about. Raises BadCall when both are asked for."""
    if flags & Impact.LIVE and flags & Impact.CONFIG:
        raise BadCall("Flags 'VIR_DOMAIN_AFFECT_LIVE' and 'VIR_DOMAIN_AFFECT_CONFIG' are mutually exclusive")
    live, _ = targets(dom, flags)
    definition = dom.live if live else dom.config
    assert isinstance(definition, DomainDef)
    return definition


async def change(
    driver: "HypervisorDriver[Dom]",
    dom: Dom,
    flags: int,
    edit: Edit,
    tell_guest: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Edit the definitions that the AFFECT flags name, after the guest took the change if the live one is among them.

    The edit is tried before anything is changed, and done on definitions as they are once the guest has answered:
    events change the live one meanwhile. When the disk refuses, the definitions are as before; what the guest took
    stays.
    """
    async with dom.jobs.hold(Job.MODIFY, "DomainChange"):
        live, config = targets(dom, flags)
        if live and tell_guest is not None:
            _edited(dom.live, edit, live=True)
            if config:
                _edited(dom.config, edit, live=False)
            await tell_guest()
        async with driver.names.hold(dom.name, dom.uuid_text):
            if config:
                _require_config(dom)  # whoever undefines takes the name, but no job
            old_live = dom.live
            new_live = _edited(old_live, edit, live=True) if live else None
            new_config = _edited(dom.config, edit, live=False) if config else None
            try:
                if new_live is not None:
                    dom.live = new_live
                    await driver.save_status(dom)
                if new_config is not None:
                    await driver.save_config(dom, new_config)
            except BaseException:
                if new_live is not None and dom.live is new_live:
                    dom.live = old_live
                    await _write_again(driver, dom)
                raise


async def _write_again(driver: "HypervisorDriver[Dom]", dom: Dom) -> None:
    """The status file holds a definition that was taken back, or may: write it as it is now."""
    try:
        await driver.save_status(dom)
    except VirtError as exc:
        log.error("domain %s: the status on disk has a change that was refused: %s", dom.name, exc)


def _edited(definition: DomainDef | None, edit: Edit, *, live: bool) -> DomainDef | None:
    """A changed copy; None of a guest that has ended meanwhile."""
    if definition is None:
        return None
    copy = definition.copy()
    edit(copy, live=live)
    return copy
