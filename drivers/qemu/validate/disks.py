"""Rules of disks: device and bus, driver settings, identity, where they sit."""

from pyvirtd.drivers.qemu.disk_buses import CONTROLLERS
from pyvirtd.drivers.qemu.postparse.aliases import narrow_scsi
from pyvirtd.drivers.qemu.postparse.controllers import MAX_IMPLICIT
from pyvirtd.drivers.qemu.postparse.disks import has_partition
from pyvirtd.drivers.qemu.postparse.given_disks import source_path
from pyvirtd.drivers.qemu.postparse.refuse import (
    internal,
    qemu_internal,
    qemu_unsupported,
    unsupported,
    xml,
)
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.postparse.virtio import check_virtio_options
from pyvirtd.drivers.qemu.validate.memory import shares_memory
from pyvirtd.drivers.qemu.validate.processor import thread_ids
from pyvirtd.drivers.qemu.validate.sources import check_source
from pyvirtd.drivers.qemu.validate.throttle import check_limits_max, has_limits
from pyvirtd.model.address import (
    CcwAddress,
    DriveAddress,
    PciAddress,
    SpaprVioAddress,
    UnassignedAddress,
    UsbAddress,
    VirtioMmioAddress,
)
from pyvirtd.model.disk import (
    Disk,
    DiskBus,
    DiskCache,
    DiskDevice,
    DiskDriver,
    DiskIo,
    ErrorPolicy,
    SgIo,
)
from pyvirtd.model.storage import NetworkSource, StorageFormat, StorageProtocol, StorageType, VhostUserSource

_EJECTABLE = (DiskBus.IDE, DiskBus.SCSI, DiskBus.SATA, DiskBus.USB, DiskBus.FDC, DiskBus.XEN, DiskBus.UML)
_SAFE_SERIAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_ .+\\")


def check_disks(scope: Scope) -> None:
    """Every disk, and that no two are the same to the guest."""
    seen: dict[str, Disk] = {}
    for disk in scope.devices.disk:
        name = disk.target.dev or ""
        if name in seen:
            raise xml(
                f"target '{name}' duplicated for disk sources '{source_path(seen[name]) or '(null)'}' and "
                f"'{source_path(disk) or '(null)'}'"
            )
        seen[name] = disk
    _check_places(scope)
    for disk in scope.devices.disk:
        _check_disk(scope, disk)


def _check_places(scope: Scope) -> None:
    """No two drives in one place of one bus."""
    taken: set[tuple[object, ...]] = set()
    for disk in scope.devices.disk:
        address = disk.info.address
        if not isinstance(address, DriveAddress):
            continue
        place = (disk.target.bus, address.controller, address.bus, address.target, address.unit)
        if place in taken:
            raise unsupported(
                f"Found duplicate drive address for disk with target name '{disk.target.dev}' "
                f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' unit='{address.unit}'"
            )
        taken.add(place)


def _check_disk(scope: Scope, disk: Disk) -> None:
    _check_kind(disk)
    if isinstance(disk.source, VhostUserSource):
        _check_vhost_user(scope, disk)
    if disk.sgio is SgIo.UNFILTERED:
        raise unsupported("unfiltered sgio is no longer supported")
    if disk.device is DiskDevice.LUN:
        _check_lun(disk)
    elif disk.rawio is not None:
        raise unsupported("rawio can be used only with device='lun'")
    elif disk.sgio is SgIo.FILTERED:
        raise unsupported("sgio can be used only with device='lun'")
    if disk.model is not None and disk.target.bus is not DiskBus.VIRTIO:
        raise unsupported(f"disk model '{disk.model}' not supported for bus '{disk.target.bus}'")
    _check_address(scope, disk)
    _check_driver(scope, disk, disk.driver or DiskDriver())
    _check_identity(disk)
    _check_geometry(disk)
    _check_sharing(disk)
    if disk.iotune is not None:
        check_limits_max(disk.iotune)
    check_source(scope, disk)
    if disk.iotune is not None and disk.iotune.group_name and not has_limits(disk.iotune):
        raise qemu_unsupported("group_name can be configured only together with settings")
    if has_partition(disk.target.dev or ""):
        raise qemu_unsupported(f"invalid disk target '{disk.target.dev}', partitions can't appear in disk targets")


def _check_kind(disk: Disk) -> None:
    bus, name = disk.target.bus, disk.target.dev
    if disk.device is DiskDevice.LUN and disk.type is not StorageType.BLOCK:
        source = disk.source
        iscsi = isinstance(source, NetworkSource) and source.protocol is StorageProtocol.ISCSI
        if isinstance(source, NetworkSource) and not iscsi:
            raise unsupported(f"disk device='lun' is not supported for protocol='{source.protocol}'")
        if not iscsi and disk.type is not StorageType.VOLUME:
            raise unsupported("disk device='lun' is only valid for block type disk source")
    if disk.device is DiskDevice.FLOPPY and bus is not DiskBus.FDC:
        raise internal(f"Invalid bus type '{bus}' for floppy disk")
    if disk.device is not DiskDevice.FLOPPY and bus is DiskBus.FDC and disk.device is not DiskDevice.LUN:
        if not (disk.device is DiskDevice.CDROM and not disk.target.bus):
            raise internal(f"Invalid bus type '{bus}' for disk")
    if disk.device is DiskDevice.CDROM and bus in (DiskBus.VIRTIO, DiskBus.SD):
        raise qemu_unsupported(f"disk type of '{name}' does not support ejectable media")


