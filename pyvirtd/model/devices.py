"""The other devices, and <devices> itself with one list per kind in the order libvirt prints them.

https://libvirt.org/formatdomain.html#devices
"""

from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from typing import Self

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported, XmlError
from pyvirtd.model.address import Device, DeviceInfo, VirtioDriver, VirtioOptions
from pyvirtd.model.chardev import (
    Channel,
    Console,
    ConsoleTarget,
    ConsoleTargetType,
    Parallel,
    Redirdev,
    Rng,
    Serial,
    Smartcard,
    Tpm,
)
from pyvirtd.model.cpu import Idmap
from pyvirtd.model.disk import Disk
from pyvirtd.model.graphics import AnyGraphics, Input, Video
from pyvirtd.model.hostdev import Hostdev, Redirfilter
from pyvirtd.model.net import Interface
from pyvirtd.model.peripherals import Crypto, Pstore
from pyvirtd.model.refusals import internal, wrong
from pyvirtd.model.sound import Audio, Sound
from pyvirtd.model.storage import StorageFormat
from pyvirtd.model.words import MemoryAccess, VirtioModel
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, Element, View, attr, child, children, flag, group, parent_says, says, text, via
from pyvirtd.xml.plan import flatten
from pyvirtd.xml.types import I32, U32, U64, Count32, CpuSet, HexPort, Octal, OnOff, Uuid, YesNo, scale


class ControllerType(StrEnum):
    IDE = "ide"
    FDC = "fdc"
    SCSI = "scsi"
    SATA = "sata"
    VIRTIO_SERIAL = "virtio-serial"
    CCID = "ccid"
    USB = "usb"
    PCI = "pci"
    XENBUS = "xenbus"
    ISA = "isa"


class ControllerModel(StrEnum):
    """Models of all controller types; which of them a type has is for validation."""

    # pci
    PCI_ROOT = "pci-root"
    PCIE_ROOT = "pcie-root"
    PCI_BRIDGE = "pci-bridge"
    DMI_TO_PCI_BRIDGE = "dmi-to-pci-bridge"
    PCIE_TO_PCI_BRIDGE = "pcie-to-pci-bridge"
    PCIE_ROOT_PORT = "pcie-root-port"
    PCIE_SWITCH_UPSTREAM_PORT = "pcie-switch-upstream-port"
    PCIE_SWITCH_DOWNSTREAM_PORT = "pcie-switch-downstream-port"
    PCI_EXPANDER_BUS = "pci-expander-bus"
    PCIE_EXPANDER_BUS = "pcie-expander-bus"
    # scsi
    AUTO = "auto"
    BUSLOGIC = "buslogic"
    LSILOGIC = "lsilogic"
    LSISAS1068 = "lsisas1068"
    VMPVSCSI = "vmpvscsi"
    IBMVSCSI = "ibmvscsi"
    VIRTIO_SCSI = "virtio-scsi"
    LSISAS1078 = "lsisas1078"
    NCR53C90 = "ncr53c90"
    DC390 = "dc390"
    AM53C974 = "am53c974"
    # usb
    PIIX3_UHCI = "piix3-uhci"
    PIIX4_UHCI = "piix4-uhci"
    EHCI = "ehci"
    ICH9_EHCI1 = "ich9-ehci1"
    ICH9_UHCI1 = "ich9-uhci1"
    ICH9_UHCI2 = "ich9-uhci2"
    ICH9_UHCI3 = "ich9-uhci3"
    VT82C686B_UHCI = "vt82c686b-uhci"
    PCI_OHCI = "pci-ohci"
    NEC_XHCI = "nec-xhci"
    QUSB1 = "qusb1"
    QUSB2 = "qusb2"
    QEMU_XHCI = "qemu-xhci"
    NONE = "none"
    # ide
    PIIX3 = "piix3"
    PIIX4 = "piix4"
    ICH6 = "ich6"
    # scsi and virtio-serial
    VIRTIO = "virtio"
    VIRTIO_TRANSITIONAL = "virtio-transitional"
    VIRTIO_NON_TRANSITIONAL = "virtio-non-transitional"


class PciControllerName(StrEnum):
    """The hypervisor's device behind a PCI controller."""

    PCI_BRIDGE = "pci-bridge"
    I82801B11_BRIDGE = "i82801b11-bridge"
    IOH3420 = "ioh3420"
    X3130_UPSTREAM = "x3130-upstream"
    XIO3130_DOWNSTREAM = "xio3130-downstream"
    PXB = "pxb"
    PXB_PCIE = "pxb-pcie"
    PCIE_ROOT_PORT = "pcie-root-port"
    SPAPR_PCI_HOST_BRIDGE = "spapr-pci-host-bridge"
    PCIE_PCI_BRIDGE = "pcie-pci-bridge"
    PCI_HOST = "none"


