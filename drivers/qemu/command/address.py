"""Properties that say where a device sits and how it boots."""

from pyvirtd.drivers.qemu.command.context import Builder, Props
from pyvirtd.drivers.qemu.postparse.controllers import find
from pyvirtd.model.address import (
    Address,
    CcidAddress,
    CcwAddress,
    Device,
    DeviceInfo,
    DimmAddress,
    DriveAddress,
    IsaAddress,
    PciAddress,
    SpaprVioAddress,
    UsbAddress,
    VirtioMmioAddress,
    VirtioOptions,
    VirtioSerialAddress,
)
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type


def on_off(value: bool | None) -> str | None:
    """ "on", "off", or nothing."""
    return None if value is None else "on" if value else "off"


def put_address(build: Builder, props: Props, info: DeviceInfo) -> None:
    """The place of a device on its bus."""
    match info.address:
        case PciAddress() as address:
            _put_pci(build, props, address, info)
        case UsbAddress() as address:
            bus = find(build.definition.devices, Type.USB, address.bus)
            alias = bus.info.alias if bus else f"usb{address.bus}"
            props.put("bus", f"{alias}.0").put("port", address.port)
        case CcwAddress(cssid=cssid, ssid=ssid, devno=devno):
            props.put("devno", f"{cssid or 0:x}.{ssid or 0:x}.{devno or 0:04x}")
        case SpaprVioAddress(reg=reg):
            props.put("reg", reg)
        case IsaAddress(iobase=iobase, irq=irq):
            props.put("iobase", iobase).put("irq", irq)
        case DimmAddress(slot=slot, base=base):
            props.put("slot", slot).put("addr", base or None)
        case _:
            pass
    put_rom(props, info)


def _put_pci(build: Builder, props: Props, address: PciAddress, info: DeviceInfo) -> None:
    props.put("bus", pci_bus(build, address.bus))
    if address.multifunction is not None:
        props.put("multifunction", address.multifunction)
    function = f".0x{address.function:x}" if address.function else ""
    props.put("addr", f"0x{address.slot:x}{function}")
    if info.acpi_index:
        props.put("acpi-index", info.acpi_index)


def pci_bus(build: Builder, number: int) -> str:
    """QEMU's name of a bus: the controller's, but for host bridges of the pseries machine and the board's own bus."""
    board = build.board
    if number == 0:
        return "pcie.0" if board.pcie else "pci.0" if board.many_pci_buses else "pci"
    controller = find(build.definition.devices, Type.PCI, number)
    alias = (controller.info.alias if controller else None) or f"pci.{number}"
    if controller is not None and controller.model is Model.PCI_ROOT and number:
        return f"{alias}.0"
    return alias


def put_rom(props: Props, info: DeviceInfo) -> None:
    """The option ROM: hidden, of a file, or none."""
    if info.rom is None or not isinstance(info.address, PciAddress):
        return
    if info.rom.enabled is False:
        props.put("romfile", "")
        return
    if info.rom.bar is not None:
        props.put("rombar", 1 if info.rom.bar else 0)
    props.put("romfile", info.rom.file)


def virtio_suffix(build: Builder, address: Address | None) -> str:
    """The last part of a virtio device's type: the bus it sits on."""
    match address:
        case CcwAddress():
            return "ccw"
        case VirtioMmioAddress():
            return "device"
        case _:
            return "pci"


def virtio_driver(build: Builder, base: str, device: Device, model: object = None) -> str:
    """A device type such as "virtio-net-pci" or "virtio-net-pci-non-transitional"."""
    word = f"{base}-{virtio_suffix(build, device.info.address)}"
    text = str(model) if model is not None else "virtio"
    if text.endswith("-non-transitional"):
        return f"{word}-non-transitional"
    return f"{word}-transitional" if text.endswith("-transitional") else word


def put_virtio(props: Props, options: VirtioOptions | None) -> None:
    """What the definition says about a virtio device's rings."""
    if options is None:
        return
    props.put("iommu_platform", options.iommu).put("ats", options.ats).put("packed", options.packed)
    props.put("page-per-vq", options.page_per_vq)


# Controllers that tell drives apart by the unit alone.
_ONE_UNIT = (None, Model.LSILOGIC, Model.DC390, Model.AM53C974)


def put_scsi_address(build: Builder, props: Props, address: DriveAddress) -> None:
    """The place of a drive on its SCSI controller."""
    controller = find(build.definition.devices, Type.SCSI, address.controller)
    alias = controller.info.alias if controller is not None else None
    props.put("bus", f"{alias or f'scsi{address.controller}'}.0")
    if controller is not None and controller.model in _ONE_UNIT:
        props.put("scsi-id", address.unit)
    else:
        props.put("channel", address.bus).put("scsi-id", address.target).put("lun", address.unit)


def serial_bus(build: Builder, address: object) -> str | None:
    """The bus of a virtio serial port."""
    if not isinstance(address, VirtioSerialAddress):
        return None
    controller = find(build.definition.devices, Type.VIRTIO_SERIAL, address.controller)
    alias = (controller.info.alias if controller else None) or f"virtio-serial{address.controller}"
    return f"{alias}.{address.bus}"


def ccid_bus(build: Builder, address: object) -> str:
    """The bus of a smart card."""
    number = address.controller if isinstance(address, CcidAddress) else 0
    controller = find(build.definition.devices, Type.CCID, number)
    return f"{(controller.info.alias if controller else None) or f'ccid{number}'}.0"