def _check_lun(disk: Disk) -> None:
    bus = disk.target.bus
    if disk.driver is not None and disk.driver.type not in (None, StorageFormat.RAW):
        raise unsupported("disk device 'lun' must use 'raw' format")
    if bus not in (DiskBus.SCSI, DiskBus.VIRTIO):
        raise qemu_unsupported(f"disk device='lun' is not supported for bus='{bus}'")
    if bus is DiskBus.SCSI and disk.serial is not None:
        raise qemu_unsupported("scsi-block 'lun' devices do not support the serial property")
    if disk.encryption is not None or (disk.source is not None and disk.source.common.encryption is not None):
        raise unsupported("disk device 'lun' doesn't support encryption")
    if disk.source is not None and disk.source.common.slices:
        raise unsupported("disk device 'lun' doesn't support storage slice")
    if bus is DiskBus.SCSI and disk.wwn is not None:
        raise qemu_unsupported("Setting wwn is not supported for lun device")
    if disk.vendor is not None or disk.product is not None:
        raise qemu_unsupported("Setting vendor or product is not supported for lun device")


def _check_vhost_user(scope: Scope, disk: Disk) -> None:
    """The other process does what the driver settings would ask of QEMU."""
    driver, source = disk.driver or DiskDriver(), disk.source
    assert isinstance(source, VhostUserSource)
    if disk.target.bus is not DiskBus.VIRTIO:
        raise unsupported("vhostuser disk supports only virtio bus")
    refused = (
        ("snapshot", disk.snapshot is not None and disk.snapshot != "no"),
        ("mirror", disk.mirror is not None),
        ("encryption", (disk.encryption or source.common.encryption) is not None),
        ("backingStore", disk.backing_store is not None and disk.backing_store.type is not None),
        ("iotune", disk.iotune is not None),
        ("throttlefilters", bool(disk.throttlefilters)),
        ("readonly", disk.readonly),
        ("shareable", disk.shareable),
        ("transient", disk.transient is not None),
        ("serial", disk.serial is not None),
        ("wwn", disk.wwn is not None),
        ("vendor", disk.vendor is not None),
        ("product", disk.product is not None),
        ("cache", driver.cache is not None),
        ("error_policy", driver.error_policy is not None),
        ("rerror_policy", driver.rerror_policy is not None),
        ("io", driver.io is not None),
        ("ioeventfd", driver.ioeventfd is not None),
        ("copy_on_read", driver.copy_on_read is not None),
        ("discard", driver.discard is not None),
        ("iothread", driver.iothread is not None),
        ("detect_zeroes", driver.detect_zeroes is not None),
    )
    for word, given in refused:
        if given:
            raise unsupported(f"{word} is not supported with vhostuser disk")
    if not shares_memory(scope.definition):
        raise qemu_unsupported("'vhostuser' requires shared memory")


def _check_address(scope: Scope, disk: Disk) -> None:
    address, bus, name = disk.info.address, disk.target.bus, disk.target.dev
    if isinstance(address, UnassignedAddress):
        raise unsupported("address of type 'unassigned' is supported only for hostdevs")
    kind = address.case[0] if address is not None else ""
    if bus in CONTROLLERS:
        if not isinstance(address, DriveAddress):
            raise unsupported(f"Invalid address type '{kind}' for the disk '{name}' with the bus type '{bus}'")
        _check_drive(scope, disk, address)
    elif isinstance(address, CcwAddress) and not scope.board.s390_ccw:
        alias = disk.info.alias or "<null>"
        raise qemu_unsupported(
            f"cannot use CCW address type for device '{alias}' using machine type '{scope.board.machine}'"
        )
    elif bus is DiskBus.VIRTIO:
        if not isinstance(address, PciAddress | CcwAddress | VirtioMmioAddress | SpaprVioAddress | None):
            raise qemu_unsupported(f"virtio disk cannot have an address of type '{kind}'")
    elif bus is DiskBus.USB and not isinstance(address, UsbAddress | None):
        raise qemu_internal("unexpected address type for usb disk")


def check_controller_number(address: DriveAddress) -> None:
    """Controllers are made up to the number that an address names, so there is a limit."""
    if address.controller > MAX_IMPLICIT:
        raise unsupported(f"controller number {address.controller} of a drive address exceeds {MAX_IMPLICIT}")


