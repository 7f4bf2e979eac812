"""PCI devices of the host that a definition gives to its guest, and what these need of the host."""

from collections.abc import Iterator
from typing import NamedTuple

from pyvirtd.core.host_pci import Before, PciBus, group_of
from pyvirtd.drivers.qemu.command.hostdev import pci_name
from pyvirtd.model.address import OrigStates
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.hostdev import HostdevDriver, MdevSource, PciBackend, PciHostdevSource
from pyvirtd.model.net import (
    Actual,
    HostdevNetSource,
    HostPciAddress,
    Interface,
    InterfaceDriver,
    InterfaceType,
    NetDriverName,
    VdpaSource,
)
from pyvirtd.model.storage import NvmeSource

LOCKED_BESIDES_KIB = 1 << 20  # beside its memory a device of the host reaches what QEMU has: libvirt's estimate


class Assigned(NamedTuple):
    """One device: `backend` and `driver` as the definition asks for them, `source` what says it there."""

    name: str
    managed: bool
    backend: str | None = None
    driver: str | None = None
    source: PciHostdevSource | HostdevNetSource | None = None

    @property
    def is_interface(self) -> bool:
        return isinstance(self.source, HostdevNetSource)


def assigned(live: DomainDef) -> list[Assigned]:
    """A guest's PCI devices, each once."""
    found: dict[str, Assigned] = {}
    for device in _assigned(live):
        found.setdefault(device.name, device)
    return list(found.values())


def _assigned(live: DomainDef) -> Iterator[Assigned]:
    for hostdev in live.devices.hostdev:
        if isinstance(hostdev.source, PciHostdevSource) and hostdev.source.address is not None:
            driver = hostdev.driver or HostdevDriver()
            name = pci_name(hostdev.source.address)
            yield Assigned(name, bool(hostdev.managed), driver.name, driver.model, hostdev.source)
    for _, net, name in host_nets(live):
        net_driver = net.driver or InterfaceDriver()
        assert isinstance(net.source, HostdevNetSource)
        yield Assigned(name, net.managed, net_driver.name, net_driver.model, net.source)
    for disk in live.devices.disk:
        if isinstance(disk.source, NvmeSource) and disk.source.address is not None:
            yield Assigned(pci_name(disk.source.address), disk.source.managed, PciBackend.VFIO)


def host_nets(live: DomainDef) -> Iterator[tuple[Interface, Interface | Actual, str]]:
    """The interfaces that are PCI devices of the host, as they are defined and what they are in this run."""
    for net in live.devices.interface:
        one = net.actual or net
        address = one.source.address if isinstance(one.source, HostdevNetSource) else None
        if one.type is InterfaceType.HOSTDEV and isinstance(address, HostPciAddress):
            yield net, one, pci_name(address)


def note_moves(live: DomainDef, moved: dict[str, Before]) -> None:
    """Say in a live definition, as libvirtd does, how its devices are had and what giving them back has to do."""
    for hostdev in live.devices.hostdev:
        if isinstance(hostdev.source, PciHostdevSource):
            hostdev.driver = hostdev.driver or HostdevDriver()
            hostdev.driver.name = PciBackend.VFIO
    for _, net, _ in host_nets(live):
        net.driver = net.driver or InterfaceDriver()
        net.driver.name = NetDriverName.VFIO
    for device in assigned(live):
        if device.source is not None:
            before = moved.get(device.name, Before())
            device.source.origstates = OrigStates(unbind=before.unbind, reprobe=before.reprobe)


def noted_moves(live: DomainDef) -> dict[str, Before]:
    """What a live definition says of giving its devices back."""
    return {
        device.name: Before(device.source.origstates.unbind, device.source.origstates.reprobe)
        for device in assigned(live)
        if device.source is not None and device.source.origstates is not None
    }


def vfio_groups(live: DomainDef, bus: PciBus) -> list[str]:
    """The nodes by which the guest has its IOMMU groups. They appear when a device is bound."""
    groups = {bus.group(device.name) for device in assigned(live)}
    for hostdev in live.devices.hostdev:
        if isinstance(hostdev.source, MdevSource) and hostdev.source.address is not None:
            groups.add(group_of(bus.root / f"bus/mdev/devices/{hostdev.source.address.uuid}"))
    return [str(bus.nodes / str(group)) for group in sorted(group for group in groups if group is not None)]


def locked_memory(live: DomainDef) -> int | None:
    """How many bytes of memory QEMU must be able to lock; 0 for no more than anybody may, None for all it wants."""
    limit = live.memtune.hard_limit_kib if live.memtune is not None else None
    locks = live.memory_backing is not None and live.memory_backing.locked
    if not locks and not _reaches_memory(live):
        return 0
    if limit is not None:
        return limit << 10
    return None if locks else live.memory.kib + LOCKED_BESIDES_KIB << 10


def _reaches_memory(live: DomainDef) -> bool:
    """A device of the host reads and writes the guest's memory by itself."""
    mediated = any(isinstance(hostdev.source, MdevSource) for hostdev in live.devices.hostdev)
    vdpa = any(isinstance(net.source, VdpaSource) for net in live.devices.interface)
    return mediated or vdpa or bool(assigned(live))
