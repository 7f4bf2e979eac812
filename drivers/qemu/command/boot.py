"""The order in which the firmware tries devices: <boot order> as it is, else derived from <os><boot dev>."""

from pyvirtd.model.address import Device
from pyvirtd.model.disk import DiskDevice
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.os import BootDevice

_DISKS = {
    DiskDevice.CDROM: BootDevice.CDROM,
    DiskDevice.FLOPPY: BootDevice.FD,
    DiskDevice.DISK: BootDevice.HD,
    DiskDevice.LUN: BootDevice.HD,
}


class BootOrder:
    """Each device's number; only the first device of a kind has that kind's."""

    def __init__(self, definition: DomainDef) -> None:
        self.of: dict[int, int] = {}
        devices = definition.devices
        order = {entry.dev: number for number, entry in reversed(list(enumerate(definition.os.boot, 1)))}
        for disk in devices.disk:
            number = order.pop(_DISKS[disk.device], None) if not explicit(disk) else None
            if number is not None:
                self.of[id(disk)] = number
        # the first of the interfaces and the assigned devices that may be one
        number = order.pop(BootDevice.NETWORK, None)
        if number is not None and devices.interface and not explicit(devices.interface[0]):
            self.of[id(devices.interface[0])] = number
        for device in devices.all():
            given = explicit(device)
            if given:
                self.of[id(device)] = given

    def __call__(self, device: Device) -> int | None:
        return self.of.get(id(device))


def explicit(device: Device) -> int | None:
    """The number that the definition gives."""
    boot = device.info.boot
    return boot.order if boot is not None else None
