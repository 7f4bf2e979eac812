"""The buses of disks: one line each. What a device of a bus is to QEMU is in `command/disks.py`."""

from typing import NamedTuple

from pyvirtd.model.devices import ControllerType
from pyvirtd.model.disk import DiskBus


class Places(NamedTuple):
    """A controller's places for disks."""

    buses: int
    units: int


class BusFacts(NamedTuple):
    """`prefix`: what a target's name begins with, for the bus that is meant where none is given.

    The disks of a bus with a `controller` sit behind one, at a drive address that their target's number stands for.
    """

    prefix: str | None = None
    controller: ControllerType | None = None
    places: Places | None = None


# In the order in which missing controllers are made.
BUSES: dict[DiskBus, BusFacts] = {
    DiskBus.SCSI: BusFacts("sd", ControllerType.SCSI, Places(1, 7)),  # of a narrow bus: the eighth is the controller
    DiskBus.FDC: BusFacts("fd", ControllerType.FDC, Places(1, 2)),
    DiskBus.IDE: BusFacts("hd", ControllerType.IDE, Places(2, 2)),
    DiskBus.SATA: BusFacts(None, ControllerType.SATA, Places(1, 6)),
    DiskBus.VIRTIO: BusFacts("vd"),
    DiskBus.USB: BusFacts(),
    DiskBus.XEN: BusFacts("xvd"),
    DiskBus.UML: BusFacts("ubd"),
    DiskBus.SD: BusFacts(),
}
CONTROLLERS = {bus: facts.controller for bus, facts in BUSES.items() if facts.controller is not None}
BUS_OF_PREFIX = {facts.prefix: bus for bus, facts in BUSES.items() if facts.prefix is not None}
