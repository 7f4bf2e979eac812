"""From QEMU's events to libvirt's: one table, one function an event, called in order for each guest.

https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html
"""

import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pyvirtd.api import events
from pyvirtd.api.types import GraphicsAddress, GraphicsIdentity
from pyvirtd.constants.domain import (
    ConnectDomainEventAgentLifecycleReason,
    ConnectDomainEventAgentLifecycleState,
    DomainCrashedReason,
    DomainEventCrashedDetailType,
    DomainEventGraphicsPhase,
    DomainEventIOErrorAction,
    DomainEventPMSuspendedDetailType,
    DomainEventShutdownDetailType,
    DomainEventSuspendedDetailType,
    DomainEventTrayChangeReason,
    DomainEventType,
    DomainEventWatchdogAction,
    DomainMemoryFailureActionType,
    DomainMemoryFailureRecipientType,
    DomainPausedReason,
    DomainPMSuspendedReason,
    DomainRunningReason,
    DomainShutdownReason,
    DomainState,
)
from pyvirtd.drivers.qemu.blocks_threshold import names_of
from pyvirtd.drivers.qemu.domain import CRASHED, SHUT_DOWN, Phase, QemuDomain
from pyvirtd.drivers.qemu.pause import paused, resumed
from pyvirtd.drivers.qemu.runtime import AGENT_CHANNEL
from pyvirtd.model.chardev import ChannelState
from pyvirtd.model.devices import WatchdogAction
from pyvirtd.model.features import ClockOffset, LifecycleAction

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

Handler = Callable[["QemuDriver", QemuDomain, dict[str, Any]], Awaitable[None]]
HANDLERS: dict[str, Handler] = {}


def on(name: str) -> Callable[[Handler], Handler]:
    """Register the function of a QMP event."""

    def register(function: Handler) -> Handler:
        HANDLERS[name] = function
        return function

    return register


async def handle(driver: "QemuDriver", dom: QemuDomain, message: dict[str, Any]) -> None:
    """One event of a guest: first as it came to whoever asked for QEMU's own, then ours."""
    name = str(message.get("event", ""))
    data = message.get("data") or {}
    if driver.host.events.wanted("qemu_monitor", 0):
        stamp = message.get("timestamp") or {}
        details = json.dumps(data, separators=(",", ":"), ensure_ascii=False) if data else None
        driver.host.events.emit(
            driver,
            events.QemuMonitorEvent(dom, name, stamp.get("seconds", 0), stamp.get("microseconds", 0), details),
        )
    handler = HANDLERS.get(name)
    guest = dom.guest
    if handler is None or guest is None or guest.phase is Phase.FINISHED:
        return
    if guest.ending is None or not guest.ending.silent:
        await handler(driver, dom, data if isinstance(data, dict) else {})


def _emit(driver: "QemuDriver", body: Any) -> None:
    driver.host.events.emit(driver, body)


# --- running, paused, ended -------------------------------------------------------------------------------------


