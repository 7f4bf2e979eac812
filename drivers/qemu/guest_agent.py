"""What the guest itself answers or does: time, file systems, users, addresses, power states."""

import asyncio
from typing import TYPE_CHECKING, Any

from pyvirtd.api.domain_agent import AgentPart, DomainGetFSInfoReply, DomainGetTimeReply
from pyvirtd.api.rpc import accepts
from pyvirtd.api.types import DomainInterface, FSInfo, IPAddress, TypedParam, param_string
from pyvirtd.constants.domain import (
    DomainAgentResponseTimeoutValues,
    DomainAuthorizedSSHKeysSetFlags,
    DomainGetHostnameFlags,
    DomainInterfaceAddressesSource,
    DomainSetTimeFlags,
    DomainSetUserPasswordFlags,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.constants.error import ErrorNumber
from pyvirtd.constants.host import NodeSuspendTarget
from pyvirtd.core.jobs import Job
from pyvirtd.drivers.qemu import agent_calls, guest_info
from pyvirtd.drivers.qemu.agent_calls import agent_of
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.monitor import CommandRefused
from pyvirtd.drivers.qemu.neighbours import neighbours
from pyvirtd.errors import (
    AgentUnresponsive,
    ArgumentUnsupported,
    BadCall,
    InternalError,
    InvalidArg,
    OperationUnsupported,
    VirtError,
)
from pyvirtd.model.domain import DomainDef
from pyvirtd.util.values import format_cpus, parse_cpus

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

NANO = 1_000_000_000
TIME_MAX = ((1 << 63) - 1) // NANO
SUSPEND_S = 60  # for a guest to go to sleep
ASLEEP_S = 10.0  # ... once it has let go of its agent
SUSPEND_COMMANDS = {
    NodeSuspendTarget.MEM: "guest-suspend-ram",
    NodeSuspendTarget.DISK: "guest-suspend-disk",
    NodeSuspendTarget.HYBRID: "guest-suspend-hybrid",
}
SUSPENDED = ("SUSPEND", "SUSPEND_DISK")  # QEMU's events

Keys = DomainAuthorizedSSHKeysSetFlags
Hostname = DomainGetHostnameFlags
Source = DomainInterfaceAddressesSource


class NoHostname(VirtError):
    code = ErrorNumber.NO_HOSTNAME
    domain = From.QEMU


class GuestAgent(AgentPart[QemuDomain]):
    """The procedures that need the guest's help."""

    def __init__(self, driver: "QemuDriver") -> None:
        self.driver = driver

    # --- file systems ----------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_fsfreeze(self, dom: QemuDomain, mountpoints: list[str], flags: int) -> int:
        _ = dom.running
        return await agent_calls.freeze(dom, mountpoints)

    @accepts(0)
    async def domain_fsthaw(self, dom: QemuDomain, mountpoints: list[str], flags: int) -> int:
        if mountpoints:
            raise ArgumentUnsupported("specifying mountpoints is not supported", domain=From.QEMU)
        _ = dom.running
        return await agent_calls.thaw(dom)

    @accepts(0)
    async def domain_fstrim(self, dom: QemuDomain, mount_point: str | None, minimum: int, flags: int) -> None:
        if mount_point is not None:
            raise ArgumentUnsupported("Specifying mount point is not supported for now", domain=From.QEMU)
        await agent_calls.ask(dom, "guest-fstrim", {"minimum": minimum})

    @accepts(0)
    async def domain_get_fsinfo(self, dom: QemuDomain, flags: int) -> DomainGetFSInfoReply:
        _ = dom.running
        systems = await agent_calls.file_systems(dom)
        live = dom.live_def
        found = []
        for system in systems:
            targets = [target for disk in system.disks if (target := guest_info.target_at(live, disk.place))]
            found.append(FSInfo(system.mountpoint, system.name, system.fstype, targets))
        return DomainGetFSInfoReply(found, len(found))

    # --- time ------------------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_get_time(self, dom: QemuDomain, flags: int) -> DomainGetTimeReply:
        _ = dom.running
        seconds, nanoseconds = divmod(await agent_calls.time_ns(dom), NANO)
        return DomainGetTimeReply(seconds, nanoseconds)

    @accepts(DomainSetTimeFlags.SYNC)
    async def domain_set_time(self, dom: QemuDomain, seconds: int, nseconds: int, flags: int) -> None:
        _ = dom.running
        agent_of(dom)
        if flags & DomainSetTimeFlags.SYNC:
            await agent_calls.set_time(dom, None)
        elif abs(seconds) > TIME_MAX:
            raise InvalidArg(f"Time '{seconds}' is too big for guest agent", domain=From.QEMU)
        else:
            await agent_calls.set_time(dom, seconds * NANO + nseconds)
        async with dom.jobs.hold(Job.MODIFY, "DomainSetTime"):
            try:
                # The guest shall not be given the clock ticks that it missed on top of its new time.
                await dom.monitor.execute("rtc-reset-reinjection")
            except CommandRefused as exc:
                if exc.qmp_class != "CommandNotFound":  # only PCs have it
                    raise

    # --- names, addresses, information -----------------------------------------------------------------------

    @accepts(Hostname.LEASE | Hostname.AGENT)
    async def domain_get_hostname(self, dom: QemuDomain, flags: int) -> str:
        if flags & Hostname.LEASE and flags & Hostname.AGENT:
            raise BadCall(
                "Flags 'VIR_DOMAIN_GET_HOSTNAME_LEASE' and 'VIR_DOMAIN_GET_HOSTNAME_AGENT' are mutually exclusive",
                domain=From.QEMU,
            )
        _ = dom.running
        # No driver of ours gives out leases yet.
        name = None if flags & Hostname.LEASE else await agent_calls.host_name(dom)
        if name is None:
            raise NoHostname(f"no hostname found for domain {dom.name}")
        return name

    @accepts(0)
    async def domain_interface_addresses(self, dom: QemuDomain, source: int, flags: int) -> list[DomainInterface]:
        _ = dom.running
        if source == Source.LEASE:
            return []
        if source == Source.AGENT:
            return await agent_calls.interfaces(dom)
        if source == Source.ARP:
            return _of_interfaces(dom.live_def, await neighbours())
        raise ArgumentUnsupported(f"Unknown IP address data source {source}", domain=From.QEMU)

    @accepts(0)
    async def domain_get_guest_info(self, dom: QemuDomain, types: int, flags: int) -> list[TypedParam]:
        unknown = types & ~guest_info.ALL_TYPES
        if unknown:
            raise InvalidArg(f"unsupported guest information types '0x{unknown:x}'", domain=From.QEMU)
        return await guest_info.gather(dom, types)

    # --- vcpus -----------------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_get_guest_vcpus(self, dom: QemuDomain, flags: int) -> list[TypedParam]:
        found = await agent_calls.vcpus(dom)
        sets = {
            "vcpus": [cpu.number for cpu in found],
            "online": [cpu.number for cpu in found if cpu.online],
            "offlinable": [cpu.number for cpu in found if cpu.offlinable],
        }
        return [param_string(name, format_cpus(numbers)) for name, numbers in sets.items()]

    @accepts(0)
    async def domain_set_guest_vcpus(self, dom: QemuDomain, cpumap: str, state: int, flags: int) -> None:
        if state not in (0, 1):
            raise BadCall("unsupported state value", domain=From.QEMU)
        wanted = parse_cpus(cpumap, agent_calls.VCPU_MAX)
        found = {cpu.number: cpu for cpu in await agent_calls.vcpus(dom)}
        if missing := wanted - found.keys():
            raise InvalidArg(f"guest is missing vCPUs '{format_cpus(missing)}'", domain=From.QEMU)
        changing = [number for number in sorted(wanted) if found[number].online != bool(state)]
        for number in changing:
            if not state and not found[number].offlinable:
                raise OperationUnsupported(f"vCPU '{number}' is not offlinable", domain=From.QEMU)
        await agent_calls.set_vcpus(dom, changing, online=bool(state))

    # --- users -----------------------------------------------------------------------------------------------

    @accepts(DomainSetUserPasswordFlags.ENCRYPTED)
    async def domain_set_user_password(
        self, dom: QemuDomain, user: str | None, password: str | None, flags: int
    ) -> None:
        for name, value in (("user", user), ("password", password)):
            if value is None:
                raise BadCall(f"{name} in virDomainSetUserPassword must not be NULL")
        _ = dom.running
        encrypted = bool(flags & DomainSetUserPasswordFlags.ENCRYPTED)
        await agent_calls.set_password(dom, user or "", password or "", encrypted=encrypted)

    @accepts(0)
    async def domain_authorized_ssh_keys_get(self, dom: QemuDomain, user: str, flags: int) -> list[str]:
        return await agent_calls.ssh_keys(dom, user)

    @accepts(Keys.APPEND | Keys.REMOVE)
    async def domain_authorized_ssh_keys_set(self, dom: QemuDomain, user: str, keys: list[str], flags: int) -> None:
        if flags & Keys.APPEND and flags & Keys.REMOVE:
            raise BadCall(
                "Flags 'VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_APPEND' and 'VIR_DOMAIN_AUTHORIZED_SSH_KEYS_SET_REMOVE' "
                "are mutually exclusive"
            )
        if flags and not keys:
            raise BadCall("keys in virDomainAuthorizedSSHKeysSet must not be NULL")
        if flags & Keys.REMOVE:
            await agent_calls.remove_ssh_keys(dom, user, keys)
        else:
            await agent_calls.add_ssh_keys(dom, user, keys, reset=not flags & Keys.APPEND)

    @accepts(0)
    async def domain_agent_set_response_timeout(self, dom: QemuDomain, timeout: int, flags: int) -> int:
        if timeout < DomainAgentResponseTimeoutValues.BLOCK:
            raise InvalidArg(f"guest agent timeout '{timeout}' is less than the minimum '-2'", domain=From.QEMU)
        dom.agent_timeout = timeout
        if dom.guest is not None:
            if dom.guest.agent is not None:
                dom.guest.agent.response_timeout = timeout
            await self.driver.save_status(dom)
        return 0

    # --- sleep -----------------------------------------------------------------------------------------------

    @accepts(0)
    async def domain_pm_suspend_for_duration(self, dom: QemuDomain, target: int, duration: int, flags: int) -> None:
        if duration:
            raise ArgumentUnsupported("Duration not supported. Use 0 for now", domain=From.QEMU)
        if target not in NodeSuspendTarget.__members__.values():
            raise InvalidArg(f"Unknown suspend target: {target}", domain=From.QEMU)
        agent_of(dom)
        _check_sleep(dom.live_def, NodeSuspendTarget(target))
        await _suspend(dom, SUSPEND_COMMANDS[NodeSuspendTarget(target)])

    @accepts(0)
    async def domain_pm_wakeup(self, dom: QemuDomain, flags: int) -> None:
        async with dom.jobs.hold(Job.MODIFY, "DomainPMWakeup"):
            await dom.monitor.execute("system_wakeup")


def _of_interfaces(live: DomainDef, table: list[tuple[str, IPAddress]]) -> list[DomainInterface]:
    """The host's neighbours that are interfaces of the guest, each address by itself."""
    found = []
    for interface in live.devices.interface:
        mac = interface.mac.address if interface.mac is not None else None
        name = interface.target.dev if interface.target is not None else None
        found += [DomainInterface(name or "", seen, [address]) for seen, address in table if seen == mac]
    return found


def _check_sleep(live: DomainDef, target: NodeSuspendTarget) -> None:
    """Raises InternalError for a state that the definition turned off."""
    if live.pm is None:
        return
    if target in (NodeSuspendTarget.MEM, NodeSuspendTarget.HYBRID) and live.pm.suspend_to_mem is False:
        raise InternalError("S3 state is disabled for this domain", domain=From.QEMU)
    if target in (NodeSuspendTarget.DISK, NodeSuspendTarget.HYBRID) and live.pm.suspend_to_disk is False:
        raise InternalError("S4 state is disabled for this domain", domain=From.QEMU)


async def _suspend(dom: QemuDomain, command: str) -> None:
    """Send the guest to sleep; its agent answers only where it does not, so success is QEMU's event or its end."""
    monitor, agent = dom.monitor, agent_of(dom)
    asleep: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_event(message: dict[str, Any]) -> None:
        if message.get("event") in SUSPENDED and not asleep.done():
            asleep.set_result(None)

    asking = asyncio.ensure_future(agent.execute(command, timeout=SUSPEND_S))
    ended = asyncio.ensure_future(monitor.closed.wait())
    success: set[asyncio.Future[Any]] = {ended, asleep}
    monitor.raw_listeners.append(on_event)
    try:
        await asyncio.wait({asking, *success}, return_when=asyncio.FIRST_COMPLETED)
        if asking.done() and isinstance(asking.exception(), AgentUnresponsive):
            # A guest that goes to sleep lets go of its agent first.
            await asyncio.wait(success, timeout=ASLEEP_S, return_when=asyncio.FIRST_COMPLETED)
        if asking.done() and not asleep.done() and not ended.done():
            asking.result()
    finally:
        monitor.raw_listeners.remove(on_event)
        for task in (asking, ended):
            task.cancel()
        await asyncio.gather(asking, ended, return_exceptions=True)