class PciTarget(Element, tag="target"):
    """What a PCI controller tells the guest of itself."""

    chassis_nr: I32 | None = attr(name="chassisNr")
    chassis: I32 | None = attr()
    port: HexPort | None = attr()
    bus_nr: I32 | None = attr(name="busNr")
    index: I32 | None = attr()
    hotplug: OnOff | None = attr()
    mem_reserve_kib: U64 | None = attr(name="memReserve")
    node: U32 | None = text(bad=wrong("invalid NUMA node in target"))


class ControllerDriver(Element, tag="driver"):
    queues: U32 | None = attr(omit=0)
    cmd_per_lun: U32 | None = attr(omit=0)
    max_sectors: U32 | None = attr(omit=0)
    ioeventfd: OnOff | None = attr()
    iothread: U32 | None = attr(omit=0)
    virtio: VirtioOptions = group()


_Model = ControllerModel
_USB_FIRST, _USB_LAST = list(_Model).index(_Model.PIIX3_UHCI), list(_Model).index(_Model.NONE)
_VIRTIO = frozenset({_Model.VIRTIO, _Model.VIRTIO_TRANSITIONAL, _Model.VIRTIO_NON_TRANSITIONAL})
MODELS: dict[ControllerType, frozenset[ControllerModel]] = {
    ControllerType.PCI: frozenset(list(_Model)[: list(_Model).index(_Model.AUTO)]),
    ControllerType.SCSI: frozenset(list(_Model)[list(_Model).index(_Model.AUTO) : _USB_FIRST])
    | (_VIRTIO - {_Model.VIRTIO}),
    ControllerType.USB: frozenset(list(_Model)[_USB_FIRST : _USB_LAST + 1]),
    ControllerType.IDE: frozenset({_Model.PIIX3, _Model.PIIX4, _Model.ICH6}),
    ControllerType.VIRTIO_SERIAL: _VIRTIO,
}


class Controller(Device, tag="controller"):
    """`index` is None until one is chosen."""

    type: ControllerType = attr(ControllerType.IDE)
    index: Count32 | None = attr()
    model: ControllerModel | None = attr(bad="Unknown model type '{}'")
    ports: Count32 | None = attr()
    vectors: Count32 | None = attr(when=says("type", "virtio-serial"))
    max_grant_frames: Count32 | None = attr(name="maxGrantFrames", when=says("type", "xenbus"))
    max_event_channels: Count32 | None = attr(name="maxEventChannels", when=says("type", "xenbus"))
    pci_model: PciControllerName | None = via("model", "name", when=says("type", "pci"))
    target: PciTarget | None = child(when=says("type", "pci"))
    driver: ControllerDriver | None = child()
    pcihole64_kib: U64 | None = text(name="pcihole64", unit="KiB", when=says("type", "pci"))
    info: DeviceInfo = group()

    def parsed(self, node: Node, view: View) -> None:
        if self.type not in (ControllerType.VIRTIO_SERIAL, ControllerType.USB):
            self.ports = None
        if self.type is ControllerType.PCI:
            for tag in ("model", "target"):
                if len(node.findall(tag)) > 1:
                    raise XmlError(
                        f"Multiple <{tag}> elements in controller definition not allowed", domain=ErrorDomain.DOMAIN
                    )
        if self.model is not None and self.model not in MODELS.get(self.type, frozenset()):
            raise ConfigUnsupported(f"Unknown model type '{self.model}'", domain=ErrorDomain.DOMAIN)


class Lease(Element, tag="lease"):
    """A lock-manager lease, printed by libvirt with its key before the target."""

    lockspace: str | None = text()
    key: str | None = text()
    target: "LeaseTarget | None" = child()


class LeaseTarget(Element, tag="target"):
    path: str | None = attr(required=wrong("Missing 'path' attribute to 'target' element for lease"))
    offset: U64 | None = attr(omit=0)


class FilesystemType(StrEnum):
    MOUNT = "mount"
    BLOCK = "block"
    FILE = "file"
    TEMPLATE = "template"
    RAM = "ram"
    BIND = "bind"
    VOLUME = "volume"


class AccessMode(StrEnum):
    PASSTHROUGH = "passthrough"
    MAPPED = "mapped"
    SQUASH = "squash"


