"""Stopping a guest's vcpus and letting them run: whoever does it says why, and state, event and status file tell it."""

import logging
from collections.abc import Container
from typing import TYPE_CHECKING, TypeAlias

from pyvirtd.constants.domain import (
    DomainEventResumedDetailType,
    DomainEventSuspendedDetailType,
    DomainEventType,
    DomainPausedReason,
    DomainRunningReason,
    DomainState,
)
from pyvirtd.drivers.qemu.domain import Phase, QemuDomain
from pyvirtd.drivers.qemu.monitor import MonitorClosed
from pyvirtd.errors import OperationTimeout, VirtError

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

# Why a guest stands still or runs: of the state and of its event.
Pausing: TypeAlias = tuple[DomainPausedReason, DomainEventSuspendedDetailType]
Resuming: TypeAlias = tuple[DomainRunningReason, DomainEventResumedDetailType]
UNPAUSED: Resuming = (DomainRunningReason.UNPAUSED, DomainEventResumedDetailType.UNPAUSED)
ANY_REASON = frozenset(DomainPausedReason)


async def pause(driver: "QemuDriver", dom: QemuDomain, why: Pausing) -> None:
    """Stop the vcpus. Raises VirtError; after that the guest may stand all the same: see `go_on`."""
    guest = dom.running
    guest.pausing, guest.stop_pending = why, True
    try:
        await guest.monitor.execute("stop")
    except OperationTimeout:
        raise
    except VirtError:
        guest.pausing, guest.stop_pending = None, False
        raise
    paused(driver, dom)
    await driver.save_status(dom)


async def resume(driver: "QemuDriver", dom: QemuDomain, why: Resuming) -> None:
    """Let the vcpus run. Raises VirtError."""
    await let_run(driver, dom, why)
    await driver.save_status(dom)


async def let_run(driver: "QemuDriver", dom: QemuDomain, why: Resuming) -> None:
    """`resume` for who writes the status file itself."""
    guest = dom.running
    guest.resuming = why
    try:
        await guest.monitor.execute("cont")
    except OperationTimeout:  # it may obey late
        raise
    except VirtError:
        guest.resuming = None
        raise
    resumed(driver, dom)


async def go_on(driver: "QemuDriver", dom: QemuDomain, why: Resuming, stopped_for: Container[int] = ANY_REASON) -> None:
    """Let a guest run again that a job stopped for such a reason, if it is there and nobody else has stopped it.

    One that has not obeyed the job's `stop` yet is told at once: QEMU does one command after the other. Never raises:
    that the guest stays stopped is logged, and told by an event.
    """
    guest = dom.guest
    if guest is None or guest.phase >= Phase.FINISHING or guest.ending is not None:
        return
    if guest.stop_pending and guest.pausing is not None and dom.state is DomainState.RUNNING:
        if guest.pausing[0] not in stopped_for:
            return
    else:
        guest.pausing = None
        if dom.state is not DomainState.PAUSED or dom.reason not in stopped_for:
            return
    guest.stop_pending = False
    try:
        await let_run(driver, dom, why)
    except MonitorClosed:
        return
    except VirtError as exc:
        log.error("domain %s does not go on: %s", dom.name, exc)
        if dom.state is DomainState.PAUSED:
            driver.emit_lifecycle(dom, DomainEventType.SUSPENDED, DomainEventSuspendedDetailType.API_ERROR)
        return
    try:
        await driver.save_status(dom)
    except VirtError as exc:
        log.error("domain %s goes on, and its status on disk does not say so: %s", dom.name, exc)


def paused(driver: "QemuDriver", dom: QemuDomain) -> bool:
    """The vcpus stopped: state and event, once, whether QEMU's event or our command's answer comes first."""
    if dom.state is not DomainState.RUNNING or dom.running.rebooting:
        return False
    dom.running.stop_pending = False
    reason, detail = dom.running.pausing or (DomainPausedReason.UNKNOWN, DomainEventSuspendedDetailType.PAUSED)
    dom.running.pausing = None
    dom.set_state(DomainState.PAUSED, reason)
    driver.emit_lifecycle(dom, DomainEventType.SUSPENDED, detail)
    return True


def resumed(driver: "QemuDriver", dom: QemuDomain) -> bool:
    """The vcpus run: as `paused`."""
    if dom.state is not DomainState.PAUSED:
        return False
    reason, detail = dom.running.resuming or UNPAUSED
    dom.running.resuming = None
    dom.set_state(DomainState.RUNNING, reason)
    driver.emit_lifecycle(dom, DomainEventType.RESUMED, detail)
    return True