@on("STOP")
async def _stop(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    if paused(driver, dom):
        await driver.save_status(dom)


@on("RESUME")
async def _resume(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    if resumed(driver, dom):
        await driver.save_status(dom)


@on("SHUTDOWN")
async def _shutdown(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    """QEMU runs with -no-shutdown: it has stopped and waits for us to end or reset it."""
    guest = dom.running
    await driver.drop_agent(dom)
    if guest.fake_reboot:
        guest.rebooting = True
        driver.host.tasks.start(driver.finish_reboot(dom), f"reboot of {dom.name}")
        return
    if dom.state is DomainState.SHUTDOWN:
        return
    by_guest = data.get("guest")
    details = DomainEventShutdownDetailType
    detail = details.FINISHED if by_guest is None else details.GUEST if by_guest else details.HOST
    dom.set_state(DomainState.SHUTDOWN, DomainShutdownReason.UNKNOWN)
    driver.emit_lifecycle(dom, DomainEventType.SHUTDOWN, detail)
    await driver.save_status(dom)
    action = dom.live_def.on_reboot if data.get("reason") == "guest-reset" else dom.live_def.on_poweroff
    if action in (LifecycleAction.RESTART, LifecycleAction.RESTART_RENAME):
        driver.host.tasks.start(driver.finish_reboot(dom), f"restart of {dom.name}")
    elif action is not LifecycleAction.PRESERVE:
        driver.end(dom, SHUT_DOWN)


@on("RESET")
async def _reset(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    await driver.drop_agent(dom)
    _emit(driver, events.DomainEventReboot(dom))
    await driver.save_status(dom)


@on("GUEST_PANICKED")
async def _panicked(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    dom.set_state(DomainState.CRASHED, DomainCrashedReason.PANICKED)
    driver.emit_lifecycle(dom, DomainEventType.CRASHED, DomainEventCrashedDetailType.PANICKED)
    await driver.save_status(dom)
    action = dom.live_def.on_crash
    if action in (LifecycleAction.COREDUMP_DESTROY, LifecycleAction.COREDUMP_RESTART):
        driver.dump_panicked(dom, restart=action is LifecycleAction.COREDUMP_RESTART)
    elif action in (LifecycleAction.RESTART, LifecycleAction.RESTART_RENAME):
        driver.host.tasks.start(driver.finish_reboot(dom), f"restart of {dom.name}")
    elif action is LifecycleAction.DESTROY:
        driver.end(dom, CRASHED)


@on("SUSPEND")
async def _pm_suspend(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    _emit(driver, events.DomainEventPMSuspend(dom))
    await _sleeps(driver, dom, DomainEventPMSuspendedDetailType.MEMORY)


@on("SUSPEND_DISK")
async def _pm_suspend_disk(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    _emit(driver, events.DomainEventPMSuspendDisk(dom))
    await _sleeps(driver, dom, DomainEventPMSuspendedDetailType.DISK)


async def _sleeps(driver: "QemuDriver", dom: QemuDomain, detail: DomainEventPMSuspendedDetailType) -> None:
    if dom.state is DomainState.RUNNING:
        dom.set_state(DomainState.PMSUSPENDED, DomainPMSuspendedReason.UNKNOWN)
        driver.emit_lifecycle(dom, DomainEventType.PMSUSPENDED, detail)
        await driver.save_status(dom)


@on("WAKEUP")
async def _wakeup(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    _emit(driver, events.DomainEventPMWakeup(dom))
    if dom.state is DomainState.PMSUSPENDED:
        dom.set_state(DomainState.RUNNING, DomainRunningReason.WAKEUP)
        driver.emit_lifecycle(dom, DomainEventType.STARTED, _WAKEUP_DETAIL)
        await driver.save_status(dom)


_WAKEUP_DETAIL = 4  # VIR_DOMAIN_EVENT_STARTED_WAKEUP


# --- clock, watchdog, memory ------------------------------------------------------------------------------------


@on("RTC_CHANGE")
async def _rtc(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    offset = int(data.get("offset", 0))
    clock = dom.live_def.clock
    if clock.offset is ClockOffset.VARIABLE:
        clock.adjustment = str(offset)
        await driver.save_status(dom)
    _emit(driver, events.DomainEventRTCChange(dom, offset))


_WATCHDOG_ACTIONS = {
    "none": DomainEventWatchdogAction.NONE,
    "pause": DomainEventWatchdogAction.PAUSE,
    "reset": DomainEventWatchdogAction.RESET,
    "poweroff": DomainEventWatchdogAction.POWEROFF,
    "shutdown": DomainEventWatchdogAction.SHUTDOWN,
    "debug": DomainEventWatchdogAction.DEBUG,
    "inject-nmi": DomainEventWatchdogAction.INJECTNMI,
}


@on("WATCHDOG")
async def _watchdog(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    action = _WATCHDOG_ACTIONS.get(str(data.get("action")), DomainEventWatchdogAction.NONE)
    if action is DomainEventWatchdogAction.PAUSE:
        dom.running.pausing = (DomainPausedReason.WATCHDOG, DomainEventSuspendedDetailType.WATCHDOG)
    _emit(driver, events.DomainEventWatchdog(dom, action))
    if any(watchdog.action is WatchdogAction.DUMP for watchdog in dom.live_def.devices.watchdog):
        driver.dump_watched(dom)


@on("BALLOON_CHANGE")
async def _balloon(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    kib = int(data.get("actual", 0)) // 1024
    dom.live_def.current_memory_kib = kib
    _emit(driver, events.DomainEventBalloonChange(dom, kib))


@on("MEMORY_FAILURE")
async def _memory_failure(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    recipients = DomainMemoryFailureRecipientType
    recipient = recipients.HYPERVISOR if data.get("recipient") == "hypervisor" else recipients.GUEST
    words = {"ignore": 0, "inject": 1, "fatal": 2, "reset": 3}
    action = DomainMemoryFailureActionType(words.get(str(data.get("action")), 0))
    flags = data.get("flags") or {}
    bits = int(bool(flags.get("action-required"))) | int(bool(flags.get("recursive"))) << 1
    _emit(driver, events.DomainEventMemoryFailure(dom, recipient, action, bits))


@on("MEMORY_DEVICE_SIZE_CHANGE")
async def _memory_device(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    alias, size = str(data.get("id", "")), int(data.get("size", 0)) // 1024
    _emit(driver, events.DomainEventMemoryDeviceSizeChange(dom, alias, size))


# --- disks ------------------------------------------------------------------------------------------------------

_IO_ACTIONS = {
    "report": DomainEventIOErrorAction.REPORT,
    "ignore": DomainEventIOErrorAction.NONE,
    "stop": DomainEventIOErrorAction.PAUSE,
}


@on("BLOCK_IO_ERROR")
async def _io_error(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    disk = driver.find_disk(dom, str(data.get("device", "")), str(data.get("qom-path", "")), data.get("node-name"))
    alias = (disk.info.alias if disk is not None else None) or ""
    path = driver.disk_path(disk) if disk is not None else ""
    action = _IO_ACTIONS.get(str(data.get("action")), DomainEventIOErrorAction.NONE)
    reason = "enospc" if data.get("nospace") else ""
    _emit(driver, events.DomainEventIOError(dom, path, alias, action))
    _emit(driver, events.DomainEventIOErrorReason(dom, path, alias, action, reason))
    if action is DomainEventIOErrorAction.PAUSE:
        dom.running.pausing = (DomainPausedReason.IOERROR, DomainEventSuspendedDetailType.IOERROR)
        if dom.state is DomainState.PAUSED:
            dom.set_state(DomainState.PAUSED, DomainPausedReason.IOERROR)


@on("DEVICE_TRAY_MOVED")
async def _tray(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    disk = driver.find_disk(dom, str(data.get("device", "")), str(data.get("id", "")), None)
    if disk is None:
        return
    reasons = DomainEventTrayChangeReason
    opened = bool(data.get("tray-open"))
    alias = disk.info.alias or ""
    _emit(driver, events.DomainEventTrayChange(dom, alias, reasons.OPEN if opened else reasons.CLOSE))
    await driver.save_status(dom)


@on("BLOCK_WRITE_THRESHOLD")
async def _threshold(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    threshold, excess = int(data.get("write-threshold", 0)), int(data.get("amount-exceeded", 0))
    for name, path in names_of(dom.live_def, str(data.get("node-name", ""))):
        _emit(driver, events.DomainEventBlockThreshold(dom, name, path, threshold, excess))


# --- devices ----------------------------------------------------------------------------------------------------


@on("DEVICE_DELETED")
async def _deleted(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    if alias := data.get("device"):
        _emit(driver, events.DomainEventDeviceRemoved(dom, str(alias)))


@on("DEVICE_UNPLUG_GUEST_ERROR")
async def _unplug_failed(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    if alias := data.get("device"):
        _emit(driver, events.DomainEventDeviceRemovalFailed(dom, str(alias)))


@on("VSERPORT_CHANGE")
async def _port(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    alias, opened = str(data.get("id", "")), bool(data.get("open"))
    target = driver.find_channel(dom, alias)
    if target is None:
        return
    target.state = ChannelState.CONNECTED if opened else ChannelState.DISCONNECTED
    await driver.save_status(dom)
    if target.name != AGENT_CHANNEL:
        return
    await driver.agent_changed(dom, connected=opened)
    states = ConnectDomainEventAgentLifecycleState
    state = states.CONNECTED if opened else states.DISCONNECTED
    reason = ConnectDomainEventAgentLifecycleReason.CHANNEL
    _emit(driver, events.DomainEventAgentLifecycle(dom, state, reason))


def agent_expected(driver: "QemuDriver", dom: QemuDomain) -> None:
    """A guest with a channel for an agent starts: whoever waits for one hears that there is none yet."""
    if dom.running.agent_connected is not None:
        states = ConnectDomainEventAgentLifecycleState
        state = states.CONNECTED if dom.running.agent_connected else states.DISCONNECTED
        reason = ConnectDomainEventAgentLifecycleReason.DOMAIN_STARTED
        _emit(driver, events.DomainEventAgentLifecycle(dom, state, reason))


# --- migration --------------------------------------------------------------------------------------------------


@on("MIGRATION_PASS")
async def _pass(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
    _emit(driver, events.DomainEventMigrationIteration(dom, int(data.get("pass", 0))))


# --- graphics ---------------------------------------------------------------------------------------------------


def _graphics(
    driver: "QemuDriver", dom: QemuDomain, phase: DomainEventGraphicsPhase, data: dict[str, Any], scheme: str
) -> None:
    families = {"ipv4": 0, "ipv6": 1, "unix": 2}

    def address(words: dict[str, Any]) -> GraphicsAddress:
        family = families.get(str(words.get("family")), 0)
        return GraphicsAddress(family, str(words.get("host", "")), str(words.get("service", words.get("port", ""))))

    server, client = data.get("server") or {}, data.get("client") or {}
    subject = [
        GraphicsIdentity(kind, str(client[key]))
        for key, kind in (("x509_dname", "x509dname"), ("sasl_username", "saslUsername"))
        if client.get(key)
    ]
    body = events.DomainEventGraphics(
        dom, phase, address(server), address(client), str(server.get("auth", scheme)), subject
    )
    _emit(driver, body)


def _graphics_handler(phase: DomainEventGraphicsPhase, scheme: str) -> Handler:
    async def handler(driver: "QemuDriver", dom: QemuDomain, data: dict[str, Any]) -> None:
        _graphics(driver, dom, phase, data, scheme)

    return handler


for _protocol in ("VNC", "SPICE"):
    for _word, _phase in (
        ("CONNECTED", DomainEventGraphicsPhase.CONNECT),
        ("INITIALIZED", DomainEventGraphicsPhase.INITIALIZE),
        ("DISCONNECTED", DomainEventGraphicsPhase.DISCONNECT),
    ):
        HANDLERS[f"{_protocol}_{_word}"] = _graphics_handler(_phase, _protocol.lower())