class Multidevs(StrEnum):
    DEFAULT = "default"
    REMAP = "remap"
    FORBID = "forbid"
    WARN = "warn"


class FilesystemDriverType(StrEnum):
    PATH = "path"
    HANDLE = "handle"
    LOOP = "loop"
    NBD = "nbd"
    PLOOP = "ploop"
    VIRTIOFS = "virtiofs"


class WrPolicy(StrEnum):
    IMMEDIATE = "immediate"


class FilesystemDriver(Element, tag="driver"):
    type: FilesystemDriverType | None = attr(ignore=("default",))
    format_: StorageFormat | None = attr(bad="unknown driver format value '{}'")
    wrpolicy: WrPolicy | None = attr(ignore=("default",))
    queue: U64 | None = attr(
        omit=0, when=says("type", "virtiofs"), bad=wrong("cannot parse queue size '{}' for virtiofs")
    )
    virtio: VirtioOptions = group()

    def parsed(self, node: Node, view: View) -> None:
        if self.type is None:
            self.format_ = self.wrpolicy = self.queue = None


class VirtiofsCache(StrEnum):
    NONE = "none"
    ALWAYS = "always"


class VirtiofsSandbox(StrEnum):
    NAMESPACE = "namespace"
    CHROOT = "chroot"


class VirtiofsLock(Element, tag="lock"):
    posix: OnOff | None = attr()
    flock: OnOff | None = attr()


class FilesystemBinary(Element, tag="binary"):
    path: str | None = attr()
    xattr: OnOff | None = attr()
    cache: VirtiofsCache | None = via("cache", "mode")
    sandbox: VirtiofsSandbox | None = via("sandbox", "mode")
    lock: VirtiofsLock | None = child()
    thread_pool: I32 | None = via("thread_pool", "size", bad=wrong("cannot parse thread pool size '{}' for virtiofs"))
    open_files: U64 | None = via("openfiles", "max")


def _of_mount(node: Node) -> bool:
    parent = node.getparent()
    return parent is None or parent.get("type", "mount") in ("mount", "bind")


def _of_folder(node: Node) -> bool:
    """A socket says that somebody else serves the folder."""
    return _of_mount(node) and node.get("socket") is None


_of_ram = parent_says("type", "ram")


class FilesystemSource(Element, tag="source"):
    """Which attribute counts depends on the filesystem's type."""

    dir: str | None = attr(when=_of_folder)
    socket: str | None = attr(when=_of_mount)
    dev: str | None = attr(when=parent_says("type", "block"))
    file: str | None = attr(when=parent_says("type", "file"))
    name: str | None = attr(when=parent_says("type", "template"))
    usage: U64 | None = attr(when=_of_ram, bad=wrong("cannot parse usage '{}' for RAM filesystem"))
    units: str | None = attr(when=_of_ram)
    pool: str | None = attr(when=parent_says("type", "volume"))
    volume: str | None = attr(when=parent_says("type", "volume"))

    def parsed(self, node: Node, view: View) -> None:
        """The size of a RAM filesystem, in KiB."""
        if self.usage is not None:
            self.usage, self.units = scale(self.usage, self.units or "KiB", "KiB"), "KiB"


class Filesystem(Device, tag="filesystem"):
    type: FilesystemType = attr(FilesystemType.MOUNT)
    accessmode: AccessMode | None = attr()
    model: VirtioModel | None = attr()
    multidevs: Multidevs | None = attr(ignore=("default",))
    fmode: Octal | None = attr()
    dmode: Octal | None = attr()
    driver: FilesystemDriver | None = child()
    binary: FilesystemBinary | None = child()
    idmap: Idmap | None = child()
    source: FilesystemSource | None = child()
    target: str | None = via("target", "dir")
    readonly: bool = flag()
    info: DeviceInfo = group()
    space_hard_limit: U64 | None = text(unit="bytes", where="./space_hard_limit[1]")
    space_soft_limit: U64 | None = text(unit="bytes", where="./space_soft_limit[1]")


class HubType(StrEnum):
    USB = "usb"


class Hub(Device, tag="hub"):
    type: HubType = attr(HubType.USB, required=internal("missing hub device type"), bad="unknown hub device type '{}'")


class WatchdogModel(StrEnum):
    I6300ESB = "i6300esb"
    IB700 = "ib700"
    DIAG288 = "diag288"
    ITCO = "itco"


class WatchdogAction(StrEnum):
    RESET = "reset"
    SHUTDOWN = "shutdown"
    POWEROFF = "poweroff"
    PAUSE = "pause"
    DUMP = "dump"
    NONE = "none"
    INJECTNMI = "inject-nmi"


