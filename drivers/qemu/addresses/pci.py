"""Give every PCI device a place: what the definition says, what the board has hard-wired, then the first free ones.

A trial run finds out which bridges and ports have to be added; they are then part of the definition and of the real
run. libvirt does the same, and the guest's hardware follows from the order of both.
"""

from collections.abc import Iterator

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.addresses.order import walk
from pyvirtd.drivers.qemu.addresses.pci_bus import Bus, Connect, Connects, Topology, no_bus_for
from pyvirtd.drivers.qemu.addresses.pci_needs import Needs, is_misfit
from pyvirtd.drivers.qemu.postparse.controllers import find, highest, of_type
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import InternalError, XmlError
from pyvirtd.model.address import AnyAddress, Device, PciAddress
from pyvirtd.model.chardev import Console
from pyvirtd.model.devices import Controller, IommuModel, PciControllerName, PciTarget
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.graphics import VideoModelType
from pyvirtd.model.sound import SoundModel

# Functions of the ICH9's USB controllers within their slot.
ICH9_FUNCTIONS = {Model.ICH9_EHCI1: 7, Model.ICH9_UHCI1: 0, Model.ICH9_UHCI2: 1, Model.ICH9_UHCI3: 2}
_ICH9_SLOTS = (0x1D, 0x1A)  # where real boards have the first and the second set
_NAMES = {
    Model.PCI_BRIDGE: PciControllerName.PCI_BRIDGE,
    Model.DMI_TO_PCI_BRIDGE: PciControllerName.I82801B11_BRIDGE,
    Model.PCIE_TO_PCI_BRIDGE: PciControllerName.PCIE_PCI_BRIDGE,
    Model.PCIE_ROOT_PORT: PciControllerName.PCIE_ROOT_PORT,
    Model.PCIE_SWITCH_UPSTREAM_PORT: PciControllerName.X3130_UPSTREAM,
    Model.PCIE_SWITCH_DOWNSTREAM_PORT: PciControllerName.XIO3130_DOWNSTREAM,
    Model.PCI_EXPANDER_BUS: PciControllerName.PXB,
    Model.PCIE_EXPANDER_BUS: PciControllerName.PXB_PCIE,
}
HIGHEST_EXPANDER_BUS = 256


def assign_pci(scope: Scope) -> None:
    """Addresses of all PCI devices; bridges and ports are added to the definition as needed."""
    devices = scope.devices
    if find(devices, Type.PCI, 0) is None:
        _refuse_all(scope)
        return
    last = highest(devices, Type.PCI)
    trial = _Assignment(scope, growing=True)
    trial.run(keep=False)
    if last <= 0 and len(trial.topology.buses) > last + 1 and scope.board.pcie:
        # a guest whose ports are our business gets one to plug a device into
        trial.topology.take_next(Connect.PCIE | Connect.HOTPLUG)
    for number, bus in enumerate(trial.topology.buses):
        if number and bus is not None and find(devices, Type.PCI, number) is None:
            devices.controller.append(Controller(type=Type.PCI, index=number, model=bus.model))
    _Assignment(scope, growing=False).run(keep=True)
    _mark_multifunction(scope)
    for controller in of_type(devices, Type.PCI):
        _complete_target(scope, controller)


def _refuse_all(scope: Scope) -> None:
    """A board without PCI has no place for any of these devices; those of ARM have some of them built in."""
    if scope.board.arm or scope.board.riscv:
        return
    needs = Needs(scope)
    if any(needs.of(device) for device in _in_order(scope)):
        raise XmlError("No PCI buses available", domain=ErrorDomain.DOMAIN)


