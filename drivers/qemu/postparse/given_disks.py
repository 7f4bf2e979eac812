"""What disks must say by themselves, before defaults hide what was left out."""

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.postparse.disks import has_partition, is_empty, target_index
from pyvirtd.drivers.qemu.postparse.refuse import NoSource, NoTarget, internal, unsupported, xml
from pyvirtd.errors import VirtError, XmlError
from pyvirtd.model.disk import Disk, DiskBus, DiskDevice, Iotune, Tray
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.seclabel import check_labels
from pyvirtd.model.storage import (
    AnySource,
    BackingStore,
    NetworkSource,
    NvmeSource,
    Reservations,
    StorageFormat,
    StorageProtocol,
    StorageType,
    VolumeSource,
    data_source,
)
from pyvirtd.model.words import ConnectMode, StartupPolicy

VENDOR_MAX, PRODUCT_MAX = 8, 16  # bytes of the SCSI INQUIRY data
_WITH_POLICY = (StorageType.FILE, StorageType.BLOCK, StorageType.DIR, StorageType.VOLUME)
# The kinds of secret that accounts of a protocol have; None: any.
_SECRET_TYPES = {
    StorageProtocol.ISCSI: "iscsi",
    StorageProtocol.RBD: "ceph",
    StorageProtocol.SSH: None,
    StorageProtocol.HTTP: None,
    StorageProtocol.HTTPS: None,
    StorageProtocol.FTP: None,
    StorageProtocol.FTPS: None,
}


def given_disks(definition: DomainDef) -> None:
    """What a disk must say by itself, before defaults hide what was left out."""
    for disk in definition.devices.disk:
        _given_disk(disk)


def source_path(disk: Disk) -> str | None:
    """What the disk's data is called in messages."""
    source = disk.source
    for name in ("file", "dev", "dir", "name", "path", "volume"):
        if (value := getattr(source, name, None)) is not None:
            return str(value)
    return None


def _given_disk(disk: Disk) -> None:
    name, path = disk.target.dev, source_path(disk)
    empty = is_empty(disk) and disk.type is not StorageType.NVME
    if empty and disk.device not in (DiskDevice.CDROM, DiskDevice.FLOPPY):
        raise NoSource(f"missing source information for device {name}" if name else "missing source information")
    if not name:
        if path is None:
            raise NoTarget("missing target information for device (null)")
        raise NoTarget(f"missing target information for device {path}")
    if target_index(name) is None and not has_partition(name):
        raise xml(f"Unknown disk name '{name}' and no address specified")
    if disk.device is DiskDevice.FLOPPY and not name.startswith("fd"):
        raise internal(f"Invalid floppy device name: {name}")
    if disk.device is DiskDevice.DISK and not name.startswith(("hd", "sd", "vd", "xvd", "ubd")):
        raise internal(f"Invalid harddisk device name: {name}")
    if disk.target.tray is Tray.OPEN and disk.device not in (DiskDevice.CDROM, DiskDevice.FLOPPY):
        raise unsupported("tray is only valid for cdrom and floppy")
    if disk.target.removable is not None and disk.target.bus is not DiskBus.USB:
        raise xml("removable is only valid for usb disks")
    policy = disk.source.startup_policy if disk.source is not None else None
    if policy is not None:
        if disk.type not in _WITH_POLICY:
            raise xml(f"disk startupPolicy '{policy}' is not allowed for disk of '{disk.type}' type")
        if policy is StartupPolicy.REQUISITE and disk.device not in (DiskDevice.CDROM, DiskDevice.FLOPPY):
            raise xml(f"disk startupPolicy '{policy}' is allowed only for cdrom or floppy")
    for text, limit, word in ((disk.vendor, VENDOR_MAX, "vendor"), (disk.product, PRODUCT_MAX, "product")):
        if text is not None and len(text) > limit:
            raise unsupported(f"disk {word} is more than {limit} characters")
        if text is not None and not (text.isascii() and text.isprintable()):
            raise xml(f"disk {word} is not printable string")
    if disk.driver is not None and disk.driver.type is StorageFormat.LUKS:
        raise unsupported("unknown driver format value 'luks'")
    given_source(disk)
    if disk.iotune is not None:
        _given_iotune(disk.iotune)


