"""Rules of host devices that the guest gets."""

from pyvirtd.drivers.qemu.postparse.aliases import narrow_scsi
from pyvirtd.drivers.qemu.postparse.refuse import qemu_internal, qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.validate.disks import check_controller_number
from pyvirtd.model.address import Address, CcwAddress, DriveAddress, PciAddress, UnassignedAddress, UsbAddress
from pyvirtd.model.disk import SgIo
from pyvirtd.model.hostdev import (
    Hostdev,
    HostdevMode,
    HostdevModel,
    HostdevType,
    MdevSource,
    PciHostdevSource,
    ScsiHostdevSource,
    ScsiProtocol,
    UsbHostdevSource,
    VhostScsiSource,
)
from pyvirtd.model.net import Teaming, TeamingType

_VFIO_DEVICES = {HostdevModel.VFIO_CCW: ("vfio-ccw", "VFIO CCW"), HostdevModel.VFIO_AP: ("vfio-ap", "VFIO AP"),
                 HostdevModel.VFIO_PCI: ("vfio-pci", "VFIO PCI")}  # fmt: skip


def check_hostdevs(scope: Scope) -> None:
    """Every host device, and that none is given twice."""
    seen: set[tuple[object, ...]] = set()
    _check_drives(scope)
    for hostdev in scope.devices.hostdev:
        key = _identity(hostdev)
        if key and key in seen:
            raise xml("Hostdev already exists in the domain configuration")
        seen.add(key)
        if hostdev.mode is HostdevMode.CAPABILITIES:
            raise qemu_unsupported("hostdev mode 'capabilities' is not supported in qemu")
        _check_address(scope, hostdev)
        match hostdev.source:
            case PciHostdevSource(write_filtering=filtering) if filtering is not None:
                raise qemu_unsupported("Write filtering of PCI device configuration space is not supported by qemu")
            case MdevSource():
                _check_mdev(scope, hostdev)
            case VhostScsiSource() if hostdev.info.boot is not None:
                raise qemu_unsupported("booting from assigned devices is not supported by vhost SCSI devices")
            case _:
                pass
        if hostdev.sgio is SgIo.UNFILTERED:
            raise unsupported("unfiltered sgio is no longer supported")
    if sum(1 for hostdev in scope.devices.hostdev if hostdev.ramfb) > 1:
        raise unsupported("Only one vgpu device can have 'ramfb' enabled")
    if sum(1 for hostdev in scope.devices.hostdev if hostdev.model is HostdevModel.VFIO_AP) > 1:
        raise qemu_unsupported("Only one hostdev of model vfio-ap is supported")


def _check_drives(scope: Scope) -> None:
    """No two SCSI devices in one place."""
    taken: list[Address] = []
    for hostdev in scope.devices.hostdev:
        address = hostdev.info.address
        if hostdev.type is HostdevType.SCSI and isinstance(address, DriveAddress):
            if address in taken:
                raise unsupported(
                    f"SCSI host address controller='{address.controller}' bus='{address.bus}' "
                    f"target='{address.target}' unit='{address.unit}' in use by another SCSI host device"
                )
            taken.append(address)


def _identity(hostdev: Hostdev) -> tuple[object, ...]:
    """What makes two entries the same device; () where that is unknown."""
    match hostdev.source:
        case PciHostdevSource(address=a) if a is not None:
            return ("pci", a.domain, a.bus, a.slot, a.function)
        case UsbHostdevSource(address=a) if a is not None and a.device:
            return ("usb", a.bus, a.device)
        case UsbHostdevSource(vendor=vendor, product=product) if vendor is not None and product is not None:
            return ("usb", "id", vendor.id, product.id)
        case MdevSource(address=a) if a is not None:
            return ("mdev", a.uuid)
        case ScsiHostdevSource(protocol=ScsiProtocol.ISCSI) as iscsi:
            return ("iscsi", iscsi.name, iscsi.host[0].name if iscsi.host else None)
        case ScsiHostdevSource(address=a) as scsi if a is not None:
            return ("scsi", scsi.adapter, a.bus, a.target, a.unit)
        case VhostScsiSource(wwpn=wwpn):
            return ("vhost", wwpn)
        case _:
            return ()


def _check_teaming(hostdev: Hostdev, teaming: Teaming) -> None:
    """A passed-through card is the fast half of a pair."""
    if hostdev.type is not HostdevType.PCI:
        raise unsupported("teaming is only supported for pci hostdev devices")
    if teaming.type is not TeamingType.TRANSIENT:
        raise unsupported("teaming hostdev devices must have type='transient'")
    if not teaming.persistent:
        raise unsupported("missing required persistent attribute in hostdev teaming element")


def _check_address(scope: Scope, hostdev: Hostdev) -> None:
    address, kind = hostdev.info.address, hostdev.type
    if hostdev.teaming is not None:
        _check_teaming(hostdev, hostdev.teaming)
    if address is None:
        return
    word = address.case[0]
    if kind is HostdevType.SCSI:
        if not isinstance(address, DriveAddress):
            raise unsupported("SCSI host device must use 'drive' address type")
        check_controller_number(address)
        if address.bus:
            raise qemu_internal("SCSI controller only supports 1 bus")
        if narrow_scsi(scope.devices, address.controller) and address.target:
            raise qemu_unsupported("target must be 0 for controller model 'lsilogic'")
    if kind is HostdevType.SCSI_HOST and not isinstance(address, PciAddress | CcwAddress):
        raise unsupported("SCSI_host host device must use 'pci' or 'ccw' address type")
    if kind is HostdevType.USB and not isinstance(address, UsbAddress | UnassignedAddress):
        raise unsupported("USB host device must use 'usb' address type")
    if kind is HostdevType.PCI and not isinstance(address, PciAddress | UnassignedAddress):
        raise unsupported("PCI host devices must use 'pci' or 'unassigned' address type")
    wanted = {HostdevModel.VFIO_PCI: PciAddress, HostdevModel.VFIO_CCW: CcwAddress}.get(
        hostdev.model or HostdevModel.VIRTIO
    )
    if kind is HostdevType.MDEV and wanted is not None and not isinstance(address, wanted):
        raise xml(f"Unsupported address type '{word}' with mediated device model '{hostdev.model}'")


def _check_mdev(scope: Scope, hostdev: Hostdev) -> None:
    model = hostdev.model or HostdevModel.VFIO_PCI
    device, words = _VFIO_DEVICES.get(model, ("", str(model)))
    if not scope.caps.has_device(device):
        raise qemu_unsupported(f"{words} device assignment is not supported by this version of QEMU")
    if hostdev.info.boot is not None and model is not HostdevModel.VFIO_CCW:
        raise qemu_unsupported(f"booting from assigned devices is not supported by mediated devices of model {model}")
    if hostdev.display and model is HostdevModel.VFIO_PCI and not scope.devices.graphics:
        raise qemu_unsupported("graphics device is needed for attribute value 'display=on' in <hostdev>")
