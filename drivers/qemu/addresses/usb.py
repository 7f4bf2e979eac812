"""Ports of the guest's USB buses: which exist, who has them, hubs where there are too few."""

from collections.abc import Iterator
from heapq import heappop, heappush

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.controllers import of_type
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import XmlError
from pyvirtd.model.address import Device, UsbAddress
from pyvirtd.model.chardev import SerialTargetType
from pyvirtd.model.devices import Controller, Devices, Hub
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.disk import DiskBus
from pyvirtd.model.graphics import InputBus
from pyvirtd.model.hostdev import HostdevType
from pyvirtd.model.sound import SoundModel

DOMAIN = ErrorDomain.DOMAIN
HUB_PORTS = 8  # of QEMU's usb-hub
MAX_DEPTH = 5  # a port has at most this many numbers, USB 2.0 4.1.1 leaves no room for more hubs
_PORTS = {
    Model.PIIX3_UHCI: 2,
    Model.PIIX4_UHCI: 2,
    Model.EHCI: 6,
    Model.ICH9_EHCI1: 6,
    Model.ICH9_UHCI1: 2,
    Model.ICH9_UHCI2: 2,
    Model.ICH9_UHCI3: 2,
    Model.VT82C686B_UHCI: 2,
    Model.PCI_OHCI: 3,
    Model.NEC_XHCI: 4,
    Model.QEMU_XHCI: 4,
}

Path = tuple[int, ...]


def port_count(controller: Controller) -> int:
    """Ports on the root of a controller."""
    if controller.model in (Model.NEC_XHCI, Model.QEMU_XHCI) and controller.ports:
        return controller.ports
    return _PORTS.get(controller.model, 0) if controller.model else 2


class _Buses:
    """Occupied ports of each bus; `hubs` are those with ports of their own."""

    def __init__(self, devices: Devices) -> None:
        self.ports = {
            c.index or 0: port_count(c)
            for c in of_type(devices, Type.USB)
            if c.info.master is None and c.model is not Model.NONE
        }
        self.taken: dict[int, set[Path]] = {bus: set() for bus in self.ports}
        self.hubs: dict[int, set[Path]] = {bus: set() for bus in self.ports}
        # What may have a free port, nearest to the root first: the root itself, and hubs.
        self._roomy: dict[int, list[tuple[int, Path]]] = {bus: [(0, ())] for bus in self.ports}

    def reserve(self, address: UsbAddress) -> Path:
        """Take the port. Raises XmlError where it does not exist or is taken."""
        assert address.port is not None
        path = parse_port(address.port)
        if address.bus not in self.ports:
            raise XmlError(f"Missing USB bus {address.bus}", domain=DOMAIN)
        for depth in range(1, len(path)):
            if path[:depth] not in self.hubs[address.bus]:
                raise XmlError(
                    f"there is no hub at port {path[depth - 1]} in USB address bus: {address.bus} port: {address.port}",
                    domain=DOMAIN,
                )
        limit = HUB_PORTS if len(path) > 1 else self.ports[address.bus]
        if path[-1] > limit or path[-1] < 1:
            raise XmlError(f"requested USB port {address.port} not present on USB bus {address.bus}", domain=DOMAIN)
        if path in self.taken[address.bus]:
            raise XmlError(f"Duplicate USB address bus {address.bus} port {address.port}", domain=DOMAIN)
        self.taken[address.bus].add(path)
        return path

    def free(self, bus: int) -> Path | None:
        """The lowest free port nearest to the root."""
        roomy, taken = self._roomy[bus], self.taken[bus]
        while roomy:
            above = roomy[0][1]
            for port in range(1, (HUB_PORTS if above else self.ports[bus]) + 1):
                if (*above, port) not in taken:
                    return (*above, port)
            heappop(roomy)  # ports are only ever taken: what is full stays so
        return None

    def add_hub(self, bus: int, path: Path) -> None:
        """The hub in that port gives ports of its own."""
        self.hubs[bus].add(path)
        if len(path) < MAX_DEPTH:
            heappush(self._roomy[bus], (len(path), path))

    def find(self, wanted: int | None) -> tuple[int, Path]:
        """A free port, on that bus if one is wanted. Raises XmlError."""
        if wanted is not None and wanted not in self.ports:
            raise XmlError(f"USB bus {wanted} requested but no controller with that index is present", domain=DOMAIN)
        for bus in sorted(self.ports) if wanted is None else [wanted]:
            path = self.free(bus)
            if path is not None:
                return bus, path
        raise XmlError("No free USB ports", domain=DOMAIN)


