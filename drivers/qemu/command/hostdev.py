"""Host devices given to the guest."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.command.address import put_address, put_scsi_address, virtio_driver
from pyvirtd.drivers.qemu.command.block import last_node
from pyvirtd.drivers.qemu.command.boot import BootOrder
from pyvirtd.drivers.qemu.command.context import Builder, Props
from pyvirtd.drivers.qemu.command.host_facts import VHOST_SCSI
from pyvirtd.drivers.qemu.command.storage import iscsi_props, put_auth
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.address import DeviceInfo, DriveAddress, PciNumbers
from pyvirtd.model.hostdev import (
    Hostdev,
    HostdevModel,
    HostdevType,
    MdevSource,
    PciHostAddress,
    PciHostdevSource,
    ScsiHostdevSource,
    ScsiProtocol,
    UsbHostAddress,
    UsbHostdevSource,
    VhostScsiSource,
)
from pyvirtd.model.net import HostdevNetSource, HostPciAddress, HostUsbAddress, Interface, InterfaceType
from pyvirtd.model.storage import NetworkSource, StorageProtocol

QEMU = ErrorDomain.QEMU


def pci_name(address: PciNumbers) -> str:
    """ "0000:06:12.5" """
    return f"{address.domain:04x}:{address.bus:02x}:{address.slot:02x}.{address.function:x}"


def no_vhost_scsi(path: str = VHOST_SCSI) -> ConfigUnsupported:
    """The error of a host that has no targets of its kernel."""
    return ConfigUnsupported(f"vhost-scsi device file '{path}' cannot be found", domain=ErrorDomain.NONE)


def of_interface(net: Interface) -> Hostdev:
    """The assigned device behind an interface of type hostdev."""
    source = net.source.address if isinstance(net.source, HostdevNetSource) else None
    info = DeviceInfo()
    if isinstance(source, HostPciAddress):
        numbers = PciHostAddress(domain=source.domain, bus=source.bus, slot=source.slot, function=source.function)
        return Hostdev(type=HostdevType.PCI, source=PciHostdevSource(address=numbers), info=info)
    if isinstance(source, HostUsbAddress):
        usb = UsbHostAddress(bus=source.bus, device=source.device)
        return Hostdev(type=HostdevType.USB, source=UsbHostdevSource(address=usb), info=info)
    raise ConfigUnsupported("an interface of type 'hostdev' needs a host device", domain=QEMU)


def build_hostdevs(build: Builder, order: BootOrder) -> None:
    """-device of every host device"""
    for net in build.definition.devices.interface:
        if net.type is InterfaceType.HOSTDEV:
            _interface(build, net, order)
    for hostdev in build.definition.devices.hostdev:
        build.device(hostdev_props(build, hostdev, order))


def _interface(build: Builder, net: Interface, order: BootOrder) -> None:
    source = net.source
    if not isinstance(source, HostdevNetSource) or not isinstance(source.address, HostPciAddress):
        raise ConfigUnsupported("an interface of type 'hostdev' needs a PCI device", domain=QEMU)
    props = Props(driver="vfio-pci", host=pci_name(source.address), id=net.info.alias).put("bootindex", order(net))
    props.put("failover_pair_id", net.teaming.persistent if net.teaming else None)
    put_address(build, props, net.info)
    build.device(props)


def hostdev_props(build: Builder, hostdev: Hostdev, order: BootOrder) -> Props:
    """The device of one host device."""
    match hostdev.source:
        case PciHostdevSource(address=address) if address is not None:
            props = Props(driver="vfio-pci", host=pci_name(address), id=hostdev.info.alias)
            props.put("bootindex", order(hostdev))
            props.put("failover_pair_id", hostdev.teaming.persistent if hostdev.teaming else None)
        case UsbHostdevSource() as source:
            props = _usb(source, hostdev).put("bootindex", order(hostdev))
        case MdevSource() as mdev:
            props = _mdev(hostdev, mdev).put("bootindex", order(hostdev))
        case ScsiHostdevSource() as scsi:
            props = _scsi(build, hostdev, scsi).put("bootindex", order(hostdev))
        case VhostScsiSource() as vhost:
            fd = build.context.files.get(hostdev.info.alias or "")
            if build.context.standalone and not build.context.host.vhost_scsi:
                raise no_vhost_scsi()
            props = Props(driver=virtio_driver(build, "vhost-scsi", hostdev, hostdev.model), wwpn=vhost.wwpn)
            props.put("vhostfd", str(fd) if fd is not None else None).put("id", hostdev.info.alias)
        case _:
            raise ConfigUnsupported(f"hostdev type '{hostdev.type}' is not supported", domain=QEMU)
    put_address(build, props, hostdev.info)
    return props


def _scsi(build: Builder, hostdev: Hostdev, source: ScsiHostdevSource) -> Props:
    """A node for the host's device or the iSCSI unit, and the guest's device that passes commands on to it."""
    alias, address = hostdev.info.alias, hostdev.info.address
    assert isinstance(address, DriveAddress)
    others = [one for one in build.definition.devices.hostdev if isinstance(one.source, ScsiHostdevSource)]
    name = f"libvirt-{last_node(build.definition) + 1 + others.index(hostdev)}"
    if source.protocol is ScsiProtocol.ISCSI:
        unit = NetworkSource(
            protocol=StorageProtocol.ISCSI, name=source.name, host=source.host, initiator=source.initiator
        )
        node = iscsi_props(unit)
        put_auth(build, node, unit, source.auth, f"{name}-backend")
    else:
        node = Props(driver="host_device", filename=build.context.host.scsi_devices[alias or ""])
    node.put("node-name", f"{name}-backend").put("read-only", hostdev.readonly)
    build.command.add("-blockdev", node.text())
    props = Props(driver="scsi-generic", drive=f"{name}-backend", id=alias)
    put_scsi_address(build, props, address)
    return props.put("share-rw", True if hostdev.shareable else None)


def _usb(source: UsbHostdevSource, hostdev: Hostdev) -> Props:
    props = Props(driver="usb-host")
    address = source.address
    if address is not None and address.device is not None:
        props.put("hostdevice", f"/dev/bus/usb/{address.bus or 0:03d}/{address.device:03d}")
    else:
        props.put("vendorid", source.vendor.id if source.vendor else None)
        props.put("productid", source.product.id if source.product else None)
    props.put("id", hostdev.info.alias)
    if source.guest_reset is not None:
        resets = {"off": (False, True), "uninitialized": (True, False), "on": (True, True)}
        allowed, all_ = resets[str(source.guest_reset)]
        props.put("guest-reset", allowed).put("guest-resets-all", all_ if allowed else None)
    return props


def _mdev(hostdev: Hostdev, source: MdevSource) -> Props:
    uuid = source.address.uuid if source.address else None
    drivers = {HostdevModel.VFIO_CCW: "vfio-ccw", HostdevModel.VFIO_AP: "vfio-ap"}
    driver = drivers.get(hostdev.model, "vfio-pci") if hostdev.model else "vfio-pci"
    if hostdev.ramfb:
        driver = "vfio-pci-nohotplug"
    props = Props(driver=driver, id=hostdev.info.alias, sysfsdev=f"/sys/bus/mdev/devices/{uuid}")
    if hostdev.display is not None:
        props.put("display", "on" if hostdev.display else "off")
    if hostdev.ramfb:
        props.put("ramfb", True)
    return props
