"""Disks, cdroms, floppies.

https://libvirt.org/formatdomain.html#hard-drives-floppy-disks-cdroms
"""

from enum import StrEnum

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.errors import ConfigUnsupported
from pyvirtd.model.address import Device, DeviceInfo, VirtioOptions
from pyvirtd.model.refusals import Refusal, internal, wrong
from pyvirtd.model.storage import (
    AnySource,
    Auth,
    AuthSecretType,
    BackingStore,
    Encryption,
    MetadataCache,
    Mirror,
    NetworkSource,
    NodeName,
    StorageFormat,
    StorageProtocol,
    StorageType,
)
from pyvirtd.model.words import VirtioModel
from pyvirtd.xml.document import Node
from pyvirtd.xml.element import LIVE, STATUS, Element, View, attr, child, children, flag, group, text, via
from pyvirtd.xml.types import U32, U64, Count32, OnOff, Positive32, Wwn, YesNo


class DiskDevice(StrEnum):
    DISK = "disk"
    CDROM = "cdrom"
    FLOPPY = "floppy"
    LUN = "lun"


class DiskBus(StrEnum):
    IDE = "ide"
    FDC = "fdc"
    SCSI = "scsi"
    VIRTIO = "virtio"
    XEN = "xen"
    USB = "usb"
    UML = "uml"
    SATA = "sata"
    SD = "sd"


class SnapshotLocation(StrEnum):
    NO = "no"
    INTERNAL = "internal"
    EXTERNAL = "external"
    MANUAL = "manual"


class SgIo(StrEnum):
    FILTERED = "filtered"
    UNFILTERED = "unfiltered"


class DiskCache(StrEnum):
    NONE = "none"
    WRITETHROUGH = "writethrough"
    WRITEBACK = "writeback"
    DIRECTSYNC = "directsync"
    UNSAFE = "unsafe"


class ErrorPolicy(StrEnum):
    STOP = "stop"
    REPORT = "report"
    IGNORE = "ignore"
    ENOSPACE = "enospace"


class DiskIo(StrEnum):
    NATIVE = "native"
    THREADS = "threads"
    IO_URING = "io_uring"


class Discard(StrEnum):
    UNMAP = "unmap"
    IGNORE = "ignore"


class DetectZeroes(StrEnum):
    OFF = "off"
    ON = "on"
    UNMAP = "unmap"


class Tray(StrEnum):
    CLOSED = "closed"
    OPEN = "open"


class GeometryTrans(StrEnum):
    NONE = "none"
    AUTO = "auto"
    LBA = "lba"


class IothreadQueue(Element, tag="queue"):
    id: Count32 | None = attr(required=True)


class DriverIothread(Element, tag="iothread"):
    """One of several threads that serve a disk, and the queues it serves."""

    id: Positive32 | None = attr(required=True)
    queue: list[IothreadQueue] = children()


class DriverStatistic(Element, tag="statistic"):
    interval: Positive32 | None = attr(required=True)


class DiskDriver(Element, tag="driver"):
    name: str | None = attr()
    type: StorageFormat | None = attr(bad="unknown driver format value '{}'")
    cache: DiskCache | None = attr(ignore=("default",))
    error_policy: ErrorPolicy | None = attr()
    rerror_policy: ErrorPolicy | None = attr()
    io: DiskIo | None = attr()
    ioeventfd: OnOff | None = attr()
    event_idx: OnOff | None = attr()
    copy_on_read: OnOff | None = attr()
    discard: Discard | None = attr()
    iothread: Positive32 | None = attr()
    detect_zeroes: DetectZeroes | None = attr(ignore=("default",))
    queues: Positive32 | None = attr()
    queue_size: Positive32 | None = attr()
    virtio: VirtioOptions = group()
    discard_no_unref: OnOff | None = attr()
    metadata_cache: MetadataCache | None = child()
    iothreads: list[DriverIothread] = children(wrap="iothreads")
    statistics: list[DriverStatistic] = children(wrap="statistics")


class DiskTarget(Element, tag="target"):
    dev: str | None = attr()
    bus: DiskBus | None = attr()
    tray: Tray | None = attr(omit=Tray.CLOSED)
    removable: OnOff | None = attr()
    rotation_rate: Positive32 | None = attr()
    dpofua: OnOff | None = attr()


class Geometry(Element, tag="geometry"):
    cyls: U32 | None = attr()
    heads: U32 | None = attr()
    secs: U32 | None = attr()
    trans: GeometryTrans | None = attr(ignore=("default",))

    def parsed(self, node: Node, view: View) -> None:
        """A geometry that lacks a number says nothing."""
        if None in (self.cyls, self.heads, self.secs):
            self.cyls = self.heads = self.secs = self.trans = None


class Blockio(Element, tag="blockio"):
    logical_block_size: U32 | None = attr(omit=0)
    physical_block_size: U32 | None = attr(omit=0)


def _not_integer(name: str) -> Refusal:
    return wrong(f"disk iotune field '{name}' must be an integer")


