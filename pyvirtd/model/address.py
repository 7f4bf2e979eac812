"""Where a device sits in the guest, and what every device may have beside its own part.

https://libvirt.org/formatdomain.html#device-addresses
"""

import re
from typing import Any

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import InternalError, XmlError
from pyvirtd.model.refusals import internal
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, Element, View, attr, child, flag, group, via
from pyvirtd.xml.types import (
    U32,
    Hex1,
    Hex8,
    Hex16,
    Hex32,
    HexShort,
    OnOff,
    Positive32,
    UsbPort,
    YesNo,
)

USER_ALIAS = "ua-"  # aliases with this prefix are the user's and kept in the definition


class ZpciAddress(Element, tag="zpci"):
    """The s390 part of a PCI address."""

    uid: Hex16 | None = attr()
    fid: Hex32 | None = attr()


class OrigStates(Element, tag="origstates"):
    """What is to be done with a PCI device of the host when the guest is gone: the state file's alone."""

    unbind: bool = flag()
    removeslot: bool = flag()
    reprobe: bool = flag()


class PciNumbers(Element):
    """Domain, bus, slot and function, as guests and hosts share them."""

    domain: Hex16 = attr(0)
    bus: Hex8 = attr(0)
    slot: Hex8 = attr(0)
    function: Hex1 = attr(0)

    def parsed(self, node: Node, view: View) -> None:
        check_pci(self.bus, self.slot, self.function)


def check_pci(bus: int, slot: int, function: int) -> None:
    """Raises XmlError when a part is out of range."""
    if bus > 0xFF:
        raise XmlError(f"Invalid PCI address bus='0x{bus:x}', must be <= 0xFF")
    if slot > 0x1F:
        raise XmlError(f"Invalid PCI address slot='0x{slot:x}', must be <= 0x1F")
    if function > 7:
        raise XmlError(f"Invalid PCI address function=0x{function:x}, must be <= 7")


class Address(Element, tag="address", by="type"):
    """Base of all device addresses."""


def _placed(address: Any) -> bool:
    return not address.auto


class PciAddress(Address, case="pci"):
    """A place on a PCI bus. One that is `auto` was asked for by type only and has no place yet."""

    domain: Hex16 = attr(0, show=_placed)
    bus: Hex8 = attr(0, show=_placed)
    slot: Hex8 = attr(0, show=_placed)
    function: Hex1 = attr(0, show=_placed)
    multifunction: OnOff | None = attr(show=_placed)
    zpci: ZpciAddress | None = child()

    def parsed(self, node: Node, view: View) -> None:
        check_pci(self.bus, self.slot, self.function)

    @property
    def auto(self) -> bool:
        """Nothing but the type is given: a place is still to be found."""
        return not (self.domain or self.bus or self.slot)


class DriveAddress(Address, case="drive"):
    controller: U32 = attr(0)
    bus: U32 = attr(0)
    target: U32 = attr(0)
    unit: U32 = attr(0)


class VirtioSerialAddress(Address, case="virtio-serial"):
    controller: U32 = attr(0)
    bus: U32 = attr(0)
    port: U32 | None = attr(0)


class CcidAddress(Address, case="ccid"):
    controller: U32 = attr(0)
    slot: U32 = attr(0)


class UsbAddress(Address, case="usb"):
    """`port` is dotted, "1.2" being port 2 of the hub at port 1; without it none is chosen yet."""

    bus: U32 = attr(0)
    port: UsbPort | None = attr(bad=internal("Cannot parse <address> 'port' attribute", ErrorDomain.DEVICE))


class SpaprVioAddress(Address, case="spapr-vio"):
    reg: Hex32 | None = attr()


CCW_MAX_CSSID, CCW_MAX_SSID, CCW_MAX_DEVNO = 254, 3, 65535


class CcwAddress(Address, case="ccw"):
    """A device on a channel subsystem: all three numbers or none."""

    cssid: Hex1 | None = attr()
    ssid: Hex1 | None = attr()
    devno: Hex16 | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        cssid, ssid, devno = self.cssid, self.ssid, self.devno
        if cssid is not None and ssid is not None and devno is not None:
            if cssid > CCW_MAX_CSSID or ssid > CCW_MAX_SSID or devno > CCW_MAX_DEVNO:
                raise InternalError(
                    f"Invalid specification for virtio ccw address: cssid='0x{cssid:x}' ssid='0x{ssid:x}' "
                    f"devno='0x{devno:04x}'",
                    domain=ErrorDomain.DEVICE,
                )
        elif not (cssid is None and ssid is None and devno is None):
            raise InternalError("Invalid partial specification for virtio ccw address", domain=ErrorDomain.DEVICE)


class IsaAddress(Address, case="isa"):
    iobase: Hex1 | None = attr()
    irq: Hex1 | None = attr()


class VirtioMmioAddress(Address, case="virtio-mmio"):
    pass


class DimmAddress(Address, case="dimm"):
    slot: U32 | None = attr(required=True)
    base: HexShort | None = attr()


class UnassignedAddress(Address, case="unassigned"):
    """The device stays in the definition but is not given to the guest."""


AnyAddress = (
    PciAddress
    | DriveAddress
    | VirtioSerialAddress
    | CcidAddress
    | UsbAddress
    | SpaprVioAddress
    | CcwAddress
    | IsaAddress
    | VirtioMmioAddress
    | DimmAddress
    | UnassignedAddress
)


MAX_LOADPARM = 8


class Boot(Element, tag="boot"):
    """Place in the boot order, 1 first."""

    order: Positive32 | None = attr(required=True)
    loadparm: str | None = attr()

    def parsed(self, node: Node, view: View) -> None:
        """s390's boot parameter is upper case."""
        word = self.loadparm
        if word is None:
            return
        if not 1 <= len(word) <= MAX_LOADPARM:
            raise InternalError(
                f"loadparm value '{word[:1024]}' must be between 1 and {MAX_LOADPARM} characters",
                domain=ErrorDomain.DOMAIN,
            )
        if not re.fullmatch(r"[a-zA-Z0-9. ]+", word):
            raise InternalError(
                f"invalid loadparm value '{word}', expecting chars in set of [a-zA-Z0-9.] and blank spaces",
                domain=ErrorDomain.DOMAIN,
            )
        self.loadparm = word.upper()


class Rom(Element, tag="rom"):
    """The option ROM of a PCI device."""

    enabled: YesNo | None = attr()
    bar: OnOff | None = attr()
    file: str | None = attr()


def is_user_alias(alias: Any) -> bool:
    """Whether an alias belongs to the definition rather than to one run."""
    return str(alias).startswith(USER_ALIAS)


class DeviceInfo(Element):
    """What every device may have; printed last by most. `master` is for companion USB controllers only."""

    boot: Boot | None = child()
    alias: str | None = via("alias", "name", view=LIVE, keep=is_user_alias)
    master: U32 | None = via("master", "startport")
    rom: Rom | None = child()
    acpi_index: U32 | None = via("acpi", "index", omit=0)
    address: AnyAddress | None = child(
        required=internal("No type specified for device address"), bad="unknown address type '{}'"
    )


class Device(Element):
    """Base of everything in <devices> that may have an alias and an address."""

    info: DeviceInfo = group()


class VirtioOptions(Element):
    """Attributes of <driver> that all virtio devices share."""

    iommu: OnOff | None = attr()
    ats: OnOff | None = attr()
    packed: OnOff | None = attr()
    page_per_vq: OnOff | None = attr()


class VirtioDriver(Element, tag="driver"):
    """A <driver> with nothing but the virtio options."""

    virtio: VirtioOptions = group()
