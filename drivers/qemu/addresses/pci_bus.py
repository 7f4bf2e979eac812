"""PCI buses as a place to put devices: which connections each controller model offers, and who sits where."""

from dataclasses import dataclass, field
from functools import cache
from typing import TypeAlias

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import InternalError, XmlError
from pyvirtd.model.address import PciAddress
from pyvirtd.model.devices import ControllerModel as Model

DOMAIN = ErrorDomain.DOMAIN
FUNCTIONS = 8


class Connect:
    """What a device needs of its bus, and what a bus offers. HOTPLUG, AUTO and SHARE are conditions, the rest kinds
    of connection of which one must match. Plain numbers: an enum's operators would take most of a placement's time."""

    NONE = 0
    PCI = 1 << 0
    PCIE = 1 << 1
    ROOT_PORT = 1 << 2
    UPSTREAM = 1 << 3
    DOWNSTREAM = 1 << 4
    DMI_TO_PCI = 1 << 5
    PCIE_TO_PCI = 1 << 6
    EXPANDER = 1 << 7
    PCIE_EXPANDER = 1 << 8
    BRIDGE = 1 << 9
    HOTPLUG = 1 << 10
    AUTO = 1 << 11  # devices without an address of their own may be put there
    SHARE = 1 << 12  # functions of one slot may be given to several such devices


Connects: TypeAlias = int  # bits of Connect


KINDS = ~(Connect.HOTPLUG | Connect.AUTO | Connect.SHARE)
_ENDPOINTS = Connect.PCI | Connect.PCIE
_WORDS = {
    Connect.PCI: "standard PCI device",
    Connect.PCIE: "PCI Express device",
    Connect.ROOT_PORT: "pcie-root-port",
    Connect.UPSTREAM: "pcie-switch-upstream-port",
    Connect.DOWNSTREAM: "pcie-switch-downstream-port",
    Connect.DMI_TO_PCI: "dmi-to-pci-bridge",
    Connect.PCIE_TO_PCI: "pcie-to-pci-bridge",
    Connect.EXPANDER: "pci-expander-bus",
    Connect.PCIE_EXPANDER: "pcie-expander-bus",
    Connect.BRIDGE: "pci-bridge",
}

# What a controller needs of the bus above it.
UPWARD: dict[Model, Connects] = {
    Model.PCI_BRIDGE: Connect.BRIDGE,
    Model.DMI_TO_PCI_BRIDGE: Connect.DMI_TO_PCI,
    Model.PCIE_TO_PCI_BRIDGE: Connect.PCIE_TO_PCI,
    Model.PCIE_ROOT_PORT: Connect.ROOT_PORT | Connect.SHARE,
    Model.PCIE_SWITCH_UPSTREAM_PORT: Connect.UPSTREAM,
    Model.PCIE_SWITCH_DOWNSTREAM_PORT: Connect.DOWNSTREAM,
    Model.PCI_EXPANDER_BUS: Connect.EXPANDER,
    Model.PCIE_EXPANDER_BUS: Connect.PCIE_EXPANDER,
}


@dataclass(frozen=True, slots=True)
class BusKind:
    """What the bus below a controller offers."""

    offers: Connects
    first: int
    last: int


_BUSES: dict[Model, BusKind] = {
    Model.PCI_ROOT: BusKind(Connect.HOTPLUG | Connect.AUTO | Connect.PCI | Connect.BRIDGE | Connect.EXPANDER, 1, 31),
    Model.PCI_BRIDGE: BusKind(Connect.HOTPLUG | Connect.AUTO | Connect.PCI | Connect.BRIDGE, 1, 31),
    Model.PCI_EXPANDER_BUS: BusKind(Connect.HOTPLUG | Connect.AUTO | Connect.PCI | Connect.BRIDGE, 0, 31),
    Model.PCIE_ROOT: BusKind(
        Connect.AUTO | Connect.PCI | Connect.PCIE | Connect.ROOT_PORT | Connect.DMI_TO_PCI | Connect.PCIE_EXPANDER,
        1,
        31,
    ),
    Model.DMI_TO_PCI_BRIDGE: BusKind(Connect.AUTO | Connect.PCI | Connect.BRIDGE, 0, 31),
    Model.PCIE_TO_PCI_BRIDGE: BusKind(Connect.HOTPLUG | Connect.AUTO | Connect.PCI | Connect.BRIDGE, 1, 31),
    Model.PCIE_ROOT_PORT: BusKind(
        Connect.HOTPLUG | Connect.AUTO | Connect.PCIE | Connect.UPSTREAM | Connect.PCIE_TO_PCI, 0, 0
    ),
    Model.PCIE_SWITCH_UPSTREAM_PORT: BusKind(Connect.DOWNSTREAM, 0, 31),
    Model.PCIE_SWITCH_DOWNSTREAM_PORT: BusKind(
        Connect.HOTPLUG | Connect.AUTO | Connect.PCIE | Connect.UPSTREAM | Connect.PCIE_TO_PCI, 0, 0
    ),
    Model.PCIE_EXPANDER_BUS: BusKind(Connect.ROOT_PORT | Connect.DMI_TO_PCI, 0, 31),
}


