"""What a guest needs of the host while it runs, and what only QEMU can tell: taps, ptys, threads, passwords."""

import asyncio
import logging
from contextlib import AsyncExitStack, ExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core import audit_records
from pyvirtd.core.bandwidth import clear_bandwidth, set_bandwidth
from pyvirtd.core.cgroup_limits import device_rule
from pyvirtd.core.tap import HostInterface, close_interface, open_interface, reserve_names, tap_node, vhost_node
from pyvirtd.drivers.qemu.blocks_limits import apply_limits
from pyvirtd.drivers.qemu.cgroups import place_threads
from pyvirtd.drivers.qemu.command import Context, NetBackend, uses_tap
from pyvirtd.drivers.qemu.disks import REMOVABLE
from pyvirtd.drivers.qemu.domain import Guest, QemuDomain
from pyvirtd.drivers.qemu.shares import place_vcpus
from pyvirtd.drivers.qemu.stats_perf import apply_perf
from pyvirtd.drivers.qemu.stats_qmp import device_alias
from pyvirtd.drivers.qemu.tune_pins import apply_pins
from pyvirtd.drivers.qemu.tune_sched import apply_schedulers
from pyvirtd.errors import NoNetwork, VirtError
from pyvirtd.model.chardev import ChannelState, ChardevType, PtySource, VirtioTarget
from pyvirtd.model.disk import Tray
from pyvirtd.model.domain import DomainDef, DomainType
from pyvirtd.model.graphics import Password, SpiceGraphics, VncGraphics
from pyvirtd.model.net import Interface, InterfaceTarget, InterfaceType
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

AGENT_CHANNEL = "org.qemu.guest_agent.0"


async def refresh(driver: "QemuDriver", dom: QemuDomain) -> None:
    """Fill the live definition with what QEMU chose. QEMU is at its prompt or runs."""
    guest, live = dom.running, dom.live_def
    chardevs, threads = await asyncio.gather(
        guest.monitor.execute("query-chardev"), guest.monitor.execute("query-cpus-fast")
    )
    note_chardevs(live, chardevs)
    guest.vcpu_threads = {int(cpu["cpu-index"]): int(cpu["thread-id"]) for cpu in threads}
    if any(disk.device in REMOVABLE for disk in live.devices.disk):
        note_trays(live, await guest.monitor.execute("query-block"))
    for channel in live.devices.channel:
        target = channel.target
        if isinstance(target, VirtioTarget) and target.name == AGENT_CHANNEL:
            guest.agent_connected = target.state is ChannelState.CONNECTED


async def open_interfaces(
    undo: AsyncExitStack, ours: ExitStack, driver: "QemuDriver", live: DomainDef, context: Context
) -> None:
    """Make the host's end of every interface that has one. `ours` closes our descriptors once QEMU has its own."""
    for net in live.devices.interface:
        if not uses_tap(net):
            continue
        source = net.source
        bridge = getattr(source, "bridge", None) or ""
        if net.type is InterfaceType.NETWORK:
            raise NoNetwork(f"no network with matching name '{getattr(source, 'network', '')}'", domain=From.NETWORK)
        kvm = context.caps.kvm_usable and live.type is DomainType.KVM
        helper = driver.config.bridge_helper
        try:
            made = await open_interface(net, bridge=bridge, kvm=kvm, privileged=driver.host.privileged, helper=helper)
        except VirtError:
            await _audit(driver, live, net, None)
            raise
        ours.callback(made.close)
        undo.push_async_callback(close_interface, net)
        await _audit(driver, live, net, made)
        net.target = net.target or InterfaceTarget()
        net.target.dev = made.name
        if net.bandwidth is not None:
            await set_bandwidth(net, fresh=True)
        context.nets[net.info.alias or ""] = NetBackend(list(made.taps), list(made.vhosts))


async def _audit(driver: "QemuDriver", live: DomainDef, net: Interface, made: HostInterface | None) -> None:
    """Tell the audit trail what was opened for an interface; `made` is None where that failed."""
    direct = net.type is InterfaceType.DIRECT
    paths = [tap_node(net)] if not direct else [made.name] if made is not None else []
    if made is not None and made.vhosts:
        paths.append(vhost_node(net))
    for path in paths:
        node = await in_thread(device_rule, path)
        driver.host.audit.send([audit_records.opened(live, net, path, node, success=made is not None)])


async def close_interfaces(live: DomainDef) -> None:
    """What of the interfaces outlives QEMU's descriptors."""
    for net in live.devices.interface:
        try:
            await _forget_bandwidth(net)
            await close_interface(net)
        except VirtError as exc:
            log.warning("domain %s: %s", live.name, exc)


