"""Host devices given to the guest, and USB redirection filters.

https://libvirt.org/formatdomain.html#host-device-assignment
"""

from enum import StrEnum

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported, XmlError
from pyvirtd.model.address import Device, DeviceInfo, OrigStates, PciNumbers
from pyvirtd.model.disk import SgIo
from pyvirtd.model.net import Ip, Route, Teaming, UsbId
from pyvirtd.model.refusals import internal, unsupported, wrong
from pyvirtd.model.storage import Auth, Initiator, NetworkHost
from pyvirtd.model.words import StartupPolicy
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, STATUS, Element, View, attr, child, children, flag, group, says, text, via
from pyvirtd.xml.types import U32, U64, OnOff, UpperHex8, UpperHex16, UsbVersion, Uuid, YesNo, YesOrNot


class HostdevMode(StrEnum):
    SUBSYSTEM = "subsystem"
    CAPABILITIES = "capabilities"


class HostdevType(StrEnum):
    USB = "usb"
    PCI = "pci"
    SCSI = "scsi"
    SCSI_HOST = "scsi_host"
    MDEV = "mdev"
    STORAGE = "storage"
    MISC = "misc"
    NET = "net"


class HostdevModel(StrEnum):
    """mdev: the vfio words; scsi_host: the virtio words."""

    VFIO_PCI = "vfio-pci"
    VFIO_CCW = "vfio-ccw"
    VFIO_AP = "vfio-ap"
    VIRTIO = "virtio"
    VIRTIO_TRANSITIONAL = "virtio-transitional"
    VIRTIO_NON_TRANSITIONAL = "virtio-non-transitional"


class PciBackend(StrEnum):
    KVM = "kvm"
    VFIO = "vfio"
    XEN = "xen"


class GuestReset(StrEnum):
    OFF = "off"
    UNINITIALIZED = "uninitialized"
    ON = "on"


class ScsiProtocol(StrEnum):
    ADAPTER = "adapter"
    ISCSI = "iscsi"


class PciHostAddress(PciNumbers, tag="address"):
    """The device's place on the host's PCI bus."""


class UsbHostAddress(Element, tag="address"):
    bus: U32 | None = attr(required=True)
    device: U32 | None = attr(required=True)


class ScsiHostAddress(Element, tag="address"):
    bus: U32 | None = attr(required=True)
    target: U32 | None = attr(required=True)
    unit: U64 | None = attr(required=True)


class MdevAddress(Element, tag="address"):
    uuid: Uuid | None = attr(
        required=unsupported("Missing 'uuid' attribute for element <address>"),
        bad=internal("Cannot parse uuid attribute of element <address>"),
    )


class HostdevDriver(Element, tag="driver"):
    """How the host hands the device over: by which driver of its own, and through which interface of the kernel."""

    name: PciBackend | None = attr()
    model: str | None = attr()
    iommufd: YesNo | None = attr()


class PciHostdevSource(Element, tag="source", case="pci"):
    write_filtering: YesNo | None = attr(name="writeFiltering")
    address: PciHostAddress | None = child()
    origstates: OrigStates | None = child(view=STATUS)


class UsbHostdevSource(Element, tag="source", case="usb"):
    startup_policy: StartupPolicy | None = attr(name="startupPolicy")
    guest_reset: GuestReset | None = attr(name="guestReset")
    missing: YesOrNot = attr(False, view=LIVE, omit=False)
    vendor: UsbId | None = child(name="vendor")
    product: UsbId | None = child(name="product")
    address: UsbHostAddress | None = child()


_ISCSI, _LOCAL = says("protocol", "iscsi"), says("protocol", "adapter", default="adapter")


class ScsiHostdevSource(Element, tag="source", case="scsi"):
    protocol: ScsiProtocol | None = attr(bad="Unknown SCSI subsystem protocol '{}'")
    name: str | None = attr(when=_ISCSI)
    adapter: str | None = via("adapter", "name", when=_LOCAL)
    address: ScsiHostAddress | None = child(when=_LOCAL)
    host: list[NetworkHost] = children(when=_ISCSI)
    auth: Auth | None = child(when=_ISCSI)
    initiator: Initiator | None = child(when=_ISCSI)


class ScsiHostProtocol(StrEnum):
    VHOST = "vhost"


class VhostScsiSource(Element, tag="source", case="scsi_host"):
    protocol: ScsiHostProtocol | None = attr(bad="Unknown scsi_host subsystem protocol '{}'")
    wwpn: str | None = attr()


class MdevSource(Element, tag="source", case="mdev"):
    address: MdevAddress | None = child()


class StorageCapabilitySource(Element, tag="source", case="storage"):
    block: str | None = text()


class MiscCapabilitySource(Element, tag="source", case="misc"):
    char: str | None = text()


class NetCapabilitySource(Element, tag="source", case="net"):
    interface: str | None = text()


class Hostdev(Device, tag="hostdev"):
    mode: HostdevMode = attr(HostdevMode.SUBSYSTEM, bad="unknown hostdev mode '{}'")
    type: HostdevType = attr(
        HostdevType.USB,
        required=wrong("missing source address type"),
        bad="unknown host device source address type '{}'",
    )
    managed: YesOrNot | None = attr()
    sgio: SgIo | None = attr()
    rawio: YesNo | None = attr()
    model: HostdevModel | None = attr()
    display: OnOff | None = attr()
    ramfb: OnOff | None = attr()
    driver: HostdevDriver | None = child()
    source: (
        PciHostdevSource
        | UsbHostdevSource
        | ScsiHostdevSource
        | VhostScsiSource
        | MdevSource
        | StorageCapabilitySource
        | MiscCapabilitySource
        | NetCapabilitySource
        | None
    ) = child(switch="^type")
    teaming: Teaming | None = child()
    ip: list[Ip] = children()
    route: list[Route] = children()
    readonly: bool = flag()
    shareable: bool = flag()
    info: DeviceInfo = group()

    def parsed(self, node: Node, view: View) -> None:
        if self.mode == HostdevMode.SUBSYSTEM and self.managed is None:
            self.managed = False
        source = node.find("source")
        if self.mode == HostdevMode.SUBSYSTEM and self.type != HostdevType.USB and source is not None:
            if source.get("startupPolicy") is not None:
                raise ConfigUnsupported(
                    "Setting startupPolicy is only allowed for USB devices", domain=ErrorDomain.DOMAIN
                )
        if self.type == HostdevType.MDEV and self.model is None:
            raise XmlError("Missing required attribute 'model' in element 'hostdev'", domain=ErrorDomain.XML)


class UsbDevFilter(Element, tag="usbdev"):
    class_: UpperHex8 | None = attr(ignore=("-1",))
    vendor: UpperHex16 | None = attr(ignore=("-1",))
    product: UpperHex16 | None = attr(ignore=("-1",))
    version: UsbVersion | None = attr(ignore=("-1",), bad=wrong("Cannot parse USB device version {}"))
    allow: YesNo = attr(False, required=True)


class Redirfilter(Element, tag="redirfilter"):
    usbdev: list[UsbDevFilter] = children()
