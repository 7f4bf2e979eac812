"""uid and fid of PCI devices on s390: how the guest's firmware tells them apart."""

from collections.abc import Sequence

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.addresses.order import walk
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported, InternalError, XmlError
from pyvirtd.model.address import Device, PciAddress, ZpciAddress
from pyvirtd.model.chardev import Serial
from pyvirtd.model.devices import Controller, ControllerType

MAX_UID = 0xFFFF


def assign(scope: Scope, bridges: Sequence[Controller]) -> None:
    """Numbers for every PCI device of an s390 guest, bridges among them. Raises where a number is given twice."""
    if not scope.board.s390:
        places = ((device, device.info.address) for device in scope.devices.all())
        if any(isinstance(at, PciAddress) and at.zpci and not isinstance(one, Serial) for one, at in places):
            raise ConfigUnsupported("This QEMU binary doesn't support zPCI", domain=ErrorDomain.QEMU)
        return
    given_bridges = {id(bridge) for bridge in bridges}
    found: list[tuple[Device, PciAddress]] = []
    for device in walk(scope.devices):
        address = device.info.address
        if not isinstance(address, PciAddress) or isinstance(device, Serial):  # libvirt gives serial ports none
            continue
        if isinstance(device, Controller) and device.type is ControllerType.PCI and id(device) not in given_bridges:
            continue  # added by us
        found.append((device, address))
    uids: set[int] = set()
    fids: set[int] = set()
    given = [address.zpci for _, address in found if address.zpci is not None]
    for zpci in given:
        _reserve(zpci, uids, fids)
    for zpci in given:
        _complete(zpci, uids, fids)
    for _, address in found:
        if address.zpci is None:
            address.zpci = ZpciAddress()
            _complete(address.zpci, uids, fids)


def _complete(zpci: ZpciAddress, uids: set[int], fids: set[int]) -> None:
    """The lowest free numbers."""
    if zpci.uid is None:
        zpci.uid = next(number for number in range(1, MAX_UID + 1) if number not in uids)
        uids.add(zpci.uid)
    if zpci.fid is None:
        zpci.fid = next(number for number in range(len(fids) + 1) if number not in fids)
        fids.add(zpci.fid)


def _reserve(zpci: ZpciAddress, uids: set[int], fids: set[int]) -> None:
    if zpci.uid is not None:
        if not 0 < zpci.uid <= MAX_UID:
            raise XmlError(
                f"Invalid PCI address uid='0x{zpci.uid:04x}', must be > 0x0000 and <= 0xffff", domain=ErrorDomain.QEMU
            )
        if zpci.uid in uids:
            raise InternalError(f"zPCI uid {zpci.uid:o} is already reserved", domain=ErrorDomain.DOMAIN)
        uids.add(zpci.uid)
    if zpci.fid is not None:
        if zpci.fid in fids:
            raise InternalError(f"zPCI fid {zpci.fid:o} is already reserved", domain=ErrorDomain.DOMAIN)
        fids.add(zpci.fid)