async def _forget_bandwidth(net: Interface) -> None:
    """Only a device that was there before the guest stays, and would keep its limits."""
    if net.bandwidth is not None and net.target is not None and net.target.managed is False and net.target.dev:
        await clear_bandwidth(net.target.dev)


def reserve_interfaces(live: DomainDef) -> None:
    """Note the device names of a guest that is found running."""
    for net in live.devices.interface:
        reserve_names(net)


async def set_up(driver: "QemuDriver", dom: QemuDomain) -> None:
    """What must be told to a QEMU that was just started, before its vcpus run."""
    guest, live = dom.running, dom.live_def
    for graphics in live.devices.graphics:
        if isinstance(graphics, VncGraphics):
            await _set_password(guest, "vnc", graphics.password, driver.config.vnc_password)
        elif isinstance(graphics, SpiceGraphics):
            await _set_password(guest, "spice", graphics.password, driver.config.spice_password)
    await apply_limits(dom)
    await place_threads(dom)
    await place_vcpus(dom)
    await apply_pins(dom)
    await apply_schedulers(dom)
    apply_perf(dom)
    wanted = live.current_memory_kib
    if (balloon := live.devices.balloon) is not None:
        if balloon.stats_period:
            await set_balloon_period(dom, balloon.stats_period)
        if wanted is not None and wanted < live.memory.kib:
            await guest.monitor.execute("balloon", {"value": wanted * 1024})
        answer = await guest.monitor.execute("query-balloon")
        live.current_memory_kib = int(answer["actual"]) // 1024
    elif wanted is not None:
        live.current_memory_kib = live.memory.kib


async def set_balloon_period(dom: QemuDomain, period_s: int) -> None:
    """How often QEMU asks the guest's balloon for its figures, 0 for never. Raises VirtError."""
    balloon = dom.live_def.devices.balloon
    assert balloon is not None
    path = f"/machine/peripheral/{balloon.info.alias}"
    arguments = {"path": path, "property": "guest-stats-polling-interval", "value": period_s}
    await dom.monitor.execute("qom-set", arguments)


async def _set_password(guest: Guest, protocol: str, password: Password, default: str | None) -> None:
    """The password of a display and how long it holds; without one nothing is said and QEMU asks for none."""
    word = password.passwd if password.passwd is not None else default
    if word is None:
        return
    connected = str(password.connected) if password.connected is not None else "keep"
    arguments = {"protocol": protocol, "password": word}
    if protocol == "spice" or password.connected is not None:
        arguments["connected"] = connected
    await guest.monitor.execute("set_password", arguments)
    when = "never"
    if password.passwd_valid_to:
        when = password.passwd_valid_to
    if not word and default is None:
        when = "now"  # an empty password lets nobody in, as libvirt has it
    await guest.monitor.execute("expire_password", {"protocol": protocol, "time": _seconds(when)})


def _seconds(when: str) -> str:
    """A time of the definition (2010-04-09T15:51:00, UTC) as QEMU wants it."""
    if when in ("never", "now"):
        return when
    return str(int(datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()))


def note_chardevs(live: DomainDef, answers: list[dict[str, Any]]) -> None:
    """Paths of ptys and whether somebody is behind a channel, from query-chardev."""
    by_label = {str(answer["label"]): answer for answer in answers}
    devices = live.devices
    for device in (*devices.serial, *devices.parallel, *devices.channel, *devices.console):
        answer = by_label.get(f"char{device.info.alias}")
        if answer is None:
            continue
        filename = str(answer.get("filename", ""))
        if device.type is ChardevType.PTY and filename.startswith("pty:"):
            path = filename.removeprefix("pty:")
            set_pty(device, path)
        target = getattr(device, "target", None)
        if isinstance(target, VirtioTarget):
            target.state = ChannelState.CONNECTED if answer.get("frontend-open") else ChannelState.DISCONNECTED


def note_trays(live: DomainDef, answers: list[dict[str, Any]]) -> None:
    """Whether the trays of removable disks are open, from query-block; of a disk without a medium that is not told."""
    by_alias = {device_alias(answer): answer for answer in answers}
    for disk in live.devices.disk:
        answer = by_alias.get(disk.info.alias or "")
        if disk.device in REMOVABLE and answer is not None:
            disk.target.tray = Tray.OPEN if answer.get("tray_open") else Tray.CLOSED


def set_pty(device: Any, path: str) -> None:
    """Note the pty a character device got. A console that shows a serial port is printed from that port."""
    device.source = [PtySource(path=path)]
    if hasattr(device, "tty") and type(device).__name__ == "Console":
        device.tty = path