class _Assignment:
    """One run over a definition. Devices that got their place in a trial run are given back without it."""

    def __init__(self, scope: Scope, *, growing: bool) -> None:
        self.scope = scope
        self.needs = Needs(scope)
        self.topology = _topology(scope, growing=growing)
        self.chosen: list[tuple[Device, AnyAddress | None]] = []

    def run(self, *, keep: bool) -> None:
        try:
            self._reserve_given()
            self._board()
            if self.topology.growing and not self.scope.board.pcie and not self.scope.board.pseries:
                self._spare_bridge()
            for device in _in_order(self.scope):
                self._place(device)
        finally:
            if not keep:
                for device, address in self.chosen:
                    device.info.address = address

    def _spare_bridge(self) -> None:
        """Room for the bridge that is needed once the others are full."""
        if not all(bus is None or bus.full() for bus in self.topology.buses):
            self.topology.take_next(Connect.PCI | Connect.HOTPLUG)

    def _reserve_given(self) -> None:
        for device in walk(self.scope.devices):
            address = device.info.address
            if isinstance(device, Console):
                continue  # the first one shows the address of a serial port
            if isinstance(address, PciAddress) and not address.auto:
                need = self.needs.of(device)
                if isinstance(device, Controller) and self._board_piix(device, address):
                    need = Connect.NONE
                self.topology.reserve(address, need)

    def _board_piix(self, controller: Controller, address: PciAddress) -> bool:
        return self.scope.board.i440fx and address.bus == 0 and address.slot == 1 and controller.type is not Type.PCI

    def _set(self, device: Device, address: PciAddress) -> None:
        old = device.info.address
        if isinstance(old, PciAddress):
            address.zpci = old.zpci
        self.chosen.append((device, old))
        device.info.address = address

    def _wanted(self, device: Device) -> bool:
        address = device.info.address
        return address is None or (isinstance(address, PciAddress) and address.auto)

    # What boards have hard-wired

    def _board(self) -> None:
        if self.scope.board.i440fx:
            self._board_i440fx()
        elif self.scope.board.q35:
            self._board_q35()

    def _board_i440fx(self) -> None:
        devices, topology = self.scope.devices, self.topology
        for controller in devices.controller:
            if controller.type is Type.IDE and controller.index == 0:
                self._fixed(controller, 1, 1, "Primary IDE controller must have PCI address 0:0:1.1")
            elif controller.type is Type.USB and controller.index == 0 and controller.model is Model.PIIX3_UHCI:
                self._fixed(controller, 1, 2, "PIIX3 USB controller at index 0 must have PCI address 0:0:1.2")
        topology.reserve(PciAddress(slot=1), Connect.NONE)  # the ISA bridge; also keeps others out of the slot
        self._primary_video(2)

    def _board_q35(self) -> None:
        devices, topology = self.scope.devices, self.topology
        for controller in devices.controller:
            if controller.type is Type.SATA and controller.index == 0:
                self._fixed(controller, 0x1F, 2, "Primary SATA controller must have PCI address 0:0:1f.2")
            elif (
                controller.type is Type.USB and controller.model is Model.ICH9_UHCI1 and controller.info.address is None
            ):
                self._place_ich9_usb(controller)
            elif controller.model is Model.DMI_TO_PCI_BRIDGE and self._wanted(controller):
                if not topology.slot_used(0, 0x1E):
                    self._fixed(controller, 0x1E, 0, "")
        for function in (0, 3):  # LPC bridge and SMBus
            topology.reserve(PciAddress(slot=0x1F, function=function), Connect.NONE)
        for sound in devices.sound:
            if sound.model is SoundModel.ICH9 and self._wanted(sound) and not topology.slot_used(0, 0x1B):
                self._fixed(sound, 0x1B, 0, "")
        if devices.iommu is not None and devices.iommu.model is IommuModel.AMD:
            # amd-iommu makes its PCI device itself, in the first slot that is free: it is the first device of all.
            self._fixed(devices.iommu, 1, 0, "AMD IOMMU must have PCI address 0:0:1.0")
        self._primary_video(1)

    def _fixed(self, device: Device, slot: int, function: int, message: str) -> None:
        """Put a device where the board has it; one that says otherwise is refused."""
        address = device.info.address
        if not self._wanted(device):
            if message and isinstance(address, PciAddress):
                if (address.bus, address.slot, address.function) != (0, slot, function):
                    raise InternalError(message, domain=ErrorDomain.QEMU)
            return
        place = PciAddress(slot=slot, function=function)
        self.topology.reserve(place, Connect.NONE)
        self._set(device, place)

    def _place_ich9_usb(self, controller: Controller) -> None:
        """The first controller of a set; the others come beside it."""
        slot = next((slot for slot in _ICH9_SLOTS if not self.topology.slot_used(0, slot)), None)
        if slot is None:
            return
        place = PciAddress(slot=slot, multifunction=True)
        self.topology.reserve(place, Connect.NONE)
        self._set(controller, place)

    def _primary_video(self, slot: int) -> None:
        videos = self.scope.devices.video
        if not videos or not self._wanted(videos[0]):
            return
        kind = videos[0].model.type if videos[0].model else None
        if kind in (VideoModelType.NONE, VideoModelType.RAMFB):
            return
        if self.topology.slot_used(0, slot):
            self._place(videos[0])
        else:
            place = PciAddress(slot=slot)
            self.topology.reserve(place, Connect.NONE)
            self._set(videos[0], place)

    # Everything else

    def _place(self, device: Device) -> None:
        if not self._wanted(device):
            return
        need = self.needs.of(device)
        if not need:
            if device.info.address is None and is_misfit(device):
                raise no_bus_for(need)
            return
        if isinstance(device, Controller) and device.type is Type.USB and device.model in ICH9_FUNCTIONS:
            self._place_beside(device, need)
            return
        self._set(device, self.topology.take_next(need))

    def _place_beside(self, controller: Controller, need: Connects) -> None:
        """The controllers of one ICH9 USB set are functions of one slot."""
        assert controller.model is not None
        function = ICH9_FUNCTIONS[controller.model]
        multi = True if function == 0 else None
        for other in of_type(self.scope.devices, Type.USB):
            address = other.info.address
            if other is controller or other.index != controller.index or other.model not in ICH9_FUNCTIONS:
                continue
            if isinstance(address, PciAddress) and not address.auto:
                place = PciAddress(bus=address.bus, slot=address.slot, function=function, multifunction=multi)
                self.topology.reserve(place, need)
                self._set(controller, place)
                return
        place = self.topology.take_next(need, function)
        place.multifunction = multi
        self._set(controller, place)


