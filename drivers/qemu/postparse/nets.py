"""Defaults of network interfaces and host devices."""

import secrets

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.address import DriveAddress
from pyvirtd.model.devices import Devices
from pyvirtd.model.hostdev import (
    Hostdev,
    HostdevModel,
    HostdevType,
    PciHostAddress,
    PciHostdevSource,
    ScsiHostdevSource,
)
from pyvirtd.model.net import Interface, InterfaceMac, InterfaceType, MacType, NetDriverName

OUI = "52:54:00"  # QEMU's range of locally administered addresses
# Models whose names are the same in any case.
_MODELS = frozenset({"virtio", "virtio-transitional", "virtio-non-transitional", "usb-net", "spapr-vlan", "rtl8139",
                     "e1000", "e1000e", "igb", "netfront", "vmxnet3", "lan9118", "smc91c111", "scm91c111"})  # fmt: skip


_ASSIGNED = (NetDriverName.VFIO, NetDriverName.KVM, NetDriverName.XEN)
_FILTERED = (InterfaceType.NETWORK, InterfaceType.BRIDGE, InterfaceType.ETHERNET)


def generate_mac() -> str:
    """A fresh address in QEMU's range."""
    return OUI + "".join(f":{byte:02x}" for byte in secrets.token_bytes(3))


def complete_interface(scope: Scope, net: Interface) -> None:
    """MAC address and model, and settings that cannot apply left out."""
    if net.mac is None:
        net.mac = InterfaceMac()
    if net.mac.address is None:
        net.mac.address = generate_mac()
    if net.mac.type is MacType.GENERATED and net.mac.address is None:
        net.mac.type = None
    if net.model is None and net.type is not InterfaceType.HOSTDEV:
        net.model = "virtio" if net.type is InterfaceType.VDPA else default_model(scope)
    elif net.model is not None and net.model.lower() in _MODELS:
        net.model = net.model.lower()
    _drop_idle_settings(net)


def _drop_idle_settings(net: Interface) -> None:
    """What means nothing for this type or model, as libvirt leaves it out."""
    virtio = net.model is not None and net.model.startswith("virtio")
    if not virtio or net.type is InterfaceType.HOSTDEV:
        if net.type is not InterfaceType.HOSTDEV or net.driver is None or net.driver.name not in _ASSIGNED:
            net.driver = None
        if net.backend is not None:
            net.backend.vhost = None
    elif net.driver is not None and net.driver.queues in (0, 1):
        net.driver.queues = None
    if net.type is InterfaceType.USER and (net.backend is None or net.backend.type is None):
        net.source = None
    if net.type not in _FILTERED:
        net.filterref = None


def default_model(scope: Scope) -> str:
    """What guests of the board know without a driver of their own, else virtio."""
    board, caps = scope.board, scope.caps
    if board.s390 or board.arm_virt or board.riscv_virt:
        return "virtio"
    if board.arm:
        if board.machine == "versatilepb":
            return "smc91c111"
        return "virtio" if "virt" in board.machine else "lan9118"
    for model, device in (("rtl8139", "rtl8139"), ("e1000", "e1000"), ("virtio", "virtio-net-pci")):
        if caps.has_device(device):
            return model
    return "rtl8139"


def complete_hostdev(scope: Scope, hostdev: Hostdev) -> None:
    """Whether it is managed, and what a model left open."""
    if hostdev.managed is None:
        hostdev.managed = False
    source = hostdev.source
    if isinstance(source, PciHostdevSource) and source.address is None:
        source.address = PciHostAddress()
    _drop_foreign(hostdev)
    if hostdev.type is HostdevType.MDEV and hostdev.model is HostdevModel.VFIO_PCI and hostdev.display is None:
        hostdev.display = False
    if isinstance(source, ScsiHostdevSource) and source.name and "/" not in source.name:
        source.name += "/0"
    if hostdev.type is HostdevType.SCSI and hostdev.info.address is None:
        hostdev.info.address = _free_scsi_address(scope.devices)


def _drop_foreign(hostdev: Hostdev) -> None:
    """Settings of another type's devices."""
    if hostdev.type is not HostdevType.MDEV:
        hostdev.display = hostdev.ramfb = None
    if hostdev.type is not HostdevType.PCI:
        hostdev.driver = None
    if hostdev.type is not HostdevType.SCSI:
        hostdev.readonly = hostdev.shareable = False
    if hostdev.model is HostdevModel.VFIO_AP:
        hostdev.info.address = None


def _free_scsi_address(devices: Devices) -> DriveAddress:
    """The first place that no other SCSI device of the definition has."""
    taken = set()
    for device in (*devices.disk, *devices.hostdev):
        address = device.info.address
        if isinstance(address, DriveAddress):
            taken.add((address.controller, address.unit))
    for controller in range(256):
        for unit in range(16):
            if unit != 7 and (controller, unit) not in taken:
                return DriveAddress(controller=controller, unit=unit)
    raise ConfigUnsupported("No free SCSI address", domain=ErrorDomain.DOMAIN)
