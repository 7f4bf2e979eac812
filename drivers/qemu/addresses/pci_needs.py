"""What each device needs of a PCI bus; nothing for devices that are no PCI devices."""

from pyvirtd.drivers.qemu.addresses.pci_bus import UPWARD, Connect, Connects
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.address import Address, Device, PciAddress
from pyvirtd.model.chardev import Channel, Console, Parallel, Redirdev, Rng, Serial, SerialTargetType, Smartcard, Tpm
from pyvirtd.model.devices import (
    Controller,
    Filesystem,
    FilesystemDriverType,
    Hub,
    Iommu,
    IommuModel,
    Memballoon,
    MemballoonModel,
    MemoryDevice,
    MemoryModel,
    NvramDevice,
    Panic,
    Shmem,
    Vsock,
    Watchdog,
    WatchdogModel,
)
from pyvirtd.model.devices import ControllerModel as Model
from pyvirtd.model.devices import ControllerType as Type
from pyvirtd.model.disk import Disk, DiskBus
from pyvirtd.model.graphics import Input, InputBus, Video, VideoModel, VideoModelType
from pyvirtd.model.hostdev import Hostdev, HostdevModel, HostdevType
from pyvirtd.model.net import Interface, InterfaceType
from pyvirtd.model.peripherals import Crypto, Pstore
from pyvirtd.model.sound import Sound, SoundModel
from pyvirtd.model.words import VirtioModel

NONE = Connect.NONE
_PCI_SOUND = (SoundModel.ES1370, SoundModel.AC97, SoundModel.ICH6, SoundModel.ICH9)
# Network cards that are known to be conventional PCI cards; others are taken for modern ones.
_PCI_NETS = frozenset(
    {"rtl8139", "e1000", "virtio-transitional", "netfront", "lan9118", "smc91c111", "vlance", "vmxnet", "vmxnet2",
     "vmxnet3", "am79c970a", "am79c973", "82540em", "82545em", "82543gc"}
)  # fmt: skip
_FOLDER_DRIVERS = (None, FilesystemDriverType.PATH, FilesystemDriverType.HANDLE, FilesystemDriverType.VIRTIOFS)
_XHCI = (Model.NEC_XHCI, Model.QEMU_XHCI)
_PCI_VIDEO = (
    VideoModelType.VGA,
    VideoModelType.CIRRUS,
    VideoModelType.VMVGA,
    VideoModelType.QXL,
)
# Devices that are never PCI devices, or not in each of their models.
NOT_ON_PCI = (
    Smartcard,
    Parallel,
    Channel,
    Console,
    Hub,
    Tpm,
    Panic,
    Redirdev,
    NvramDevice,
    Memballoon,
    Watchdog,
    MemoryDevice,
    Iommu,
)


def is_misfit(device: Device) -> bool:
    """A device that needs a bus which no board has."""
    match device:
        case Interface(model="usb-net") | Sound(model=SoundModel.ICH7) | Memballoon(model=MemballoonModel.XEN):
            return True
        case Controller(type=Type.XENBUS | Type.ISA):
            return True
        case Video(model=VideoModel(type=VideoModelType.GOP)):
            return True
        case Filesystem(driver=driver) if driver is not None:
            return driver.type not in _FOLDER_DRIVERS
        case _:
            return False


class Needs:
    """The needs of a board's devices: on PCI Express boards modern devices want PCI Express slots."""

    def __init__(self, scope: Scope) -> None:
        self.pci = Connect.PCI | Connect.HOTPLUG
        self.pcie = Connect.PCIE | Connect.HOTPLUG if scope.board.pcie else self.pci
        self.scope = scope

    def of(self, device: Device) -> Connects:
        """What a device needs; NONE where it is no PCI device or has an address of another type."""
        address = device.info.address
        if isinstance(address, Address) and not isinstance(address, PciAddress):
            return NONE
        match device:
            case Controller():
                return self._controller(device)
            case Interface():
                return self._interface(device)
            case Disk():
                return self._virtio(device.model) if device.target.bus is DiskBus.VIRTIO else NONE
            case Filesystem():
                return NONE if is_misfit(device) else self._virtio(device.model)
            case Rng() | Vsock():
                return self._virtio(device.model)
            case Input():
                return self._virtio(device.model) if device.bus is InputBus.VIRTIO else NONE
            case Hostdev():
                return self._hostdev(device)
            case _:
                return self._other(device)

    def _other(self, device: Device) -> Connects:
        match device:
            case Memballoon(model=MemballoonModel.VIRTIO | MemballoonModel.VIRTIO_NON_TRANSITIONAL):
                return self.pcie
            case Memballoon(model=MemballoonModel.VIRTIO_TRANSITIONAL):
                return self.pci
            case Sound():
                return self.pci if device.model in _PCI_SOUND else NONE
            case Video():
                kind = device.model.type if device.model else None
                if kind in (VideoModelType.VIRTIO, VideoModelType.BOCHS):
                    return self.pcie
                return self.pci if kind in _PCI_VIDEO else NONE
            case Watchdog(model=WatchdogModel.I6300ESB) | Shmem():
                return self.pci
            case Serial():
                return self.pci if device.target and device.target.type is SerialTargetType.PCI else NONE
            case MemoryDevice(model=MemoryModel.VIRTIO_PMEM | MemoryModel.VIRTIO_MEM):
                return self.pcie
            case Crypto():
                return self.pcie
            case Pstore():
                return self.pci
            case Iommu(model=IommuModel.VIRTIO | IommuModel.AMD):
                return Connect.PCIE if self.scope.board.pcie else self.pci
            case _:
                assert isinstance(device, NOT_ON_PCI), f"nobody said what {type(device).__name__} needs"
                return NONE

    def _virtio(self, model: VirtioModel | None) -> Connects:
        return self.pci if model is VirtioModel.TRANSITIONAL else self.pcie

    def _controller(self, controller: Controller) -> Connects:
        model = controller.model
        match controller.type:
            case Type.PCI:
                return UPWARD.get(model, NONE) if model else NONE
            case Type.SCSI:
                if model in (Model.VIRTIO_SCSI, Model.VIRTIO, Model.VIRTIO_NON_TRANSITIONAL):
                    return self.pcie
                return NONE if model in (None, Model.IBMVSCSI) else self.pci
            case Type.VIRTIO_SERIAL:
                return self.pci if model is Model.VIRTIO_TRANSITIONAL else self.pcie
            case Type.USB:
                if model in (None, Model.NONE, Model.QUSB1, Model.QUSB2):
                    return NONE
                return self.pcie if model in _XHCI else self.pci
            case Type.IDE | Type.SATA:
                return self.pci
            case _:
                return NONE

    def _interface(self, net: Interface) -> Connects:
        if net.type is InterfaceType.HOSTDEV:
            return self.pcie
        if net.model in ("usb-net", "spapr-vlan") or net.model is None:
            return NONE
        return self.pci if net.model in _PCI_NETS else self.pcie

    def _hostdev(self, hostdev: Hostdev) -> Connects:
        if hostdev.type is HostdevType.PCI:
            return self.pcie
        if hostdev.type is HostdevType.MDEV:
            return self.pcie if hostdev.model is HostdevModel.VFIO_PCI else NONE
        if hostdev.type is HostdevType.SCSI_HOST:
            return self.pci if hostdev.model is HostdevModel.VIRTIO_TRANSITIONAL else self.pcie
        return NONE