def parse_port(text: str) -> Path:
    """ "1.2" is (1, 2). Raises XmlError."""
    parts = text.split(".")
    if len(parts) > MAX_DEPTH or not all(part.isdigit() and part.isascii() for part in parts):
        raise XmlError("Invalid USB address 'port' attribute", domain=DOMAIN)
    return tuple(int(part) for part in parts)


def usb_devices(devices: Devices) -> Iterator[Device]:
    """Devices on a USB bus but hubs, in the order in which they choose their ports."""
    for hostdev in devices.hostdev:
        if hostdev.type is HostdevType.USB:
            yield hostdev
    for disk in devices.disk:
        if disk.target.bus is DiskBus.USB:
            yield disk
    yield from of_type(devices, Type.CCID)
    for one in devices.input:
        if one.bus is InputBus.USB:
            yield one
    for serial in devices.serial:
        if serial.target and serial.target.type is SerialTargetType.USB:
            yield serial
    for sound in devices.sound:
        if sound.model is SoundModel.USB:
            yield sound
    yield from devices.redirdev


def assign_usb(scope: Scope) -> None:
    """A port for every USB device; hubs are added where the ports do not suffice."""
    devices = scope.devices
    buses = _Buses(devices)
    if not any(True for _ in usb_devices(devices)) and not devices.hub:
        return
    if not buses.ports:
        return  # validation names the device that lacks its bus
    _add_hubs(devices, buses)
    given = [d for d in devices.hub if isinstance(d.info.address, UsbAddress) and d.info.address.port]
    for hub in sorted(given, key=_depth):
        assert isinstance(hub.info.address, UsbAddress)
        path = buses.reserve(hub.info.address)
        buses.add_hub(hub.info.address.bus, path)
    for device in usb_devices(devices):
        if isinstance(device.info.address, UsbAddress) and _has_port(device.info.address):
            buses.reserve(device.info.address)
    placed = {id(hub) for hub in given}
    for hub in devices.hub:
        if id(hub) not in placed:
            bus, path = _choose(buses, hub)
            buses.add_hub(bus, path)
    for device in usb_devices(devices):
        address = device.info.address
        if address is None or (isinstance(address, UsbAddress) and not _has_port(address)):
            _choose(buses, device)


def _has_port(address: UsbAddress) -> bool:
    """Port 0 does not exist: it stands for any."""
    return address.port not in (None, "", "0")


def _depth(device: Device) -> int:
    address = device.info.address
    return address.port.count(".") if isinstance(address, UsbAddress) and address.port else 0


def _choose(buses: _Buses, device: Device) -> tuple[int, Path]:
    address = device.info.address
    bus, path = buses.find(address.bus if isinstance(address, UsbAddress) else None)
    buses.taken[bus].add(path)
    device.info.address = UsbAddress(bus=bus, port=".".join(map(str, path)))
    return bus, path


def _add_hubs(devices: Devices, buses: _Buses) -> None:
    """Each hub gives its own ports but takes one."""
    available = sum(buses.ports.values()) + HUB_PORTS * len(devices.hub)
    wanted = len(devices.hub) + sum(1 for _ in usb_devices(devices))
    if wanted > available:
        count = -(-(wanted - available + 1) // (HUB_PORTS - 1))
        devices.hub.extend(Hub() for _ in range(count))