class Watchdog(Device, tag="watchdog"):
    model: WatchdogModel = attr(
        WatchdogModel.I6300ESB, required=internal("watchdog must contain model name"), bad="unknown watchdog model '{}'"
    )
    action: WatchdogAction = attr(WatchdogAction.RESET, bad="unknown watchdog action '{}'")


class MemballoonModel(StrEnum):
    VIRTIO = "virtio"
    XEN = "xen"
    NONE = "none"
    VIRTIO_TRANSITIONAL = "virtio-transitional"
    VIRTIO_NON_TRANSITIONAL = "virtio-non-transitional"


class Memballoon(Device, tag="memballoon"):
    model: MemballoonModel = attr(MemballoonModel.VIRTIO, required=True)
    autodeflate: OnOff | None = attr()
    free_page_reporting: OnOff | None = attr(name="freePageReporting")
    stats_period: I32 | None = via("stats", "period", omit=0)
    info: DeviceInfo = group()
    driver: VirtioDriver | None = child()


class NvramDevice(Device, tag="nvram", unfolded=True):
    pass


class PanicModel(StrEnum):
    ISA = "isa"
    PSERIES = "pseries"
    HYPERV = "hyperv"
    S390 = "s390"


class Panic(Device, tag="panic", empty=True):
    model: PanicModel | None = attr(bad="unknown panic model '{}'")
    info: DeviceInfo = group()


class ShmemRole(StrEnum):
    MASTER = "master"
    PEER = "peer"


class ShmemModel(StrEnum):
    IVSHMEM = "ivshmem"
    IVSHMEM_PLAIN = "ivshmem-plain"
    IVSHMEM_DOORBELL = "ivshmem-doorbell"


class ShmemServer(Element, tag="server", empty=True):
    path: str | None = attr()


class ShmemMsi(Element, tag="msi", empty=True):
    vectors: U32 | None = attr(omit=0)
    ioeventfd: OnOff | None = attr()


class Shmem(Device, tag="shmem"):
    name: str | None = attr(required=wrong("shmem element must contain 'name' attribute"))
    role: ShmemRole | None = attr()
    model: ShmemModel = via("model", "type", ShmemModel.IVSHMEM)
    size_mib: U64 | None = text(name="size", unit="M", assume="bytes", where="./size[1]")
    server: ShmemServer | None = child()
    msi: ShmemMsi | None = child()
    info: DeviceInfo = group()

    def parsed(self, node: Node, view: View) -> None:
        if self.model is ShmemModel.IVSHMEM:
            self.role = None


class MemoryModel(StrEnum):
    DIMM = "dimm"
    NVDIMM = "nvdimm"
    VIRTIO_PMEM = "virtio-pmem"
    VIRTIO_MEM = "virtio-mem"
    SGX_EPC = "sgx-epc"


class MemoryDeviceSource(Element, tag="source"):
    path: str | None = text()
    nodemask: CpuSet | None = text()
    pagesize_kib: U64 | None = text(name="pagesize", unit="KiB")
    alignsize_kib: U64 | None = text(name="alignsize", unit="KiB")
    pmem: bool = flag()


class MemoryLabel(Element, tag="label"):
    size_kib: U64 | None = text(name="size", unit="KiB")


class MemoryTarget(Element, tag="target"):
    size_kib: U64 | None = text(name="size", unit="KiB")
    node: U32 | None = text()
    label: MemoryLabel | None = child()
    readonly: bool = flag()
    block_kib: U64 | None = text(name="block", unit="KiB")
    requested_kib: U64 | None = text(name="requested", unit="KiB")
    current_kib: U64 | None = text(name="current", unit="KiB", view=LIVE)
    dynamic_memslots: YesNo | None = attr(name="dynamicMemslots")


class MemoryDevice(Device, tag="memory"):
    model: MemoryModel = attr(MemoryModel.DIMM, required=True)
    access: MemoryAccess | None = attr()
    discard: YesNo | None = attr()
    uuid: Uuid | None = text()
    source: MemoryDeviceSource | None = child()
    target: MemoryTarget | None = child()
    info: DeviceInfo = group()


class IommuModel(StrEnum):
    AMD = "amd"
    INTEL = "intel"
    SMMUV3 = "smmuv3"
    VIRTIO = "virtio"