@dataclass(slots=True)
class Bus:
    """One bus: `functions` is a mask for each occupied slot, `shared` the slots whose free functions may be used."""

    model: Model
    kind: BusKind = field(init=False)
    functions: dict[int, int] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.kind = _BUSES[self.model]

    def take(self, slot: int, function: int, need: Connects) -> bool:
        """Put a device there; False where one is."""
        bit = 1 << function
        taken = self.functions.get(slot, 0)
        if taken & bit:
            return False
        if not taken and need & Connect.SHARE:
            self.shared.add(slot)
        elif not need & Connect.SHARE:
            self.shared.discard(slot)
        self.functions[slot] = taken | bit
        return True

    def full(self) -> bool:
        return all(self.functions.get(slot) for slot in range(self.kind.first, self.kind.last + 1))


@cache
def accepts(offers: Connects, need: Connects, *, given: bool) -> bool:
    """Whether a device with that need may sit on such a bus; an address that was given may bend the rules."""
    if given:
        if offers & _ENDPOINTS and need & _ENDPOINTS:
            return True  # either kind works in either slot, as QEMU lets it
        return bool(offers & need & KINDS)
    if need & Connect.HOTPLUG and not offers & Connect.HOTPLUG:
        return False
    return bool(offers & Connect.AUTO or need & ~_ENDPOINTS & KINDS) and bool(offers & need & KINDS)


def no_bus_for(need: Connects) -> InternalError:
    """The error for a device that no bus can be added for. The number is libvirt's: clients may know it."""
    number = 0x2000 if need & Connect.PCIE_TO_PCI else 0
    return InternalError(
        f"Cannot automatically add a new PCI bus for a device with connect flags {number:02x}", domain=DOMAIN
    )


def describe(address: PciAddress) -> str:
    """ "0000:00:02.0" """
    return f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:d}"