def _check_drive(scope: Scope, disk: Disk, address: DriveAddress) -> None:
    if disk.target.bus in (DiskBus.SCSI, DiskBus.SATA):
        check_controller_number(address)
    match disk.target.bus:
        case DiskBus.IDE if address.controller:
            raise qemu_internal("Only 1 IDE controller is supported")
        case DiskBus.IDE if address.target:
            raise qemu_unsupported("target must be 0 for ide controller")
        case DiskBus.FDC:
            if address.controller:
                raise qemu_internal("Only 1 fdc controller is supported")
            if address.bus:
                raise qemu_internal("Only 1 fdc bus is supported")
            if address.target:
                raise qemu_unsupported("target must be 0 for controller fdc")
        case DiskBus.SATA:
            if address.bus:
                raise qemu_unsupported("bus must be 0 for sata controller")
            if address.target:
                raise qemu_unsupported("target must be 0 for sata controller")
        case DiskBus.SCSI:
            if address.bus:
                raise qemu_internal("SCSI controller only supports 1 bus")
            if narrow_scsi(scope.devices, address.controller) and address.target:
                raise qemu_unsupported("target must be 0 for controller model 'lsilogic'")
        case _:
            pass


def _check_driver(scope: Scope, disk: Disk, driver: DiskDriver) -> None:
    bus, name = disk.target.bus, disk.target.dev
    virtio = bus is DiskBus.VIRTIO
    if driver.name is not None and driver.name != "qemu":
        raise qemu_unsupported(f"unsupported driver name '{driver.name}' for disk '{name}'")
    if driver.rerror_policy is ErrorPolicy.ENOSPACE:
        raise unsupported(f"Invalid disk read error policy: '{driver.rerror_policy}'")
    if not virtio:
        for word, value in (("ioeventfd", driver.ioeventfd), ("event_idx", driver.event_idx)):
            if value is not None:
                raise unsupported(f"disk {word} mode supported only for virtio bus")
        check_virtio_options(driver.virtio)
        if driver.queues is not None:
            raise unsupported("queues attribute in disk driver element is only supported by virtio-blk")
    if driver.io is DiskIo.NATIVE and driver.cache not in (DiskCache.NONE, DiskCache.DIRECTSYNC):
        if not (driver.cache is None and disk.shareable):
            raise qemu_unsupported("io='native' needs either no disk cache or directsync cache mode")
    if driver.copy_on_read and disk.readonly:
        raise qemu_unsupported(f"copy_on_read is not compatible with read-only disk '{name}'")
    if driver.iothread is not None:
        if not virtio:
            raise qemu_unsupported(f"IOThreads not available for bus {bus} target {name}")
        if driver.iothread not in thread_ids(scope.definition):
            raise qemu_unsupported(f"Disk iothread '{driver.iothread}' not defined in iothreadid")


def _check_identity(disk: Disk) -> None:
    bus = disk.target.bus
    if disk.wwn is not None and bus not in (DiskBus.IDE, DiskBus.SCSI):
        raise qemu_unsupported("Only ide and scsi disk support wwn")
    if (disk.vendor is not None or disk.product is not None) and bus is not DiskBus.SCSI:
        raise qemu_unsupported("Only scsi disk supports vendor and product")
    if disk.serial is not None and not set(disk.serial) <= _SAFE_SERIAL:
        raise qemu_internal(f"driver serial '{disk.serial}' contains unsafe characters")
    if disk.target.rotation_rate and bus not in (DiskBus.IDE, DiskBus.SCSI, DiskBus.SATA):
        raise qemu_internal("rotation rate is only valid for SCSI/IDE/SATA bus")
    if disk.target.dpofua is not None and bus is not DiskBus.SCSI:
        raise qemu_unsupported("dpofua is only supported for disks on a SCSI bus")
    if disk.readonly and disk.device is DiskDevice.DISK and bus in (DiskBus.IDE, DiskBus.SATA):
        raise qemu_unsupported(f"readonly {bus} disks are not supported")


def _check_geometry(disk: Disk) -> None:
    geometry, bus = disk.geometry, disk.target.bus
    if geometry is None:
        return
    if geometry.cyls and bus is DiskBus.USB:
        raise qemu_unsupported(f"CHS geometry can not be set for '{bus}' bus")
    if geometry.trans is not None and bus is not DiskBus.IDE:
        raise qemu_unsupported(f"CHS translation mode can only be set for 'ide' bus not '{bus}'")


def _check_sharing(disk: Disk) -> None:
    name, bus = disk.target.dev, disk.target.bus
    format_ = disk.driver.type if disk.driver else None
    if disk.shareable and format_ not in (None, StorageFormat.RAW):
        raise qemu_unsupported(f"shared access for disk '{name}' requires use of supported storage format")
    if disk.transient is None:
        return
    if disk.device is not DiskDevice.DISK:
        raise qemu_unsupported(f"transient disk supported only with 'disk' device ({name})")
    if disk.transient.share_backing and bus in (DiskBus.IDE, DiskBus.SATA):
        raise qemu_unsupported(f"disk bus '{bus}' doesn't support transiend disk backing image sharing")