class Iotune(Element, tag="iotune"):
    """Limits of throughput; 0 is none."""

    total_bytes_sec: U64 | None = text(omit=0, bad=_not_integer("total_bytes_sec"))
    read_bytes_sec: U64 | None = text(omit=0, bad=_not_integer("read_bytes_sec"))
    write_bytes_sec: U64 | None = text(omit=0, bad=_not_integer("write_bytes_sec"))
    total_iops_sec: U64 | None = text(omit=0, bad=_not_integer("total_iops_sec"))
    read_iops_sec: U64 | None = text(omit=0, bad=_not_integer("read_iops_sec"))
    write_iops_sec: U64 | None = text(omit=0, bad=_not_integer("write_iops_sec"))
    total_bytes_sec_max: U64 | None = text(omit=0, bad=_not_integer("total_bytes_sec_max"))
    read_bytes_sec_max: U64 | None = text(omit=0, bad=_not_integer("read_bytes_sec_max"))
    write_bytes_sec_max: U64 | None = text(omit=0, bad=_not_integer("write_bytes_sec_max"))
    total_iops_sec_max: U64 | None = text(omit=0, bad=_not_integer("total_iops_sec_max"))
    read_iops_sec_max: U64 | None = text(omit=0, bad=_not_integer("read_iops_sec_max"))
    write_iops_sec_max: U64 | None = text(omit=0, bad=_not_integer("write_iops_sec_max"))
    size_iops_sec: U64 | None = text(omit=0, bad=_not_integer("size_iops_sec"))
    group_name: str | None = text()
    total_bytes_sec_max_length: U64 | None = text(omit=0, bad=_not_integer("total_bytes_sec_max_length"))
    read_bytes_sec_max_length: U64 | None = text(omit=0, bad=_not_integer("read_bytes_sec_max_length"))
    write_bytes_sec_max_length: U64 | None = text(omit=0, bad=_not_integer("write_bytes_sec_max_length"))
    total_iops_sec_max_length: U64 | None = text(omit=0, bad=_not_integer("total_iops_sec_max_length"))
    read_iops_sec_max_length: U64 | None = text(omit=0, bad=_not_integer("read_iops_sec_max_length"))
    write_iops_sec_max_length: U64 | None = text(omit=0, bad=_not_integer("write_iops_sec_max_length"))


class ThrottleGroup(Iotune, tag="throttlegroup"):
    """Limits that the disks which name the group share."""


class ThrottleFilter(Element, tag="throttlefilter"):
    group_name: str | None = attr(name="group", required=True)


class Transient(Element, tag="transient", empty=True):
    share_backing: YesNo | None = attr(name="shareBacking")


class Disk(Device, tag="disk"):
    type: StorageType = attr(StorageType.FILE)
    device: DiskDevice = attr(DiskDevice.DISK)
    model: VirtioModel | None = attr()
    rawio: YesNo | None = attr()
    sgio: SgIo | None = attr()
    snapshot: SnapshotLocation | None = attr()
    driver: DiskDriver | None = child()
    auth: Auth | None = child()
    source: AnySource | None = child(switch="^type")
    backing_store: BackingStore | None = child(name="backingStore")
    backenddomain: str | None = via("backenddomain", "name")
    geometry: Geometry | None = child()
    blockio: Blockio | None = child()
    mirror: Mirror | None = child(view=LIVE)
    target: DiskTarget = child()
    iotune: Iotune | None = child()
    throttlefilters: list[ThrottleFilter] = children(wrap="throttlefilters")
    readonly: bool = flag()
    shareable: bool = flag()
    transient: Transient | None = child()
    serial: str | None = text()
    wwn: Wwn | None = text(bad=internal("Malformed wwn: {}", ErrorDomain.NONE))
    vendor: str | None = text()
    product: str | None = text()
    encryption: Encryption | None = child()
    info: DeviceInfo = group()
    private_data: "DiskPrivateData | None" = child(view=STATUS)

    def parsed(self, node: Node, view: View) -> None:
        """Older documents have <auth> and <encryption> beside the source, newer ones in it; none has both."""
        source = self.source.common if self.source is not None else None
        for name, own, inner in (
            ("auth", self.auth, source.auth if source else None),
            ("encryption", self.encryption, source.encryption if source else None),
        ):
            if own is not None and inner is not None:
                raise ConfigUnsupported(
                    f"an <{name}> definition already found for disk source", domain=ErrorDomain.DOMAIN
                )
        auth = self.auth or (source.auth if source else None)
        if auth is not None and auth.secret is not None and isinstance(self.source, NetworkSource):
            wanted = {StorageProtocol.ISCSI: AuthSecretType.ISCSI, StorageProtocol.RBD: AuthSecretType.CEPH}
            kind = wanted.get(self.source.protocol) if self.source.protocol else None
            if kind is not None and auth.secret.type is not kind:
                raise ConfigUnsupported(f"invalid secret type '{auth.secret.type}'", domain=ErrorDomain.DOMAIN)


class DiskPrivateData(Element, tag="privateData"):
    """What the daemon remembers of a disk while the guest runs."""

    nodenames: list[NodeName] = children(wrap="nodenames")
    qom: str | None = via("qom", "name")
