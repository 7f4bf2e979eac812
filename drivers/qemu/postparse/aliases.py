"""The names of devices in a running guest: how QMP, events and the live XML refer to them."""

from pyvirtd.drivers.qemu.postparse.board import Board
from pyvirtd.drivers.qemu.postparse.chardevs import mirrors_serial
from pyvirtd.model.address import Device, DimmAddress, DriveAddress, PciAddress
from pyvirtd.model.chardev import Rng
from pyvirtd.model.devices import Controller, Devices, MemoryModel
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.disk import Disk, DiskBus
from pyvirtd.model.domain import DomainDef

# Lists of devices whose names are the prefix and their place in the list.
_COUNTED = (
    ("filesystem", "fs"),
    ("sound", "sound"),
    ("hostdev", "hostdev"),
    ("redirdev", "redir"),
    ("video", "video"),
    ("serial", "serial"),
    ("parallel", "parallel"),
    ("channel", "channel"),
    ("console", "console"),
    ("hub", "hub"),
    ("shmem", "shmem"),
    ("smartcard", "smartcard"),
    ("input", "input"),
    ("interface", "net"),
    ("rng", "rng"),
    ("tpm", "tpm"),
    ("watchdog", "watchdog"),
    ("crypto", "crypto"),
)


def assign_aliases(definition: DomainDef) -> None:
    """Give every device its name, as libvirt does at start. Names that the definition holds stay."""
    devices, board = definition.devices, Board.of(definition)
    for disk in devices.disk:
        _name(disk, disk_alias(disk, devices))
    for field, prefix in _COUNTED:
        for number, device in enumerate(getattr(devices, field)):
            _name(device, f"{prefix}{number}")
    for controller in devices.controller:
        _name(controller, controller_alias(controller, devices, board))
    for device, name in (
        (devices.balloon, "balloon0"),
        (devices.nvram, "nvram"),
        (devices.vsock, "vsock0"),
        (devices.iommu, "iommu0"),
        (devices.pstore, "pstore0"),
    ):
        if device is not None:
            _name(device, name)
    _name_memory(devices)
    if devices.console and mirrors_serial(devices, devices.console[0]):
        devices.console[0].info.alias = devices.serial[0].info.alias


def _name(device: Device, alias: str) -> None:
    if device.info.alias is None:
        device.info.alias = alias


def _name_memory(devices: Devices) -> None:
    prefixes = {
        MemoryModel.DIMM: "dimm",
        MemoryModel.NVDIMM: "nvdimm",
        MemoryModel.VIRTIO_PMEM: "virtiopmem",
        MemoryModel.VIRTIO_MEM: "virtiomem",
        MemoryModel.SGX_EPC: "epc",
    }
    counts: dict[str, int] = {}
    for device in devices.memory:
        prefix = prefixes[device.model]
        address = device.info.address
        number = counts.get(prefix, 0)
        counts[prefix] = number + 1
        if isinstance(address, DimmAddress) and address.slot is not None:
            number = address.slot
        _name(device, f"{prefix}{number}")


def disk_alias(disk: Disk, devices: Devices) -> str:
    """By its place on the bus, "sata0-0-1"; by its number among the disks of a virtio bus."""
    bus, address = disk.target.bus, disk.info.address
    if isinstance(address, DriveAddress):
        place = f"{bus}{address.controller}-{address.bus}-"
        if bus is DiskBus.SCSI and not narrow_scsi(devices, address.controller):
            place += f"{address.target}-"
        return place + str(address.unit)
    index = _target_number(disk)
    return f"{bus}-disk{index}"


def _target_number(disk: Disk) -> int:
    from pyvirtd.drivers.qemu.postparse.disks import target_index

    return target_index(disk.target.dev or "") or 0


def narrow_scsi(devices: Devices, controller: int) -> bool:
    """An LSI controller: its disks have no target number of their own."""
    for other in devices.controller:
        if other.type is Type.SCSI and other.index == controller:
            return other.model is Model.LSILOGIC
    return False


def controller_alias(controller: Controller, devices: Devices, board: Board) -> str:
    """The board's own buses keep QEMU's names."""
    index = controller.index or 0
    if controller.type is Type.PCI:
        if controller.model is Model.PCIE_ROOT:
            return f"pcie.{index}"
        return f"pci.{index}" if not (index == 0 and not board.pcie) else "pci.0"
    if controller.type is Type.IDE and index == 0 and (board.builtin_ide or board.q35):
        return "ide"
    if controller.type is Type.SATA and index == 0 and board.q35:
        return "ide"  # QEMU's name of the first bus of the ICH9's controller
    if controller.type is Type.USB:
        if index == 0 and _counts(devices, Type.USB, 0):
            return "usb"
        return f"usb{index}"
    return f"{controller.type}{index}"


def _counts(devices: Devices, kind: Type, index: int) -> bool:
    return any(controller.type is kind and controller.index == index for controller in devices.controller)


__all__ = ["PciAddress", "Rng", "assign_aliases"]
