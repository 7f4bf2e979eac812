"""What a guest's agent tells of the guest, as libvirt's parameters: user.0.name, os.id, fs.count, …

https://libvirt.org/html/libvirt-libvirt-domain.html#virDomainGetGuestInfo names them.
"""

from collections.abc import Awaitable, Callable

from pyvirtd.api.types import TypedParam, param_boolean, param_int, param_string, param_uint, param_ullong
from pyvirtd.constants.domain import DomainGuestInfoTypes
from pyvirtd.constants.network import IPAddrType
from pyvirtd.drivers.qemu import agent_calls
from pyvirtd.drivers.qemu.agent import AgentCommandRefused
from pyvirtd.drivers.qemu.agent_calls import DiskPlace
from pyvirtd.drivers.qemu.disk_buses import CONTROLLERS
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.model.address import DriveAddress, PciAddress
from pyvirtd.model.domain import DomainDef

OS_FIELDS = (
    "id",
    "name",
    "pretty-name",
    "version",
    "version-id",
    "machine",
    "variant",
    "variant-id",
    "kernel-release",
    "kernel-version",
)
# Errors of an agent that does not know the command, or was told not to.
UNSUPPORTED = ("CommandNotFound", "CommandDisabled")

Gather = Callable[[QemuDomain], Awaitable[list[TypedParam]]]


async def gather(dom: QemuDomain, types: int) -> list[TypedParam]:
    """Parameters of the types (DomainGuestInfoTypes); 0 is all that the agent knows of."""
    found: list[TypedParam] = []
    for kind, function in GATHER.items():
        if types and not types & kind:
            continue
        try:
            found += await function(dom)
        except AgentCommandRefused as exc:
            if types or exc.qga_class not in UNSUPPORTED:
                raise
    return found


async def _users(dom: QemuDomain) -> list[TypedParam]:
    users = await agent_calls.users(dom)
    found = [param_uint("user.count", len(users))]
    for index, user in enumerate(users):
        found.append(param_string(f"user.{index}.name", user.name))
        if user.domain is not None:
            found.append(param_string(f"user.{index}.domain", user.domain))
        found.append(param_ullong(f"user.{index}.login-time", user.login_ms))
    return found


async def _os(dom: QemuDomain) -> list[TypedParam]:
    command = "guest-get-osinfo"
    info = agent_calls.an_object(command, await agent_calls.ask(dom, command))
    values = ((name, info.maybe_text(name)) for name in OS_FIELDS)
    return [param_string(f"os.{name}", value) for name, value in values if value is not None]


async def _timezone(dom: QemuDomain) -> list[TypedParam]:
    command = "guest-get-timezone"
    zone = agent_calls.an_object(command, await agent_calls.ask(dom, command))
    name = zone.maybe_text("zone")
    found = [param_string("timezone.name", name)] if name is not None else []
    return [*found, param_int("timezone.offset", zone.number("offset", -(1 << 31), (1 << 31) - 1))]


async def _hostname(dom: QemuDomain) -> list[TypedParam]:
    name = await agent_calls.host_name(dom)
    if name is None:
        raise agent_calls.Fields("guest-get-host-name", {}).missing("host-name")
    return [param_string("hostname", name)]


async def _file_systems(dom: QemuDomain) -> list[TypedParam]:
    systems = await agent_calls.file_systems(dom)
    live = dom.live_def
    found = [param_uint("fs.count", len(systems))] if systems else []
    for index, system in enumerate(systems):
        prefix = f"fs.{index}"
        found.append(param_string(f"{prefix}.name", system.name))
        found.append(param_string(f"{prefix}.mountpoint", system.mountpoint))
        found.append(param_string(f"{prefix}.fstype", system.fstype))
        if system.total_bytes is not None:
            found.append(param_ullong(f"{prefix}.total-bytes", system.total_bytes))
        if system.used_bytes is not None:
            found.append(param_ullong(f"{prefix}.used-bytes", system.used_bytes))
        found.append(param_uint(f"{prefix}.disk.count", len(system.disks)))
        for number, disk in enumerate(system.disks):
            words = {"alias": target_at(live, disk.place), "serial": disk.serial, "device": disk.device}
            found += _strings(f"{prefix}.disk.{number}", words)
    return found


async def _disks(dom: QemuDomain) -> list[TypedParam]:
    disks = await agent_calls.disks(dom)
    live = dom.live_def
    found = [param_uint("disk.count", len(disks))] if disks else []
    for index, disk in enumerate(disks):
        prefix = f"disk.{index}"
        found.append(param_string(f"{prefix}.name", disk.name))
        found.append(param_boolean(f"{prefix}.partition", disk.partition))
        if disk.dependencies:
            found.append(param_uint(f"{prefix}.dependency.count", len(disk.dependencies)))
        for number, name in enumerate(disk.dependencies):
            found.append(param_string(f"{prefix}.dependency.{number}.name", name))
        words = {"serial": disk.serial, "alias": target_at(live, disk.place), "guest_alias": disk.alias}
        found += _strings(prefix, words)
    return found


async def _interfaces(dom: QemuDomain) -> list[TypedParam]:
    interfaces = await agent_calls.interfaces(dom)
    found = [param_uint("if.count", len(interfaces))] if interfaces else []
    for index, interface in enumerate(interfaces):
        prefix = f"if.{index}"
        found += _strings(prefix, {"name": interface.name, "hwaddr": interface.hwaddr})
        found.append(param_uint(f"{prefix}.addr.count", len(interface.addrs)))
        for number, address in enumerate(interface.addrs):
            family = "ipv4" if address.type == IPAddrType.IPV4 else "ipv6"
            found += _strings(f"{prefix}.addr.{number}", {"type": family, "addr": address.addr})
            found.append(param_uint(f"{prefix}.addr.{number}.prefix", address.prefix))
    return found


def _strings(prefix: str, words: dict[str, str | None]) -> list[TypedParam]:
    return [param_string(f"{prefix}.{name}", word) for name, word in words.items() if word is not None]


GATHER: dict[DomainGuestInfoTypes, Gather] = {
    DomainGuestInfoTypes.USERS: _users,
    DomainGuestInfoTypes.OS: _os,
    DomainGuestInfoTypes.TIMEZONE: _timezone,
    DomainGuestInfoTypes.HOSTNAME: _hostname,
    DomainGuestInfoTypes.FILESYSTEM: _file_systems,
    DomainGuestInfoTypes.DISKS: _disks,
    DomainGuestInfoTypes.INTERFACES: _interfaces,
}
ALL_TYPES = sum(GATHER)


def target_at(live: DomainDef, place: DiskPlace | None) -> str | None:
    """The target (vda) of the disk that the guest sees at a place, None where none of ours is there."""
    if place is None:
        return None
    controller = next((item for item in live.devices.controller if _is_at(item.info.address, place.pci)), None)
    for disk in live.devices.disk:
        address = disk.info.address
        if _is_at(address, place.pci):
            return disk.target.dev
        if (
            controller is not None
            and isinstance(address, DriveAddress)
            and disk.target.bus is not None
            and CONTROLLERS.get(disk.target.bus) is controller.type
            and address.controller == controller.index
            and (address.bus, address.target, address.unit) == (place.bus, place.target, place.unit)
        ):
            return disk.target.dev
    return None


def _is_at(address: object, pci: tuple[int, ...]) -> bool:
    if not isinstance(address, PciAddress):
        return False
    return (address.domain, address.bus, address.slot, address.function) == pci