def _given_iotune(tune: Iotune) -> None:
    if (kind := doubly_limited(tune)) is not None:
        raise xml(f"total and read/write {kind} cannot be set at the same time")


def doubly_limited(tune: Iotune) -> str | None:
    """The kind of limit that is given for all traffic and for one direction as well."""
    for kind in ("bytes_sec", "iops_sec", "bytes_sec_max", "iops_sec_max"):
        if getattr(tune, f"total_{kind}") and (getattr(tune, f"read_{kind}") or getattr(tune, f"write_{kind}")):
            return kind
    return None


_COOKIE_NAME = frozenset('()<>@,;:\\"/[]?={} \t')


def storage_xml(text: str) -> VirtError:
    """XML errors that libvirt's storage code reports."""
    return XmlError(text, domain=ErrorDomain.STORAGE)


def chain_of(disk: Disk) -> list[tuple[AnySource, StorageFormat | None]]:
    """All layers with their formats, the top first, and after them the files that hold their data."""
    found: list[tuple[AnySource, StorageFormat | None]] = []
    if disk.source is not None:
        found.append((disk.source, disk.driver.type if disk.driver else None))
    store: BackingStore | None = disk.backing_store
    while store is not None and store.source is not None:
        found.append((store.source, store.format_.type if store.format_ else None))
        store = store.backing_store
    held = [(data, StorageFormat.RAW) for source, _ in found if (data := data_source(source)) is not None]
    return found + held


def given_source(disk: Disk) -> None:
    """What a source must say by itself."""
    for source, _ in chain_of(disk):
        check_labels(source.common.seclabel)
        if isinstance(source, VolumeSource) and (source.pool is None or source.volume is None):
            raise xml("'pool' and 'volume' must be specified together for 'pool' type source")
        if isinstance(source, NetworkSource):
            _given_network(source)
        if isinstance(source, NvmeSource):
            if source.namespace == 0:
                raise unsupported("NVMe namespace can't be zero")
            if source.address is None:
                raise xml("NVMe disk source is missing address")
        if source.common.reservations is not None:
            _given_reservations(source.common.reservations)
    _given_secrets(disk)


def _given_network(source: NetworkSource) -> None:
    for cookie in source.cookies:
        if not cookie.name or set(cookie.name) & _COOKIE_NAME:
            raise storage_xml(f"cookie name '{cookie.name}' contains invalid characters")


def _given_reservations(reservations: Reservations) -> None:
    if reservations.managed:
        return
    source = reservations.source
    if source is None or source.type is None:
        raise storage_xml("missing connection type for <reservations/>")
    if source.mode is not None and source.mode is not ConnectMode.CLIENT:
        raise storage_xml(f"unsupported connection mode for <reservations/>: {source.mode}")


def _given_secrets(disk: Disk) -> None:
    source = disk.source
    if source is None:
        return
    if disk.auth is not None and source.common.auth is not None:
        raise unsupported("an <auth> definition already found for disk source")
    if disk.encryption is not None and source.common.encryption is not None:
        raise unsupported("an <encryption> definition already found for disk source")
    auth = disk.auth or source.common.auth
    if auth is None:
        return
    if isinstance(source, NetworkSource) and source.protocol not in _SECRET_TYPES:
        raise unsupported(f"authentication is not supported for protocol '{source.protocol}'")
    if isinstance(source, NetworkSource) and source.protocol in _SECRET_TYPES and auth.secret is not None:
        if auth.secret.type is not None and _SECRET_TYPES[source.protocol] not in (None, auth.secret.type):
            raise unsupported(f"invalid secret type '{auth.secret.type}'")
