"""Where devices sit: `assign_addresses` gives each device that needs an address one, and adds what that takes.

PCI bridges and ports, USB hubs and virtio-serial controllers may be added. Addresses that are given stay; what
contradicts itself raises XmlError.
"""

from pyvirtd.drivers.qemu.addresses import buses
from pyvirtd.drivers.qemu.addresses.pci import assign_pci
from pyvirtd.drivers.qemu.addresses.usb import assign_usb
from pyvirtd.drivers.qemu.addresses.zpci import assign as assign_zpci
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.devices import ControllerType

__all__ = ["assign_addresses"]


def assign_addresses(scope: Scope) -> None:
    """Complete every address of the definition."""
    board = scope.board
    buses.assign_virtio_serial(scope)
    buses.assign_spapr_vio(scope)
    if board.s390:
        buses.assign_ccw(scope)
    if board.virtio_mmio:
        buses.assign_virtio_mmio(scope)
    bridges = [c for c in scope.devices.controller if c.type is ControllerType.PCI]
    assign_pci(scope)
    assign_zpci(scope, bridges)
    assign_usb(scope)
    buses.assign_dimms(scope)