def _topology(scope: Scope, *, growing: bool) -> Topology:
    """The buses that the definition's controllers make; gaps between them are filled in a trial run."""
    devices, board = scope.devices, scope.board
    buses: list[Bus | None] = [None] * (highest(devices, Type.PCI) + 1)
    for controller in of_type(devices, Type.PCI):
        number = controller.index or 0
        if buses[number] is not None:
            raise XmlError(f"Multiple 'pci' controllers with index '{number}'", domain=ErrorDomain.DOMAIN)
        if controller.model is None:
            raise InternalError("PCI controller model was not set correctly", domain=ErrorDomain.DOMAIN)
        buses[number] = Bus(controller.model)
    filler = Model.PCI_ROOT if board.pseries else Model.PCIE_ROOT_PORT if board.pcie else Model.PCI_BRIDGE
    buses = [bus or Bus(filler) for bus in buses]
    bridges = scope.caps.has_device("pcie-pci-bridge")
    return Topology(buses, growing, multiple_roots=board.pseries, to_pci_bridges=bridges)


def _in_order(scope: Scope) -> Iterator[Device]:
    """The order in which devices choose their places; guests depend on it."""
    devices = scope.devices
    yield from of_type(devices, Type.PCI)
    yield from devices.filesystem
    yield from devices.interface
    yield from devices.sound
    for controller in devices.controller:
        on_board = controller.type is Type.IDE and controller.index == 0 and scope.board.builtin_ide
        if controller.type is not Type.PCI and not on_board:
            yield controller
    yield from devices.disk
    yield from devices.hostdev
    if devices.memballoon is not None:
        yield devices.memballoon
    yield from devices.rng
    yield from devices.watchdog
    yield from devices.video
    yield from devices.shmem
    yield from devices.input
    yield from devices.serial
    yield from devices.memory
    if devices.iommu is not None:
        yield devices.iommu
    if devices.vsock is not None:
        yield devices.vsock
    yield from devices.crypto
    if devices.pstore is not None:
        yield devices.pstore


def _mark_multifunction(scope: Scope) -> None:
    """Function 0 of a slot with several functions says so."""
    places: dict[tuple[int, int], list[PciAddress]] = {}
    for device in scope.devices.all():
        if isinstance(device.info.address, PciAddress):
            address = device.info.address
            places.setdefault((address.bus, address.slot), []).append(address)
    for addresses in places.values():
        if any(address.function for address in addresses):
            for address in addresses:
                if address.function == 0 and address.multifunction is None:
                    address.multifunction = True


def _complete_target(scope: Scope, controller: Controller) -> None:
    """The hypervisor's device, and the numbers by which the guest tells ports apart."""
    index, model = controller.index or 0, controller.model
    if model is Model.PCI_ROOT:
        if scope.board.pseries:
            controller.pci_model = controller.pci_model or PciControllerName.SPAPR_PCI_HOST_BRIDGE
            target = controller.target = controller.target or PciTarget()
            if target.index is None:
                target.index = 0 if index == 0 else _free_bridge_index(scope)
        return
    if model not in _NAMES:
        return
    controller.pci_model = controller.pci_model or _NAMES[model]
    if model in (Model.DMI_TO_PCI_BRIDGE, Model.PCIE_TO_PCI_BRIDGE, Model.PCIE_SWITCH_UPSTREAM_PORT):
        return
    target = controller.target = controller.target or PciTarget()
    address = controller.info.address
    if not isinstance(address, PciAddress):
        return
    if model is Model.PCI_BRIDGE and target.chassis_nr is None:
        target.chassis_nr = index
    elif model in (Model.PCIE_ROOT_PORT, Model.PCIE_SWITCH_DOWNSTREAM_PORT):
        if target.chassis is None:
            target.chassis = index
        if target.port is None:
            port = address.slot if model is Model.PCIE_SWITCH_DOWNSTREAM_PORT else address.slot << 3 | address.function
            target.port = port
    elif model in (Model.PCI_EXPANDER_BUS, Model.PCIE_EXPANDER_BUS) and target.bus_nr is None:
        target.bus_nr = _expander_bus(scope)


def _free_bridge_index(scope: Scope) -> int:
    used = {c.target.index for c in of_type(scope.devices, Type.PCI) if c.target and c.target.index is not None}
    return next(number for number in range(1, 256) if number not in used)


def _expander_bus(scope: Scope) -> int:
    """Bus numbers of expanders are given out from above, two each."""
    used = [c.target.bus_nr for c in of_type(scope.devices, Type.PCI) if c.target and c.target.bus_nr is not None]
    return min(used, default=HIGHEST_EXPANDER_BUS) - 2