@dataclass(slots=True)
class Topology:
    """All buses of a guest. `growing`: buses may still be added, which happens in a trial run before the real one."""

    buses: list[Bus | None]
    growing: bool
    multiple_roots: bool = False  # pseries: more host bridges instead of bridges
    to_pci_bridges: bool = True  # pcie-to-pci-bridge exists, else dmi-to-pci-bridge and pci-bridge
    # By need, the first bus with room; places are only ever taken.
    _roomy: dict[Connects, int] = field(default_factory=dict)

    @property
    def pcie(self) -> bool:
        return bool(self.buses) and self.buses[0] is not None and self.buses[0].model is Model.PCIE_ROOT

    def bus(self, number: int) -> Bus | None:
        return self.buses[number] if number < len(self.buses) else None

    def used(self, address: PciAddress) -> bool:
        """Whether anything sits in that function."""
        bus = self.bus(address.bus)
        return bus is not None and bool(bus.functions.get(address.slot, 0) >> address.function & 1)

    def slot_used(self, bus: int, slot: int) -> bool:
        found = self.bus(bus)
        return found is not None and bool(found.functions.get(slot))

    def reserve(self, address: PciAddress, need: Connects) -> None:
        """Take a place that was given. Raises XmlError where it is taken, does not exist or does not fit."""
        if address.domain:
            raise XmlError(f"Invalid PCI address {describe(address)}. Only PCI domain 0 is available", domain=DOMAIN)
        if not self.buses:
            raise XmlError("No PCI buses available", domain=DOMAIN)
        if address.bus >= len(self.buses) and self.growing:
            if address.bus == len(self.buses) and self._needs_port(need):
                address.bus += 1  # the bus asked for becomes the port that the bridge is put on
            while address.bus >= len(self.buses):
                self._grow(need)
        bus = self.bus(address.bus)
        if bus is None:
            last = len(self.buses) - 1
            raise XmlError(
                f"Invalid PCI address {describe(address)}. Only PCI buses up to {last} are available", domain=DOMAIN
            )
        self._check(bus, address, need)
        if not bus.take(address.slot, address.function, need):
            raise XmlError(f"Attempted double use of PCI Address {describe(address)}", domain=DOMAIN)

    def _check(self, bus: Bus, address: PciAddress, need: Connects) -> None:
        if not accepts(bus.kind.offers, need, given=True) and need & KINDS:
            word = next((text for flag, text in _WORDS.items() if need & flag), "")
            raise XmlError(
                f"The device at PCI address {describe(address)} cannot be plugged into the PCI controller with "
                f"index='{address.bus}'. It requires a controller that accepts a {word}.",
                domain=DOMAIN,
            )
        kind = bus.kind
        if address.slot < kind.first:
            raise XmlError(f"Invalid PCI address {describe(address)}. slot must be >= {kind.first}", domain=DOMAIN)
        if address.slot > kind.last:
            raise XmlError(f"Invalid PCI address {describe(address)}. slot must be <= {kind.last}", domain=DOMAIN)

    def take_next(self, need: Connects, function: int = 0) -> PciAddress:
        """Take the first free place that fits; grows the topology in a trial run."""
        start = self._roomy.get(need, 0)
        while True:
            for number in range(start, len(self.buses)):
                bus = self.buses[number]
                if bus is not None and accepts(bus.kind.offers, need, given=False):
                    place = _free_in(bus, need, function)
                    if place is not None:
                        self._roomy[need] = number
                        bus.take(*place, need)
                        return PciAddress(bus=number, slot=place[0], function=place[1])
            if not self.growing:
                raise InternalError("No more available PCI slots", domain=ErrorDomain.DOMAIN)
            start = len(self.buses)
            self._grow(need)

    def _grow(self, need: Connects) -> None:
        """Add the buses that a device with that need calls for."""
        if need & (Connect.PCIE | Connect.UPSTREAM) and self.pcie:
            self.buses.append(Bus(Model.PCIE_ROOT_PORT))
        elif need & (Connect.PCI | Connect.PCIE | Connect.BRIDGE):
            self._grow_conventional()
        elif need & Connect.PCIE_TO_PCI:
            raise no_bus_for(need)
        else:
            word = next((text for flag, text in _WORDS.items() if need & flag), "")
            raise InternalError(
                f"a PCI slot is needed to connect a PCI controller model='{word}', but none is available, and it "
                "cannot be automatically added",
                domain=DOMAIN,
            )
        if len(self.buses) > 256:
            raise InternalError("No more available PCI slots", domain=ErrorDomain.DOMAIN)

    def _needs_port(self, need: Connects) -> bool:
        """A conventional device on a PCI Express board that has no bridge to such devices yet."""
        conventional = bool(need & (Connect.PCI | Connect.BRIDGE)) and not need & Connect.PCIE
        return self.pcie and conventional and not self._has(Model.PCIE_TO_PCI_BRIDGE, Model.DMI_TO_PCI_BRIDGE)

    def _grow_conventional(self) -> None:
        if self.multiple_roots:
            self.buses.append(Bus(Model.PCI_ROOT))
        elif not self.pcie or self._has(Model.PCIE_TO_PCI_BRIDGE, Model.DMI_TO_PCI_BRIDGE):
            self.buses.append(Bus(Model.PCI_BRIDGE))
        elif self.to_pci_bridges:
            port = Bus(Model.PCIE_ROOT_PORT)
            port.functions[0] = 1
            self.buses += [port, Bus(Model.PCIE_TO_PCI_BRIDGE)]
        else:
            self.buses.append(Bus(Model.DMI_TO_PCI_BRIDGE))
            self.buses.append(Bus(Model.PCI_BRIDGE))

    def _has(self, *models: Model) -> bool:
        return any(bus is not None and bus.model in models for bus in self.buses)


def _free_in(bus: Bus, need: Connects, function: int) -> tuple[int, int] | None:
    for slot in range(bus.kind.first, bus.kind.last + 1):
        taken = bus.functions.get(slot, 0)
        if not taken:
            return slot, function
        if need & Connect.SHARE and slot in bus.shared:
            for number in range(FUNCTIONS):
                if not taken >> number & 1:
                    return slot, number
    return None
