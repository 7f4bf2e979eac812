"""What the host's network devices of guests counted."""

from typing import NamedTuple

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import InternalError, InvalidArg
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.net import Interface, InterfaceType
from pyvirtd.util.values import parse_mac

COUNTERS = "/proc/net/dev"
# The host's end is the guest's own view there; at a tap what the guest sends is what the host receives.
SAME_VIEW = frozenset((InterfaceType.DIRECT,))


class Counters(NamedTuple):
    """A guest's interface, as the guest sees it."""

    rx_bytes: int
    rx_packets: int
    rx_errs: int
    rx_drop: int
    tx_bytes: int
    tx_packets: int
    tx_errs: int
    tx_drop: int

    def swapped(self) -> "Counters":
        """The same from the other end."""
        return Counters(*self[4:], *self[:4])


def read_counters() -> dict[str, Counters]:
    """The counters of every device of the host, from the host's side."""
    with open(COUNTERS, encoding="ascii", errors="replace") as file:
        return parse_counters(file.read())


def parse_counters(text: str) -> dict[str, Counters]:
    """proc(5) /proc/net/dev: two lines of heading, then eight numbers received and eight sent."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        fields = [int(word) for word in numbers.split()]
        found[name.strip()] = Counters(*fields[:4], *fields[8:12])
    return found


def device_of(interface: Interface) -> str:
    """The host's device of a running guest's interface, "" where QEMU itself is the other end."""
    return (interface.target.dev if interface.target is not None else None) or ""


def guest_view(interface: Interface, counters: Counters) -> Counters:
    """The guest's side of the host's counters."""
    return counters if interface.type in SAME_VIEW else counters.swapped()


def find_interface(definition: DomainDef, name: str) -> Interface:
    """The interface with this device name or MAC address. Raises InvalidArg."""
    found = [interface for interface in definition.devices.interface if _is(interface, name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InvalidArg(f"multiple interfaces match '{name}'", domain=From.DOMAIN)
    raise InvalidArg(f"'{name}' is not a known interface", domain=From.DOMAIN)


def _is(interface: Interface, name: str) -> bool:
    if name and device_of(interface) == name:
        return True
    address = interface.mac.address if interface.mac is not None else None
    try:
        return address is not None and parse_mac(address) == parse_mac(name)
    except InvalidArg:
        return False


def interface_counters(interface: Interface) -> Counters:
    """The counters of one running interface. Raises InternalError where the host has none."""
    device = device_of(interface)
    if not device:
        raise InternalError("Interface name not provided")
    counters = read_counters().get(device)
    if counters is None:
        raise InternalError(f"{COUNTERS}: Interface not found")
    return guest_view(interface, counters)