class IommuDriver(Element, tag="driver"):
    intremap: OnOff | None = attr()
    caching_mode: OnOff | None = attr()
    eim: OnOff | None = attr()
    iotlb: OnOff | None = attr()
    aw_bits: U32 | None = attr(omit=0)
    dma_translation: OnOff | None = attr()
    xtsup: OnOff | None = attr()
    passthrough: OnOff | None = attr()
    granule: str | None = attr()


class Iommu(Device, tag="iommu"):
    model: IommuModel = attr(IommuModel.INTEL, required=True)
    driver: IommuDriver | None = child()
    info: DeviceInfo = group()


class VsockCid(Element, tag="cid"):
    auto: YesNo | None = attr()
    address: U32 | None = attr(omit=0)

    def parsed(self, node: Node, view: View) -> None:
        if self.auto is None and self.address:
            self.auto = False


class Vsock(Device, tag="vsock"):
    model: VirtioModel | None = attr()
    cid: VsockCid | None = child()
    info: DeviceInfo = group()
    driver: VirtioDriver | None = child()


MAX_DEVICES = 4096  # far above what PCI and QEMU take; bounds the work that a document can make
_SINGLE = {
    "memballoon": internal("only a single memory balloon device is supported"),
    "nvram": internal("only a single nvram device is supported"),
    "iommu": wrong("only a single IOMMU device is supported"),
    "vsock": wrong("only a single vsock device is supported"),
    "pstore": wrong("only a single pstore device is supported"),
}


class Devices(Element, tag="devices", unfolded=True):
    emulator: str | None = text()
    disk: list[Disk] = children()
    controller: list[Controller] = children()
    lease: list[Lease] = children()
    filesystem: list[Filesystem] = children()
    interface: list[Interface] = children()
    smartcard: list[Smartcard] = children()
    serial: list[Serial] = children()
    parallel: list[Parallel] = children()
    console: list[Console] = children()
    channel: list[Channel] = children()
    input: list[Input] = children()
    tpm: list[Tpm] = children()
    graphics: list[AnyGraphics] = children()
    sound: list[Sound] = children()
    audio: list[Audio] = children()
    video: list[Video] = children()
    hostdev: list[Hostdev] = children()
    redirdev: list[Redirdev] = children()
    redirfilter: Redirfilter | None = child()
    hub: list[Hub] = children()
    watchdog: list[Watchdog] = children()
    memballoon: Memballoon | None = child()
    rng: list[Rng] = children()
    nvram: NvramDevice | None = child()
    panic: list[Panic] = children()
    shmem: list[Shmem] = children()
    memory: list[MemoryDevice] = children()
    iommu: Iommu | None = child()
    vsock: Vsock | None = child()
    crypto: list[Crypto] = children()
    pstore: Pstore | None = child()

    @property
    def balloon(self) -> Memballoon | None:
        """The memory balloon; None also where the document says that there is none."""
        balloon = self.memballoon
        return balloon if balloon is not None and balloon.model is not MemballoonModel.NONE else None

    def parsed(self, node: Node, view: View) -> None:
        count = sum(len(value) for _, value in self.values() if isinstance(value, list))
        if count > MAX_DEVICES:
            raise ConfigUnsupported(f"{count} devices, a guest can have {MAX_DEVICES}", domain=ErrorDomain.DOMAIN)
        tags = [kid.tag for kid in node if kid.tag in _SINGLE]
        for tag, refusal in _SINGLE.items():
            if tags.count(tag) > 1:
                raise refusal("")

    def printed(self, view: View) -> Self:
        """A first console that is the first serial port under another name is printed from the serial port."""
        first = self.console[0] if self.console else None
        if first is None or not self.serial or first.target is None or first.target.type != ConsoleTargetType.SERIAL:
            return self
        serial = self.serial[0]
        port = serial.target.port if serial.target is not None else first.target.port
        mirror = Console(
            type=serial.type,
            source=serial.source,
            protocol=serial.protocol,
            log=serial.log,
            target=ConsoleTarget(type=ConsoleTargetType.SERIAL, port=port),
            info=serial.info,
        )
        twin = self.shallow()
        twin.console = [mirror, *self.console[1:]]
        return twin

    def all(self) -> Iterator[Device]:
        """Every device that has an alias and an address, in printing order."""
        for name, many in self._families():
            value = getattr(self, name)
            if many:
                yield from value
            elif value is not None:
                yield value

    @classmethod
    @cache
    def _families(cls) -> tuple[tuple[str, bool], ...]:
        """The fields that hold devices, and whether several."""
        shapes = [(slot.field.attribute, slot.shape) for slot in flatten(cls)[0]]
        return tuple((name, shape.many) for name, shape in shapes if issubclass((*shape.classes, object)[0], Device))
