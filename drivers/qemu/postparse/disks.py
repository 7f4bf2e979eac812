"""Defaults of disks: bus, format, and the drive address that a target name stands for."""

from functools import lru_cache

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.drivers.qemu.disk_buses import BUS_OF_PREFIX, BUSES
from pyvirtd.drivers.qemu.postparse.controllers import grouped
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.errors import ConfigUnsupported, VirtError
from pyvirtd.model.address import DriveAddress
from pyvirtd.model.devices import Devices
from pyvirtd.model.disk import Disk, DiskBus, DiskDevice, DiskDriver, SnapshotLocation
from pyvirtd.model.hostdev import HostdevType
from pyvirtd.model.storage import (
    DEFAULT_PORTS,
    BackingStore,
    BlockSource,
    DirSource,
    Encryption,
    EncryptionEngine,
    FileSource,
    HostTransport,
    NetworkSource,
    NvmeSource,
    StorageFormat,
    StorageProtocol,
    StorageType,
    VhostUserSource,
    VolumeSource,
    data_source,
)

DOMAIN = ErrorDomain.DOMAIN


@lru_cache(4096)
def target_index(name: str) -> int | None:
    """The number of a target: vda is 0, vdz 25, vdaa 26; None for a name of another form."""
    for prefix in BUS_OF_PREFIX:
        letters = name.removeprefix(prefix).rstrip("0123456789")
        if name.startswith(prefix) and letters and letters.isascii() and letters.isalpha() and letters.islower():
            index = 0
            for letter in letters:
                index = index * 26 + ord(letter) - ord("a") + 1
            return index - 1
    return None


def has_partition(name: str) -> bool:
    return name[-1:].isdigit() and target_index(name) is not None


def complete_disks(scope: Scope) -> None:
    """Every disk, in libvirt's order."""
    for disk in scope.devices.disk:
        complete_disk(scope, disk)
    buses = grouped(scope.devices.disk, lambda disk: disk.target.bus)
    scope.devices.disk = [disk for bus in buses for disk in sorted(bus, key=_place)]


def _place(disk: Disk) -> int:
    return target_index(disk.target.dev or "") or 0


def complete_disk(scope: Scope, disk: Disk) -> None:
    """The defaults of one disk; its drive address is for `assign_drive_address`."""
    if disk.target.bus is None:
        disk.target.bus = _default_bus(disk)
    if disk.device is DiskDevice.CDROM:
        disk.readonly = True
    if is_empty(disk):
        if disk.type is not StorageType.VOLUME and disk.source is None:
            disk.type = StorageType.FILE
        disk.source = None
    if disk.readonly and disk.snapshot is SnapshotLocation.NO:
        disk.snapshot = None  # nothing to take one of
    _complete_driver(disk)
    _complete_source(disk)


def _default_bus(disk: Disk) -> DiskBus:
    if disk.device is DiskDevice.FLOPPY:
        return DiskBus.FDC
    name = disk.target.dev or ""
    return next(
        (bus for prefix, bus in BUS_OF_PREFIX.items() if name.startswith(prefix) and prefix != "fd"), DiskBus.IDE
    )


def is_empty(disk: Disk) -> bool:
    """A drive without a medium."""
    match disk.source:
        case None:
            return True
        case FileSource(file=path, fdgroup=None) | BlockSource(dev=path) | DirSource(dir=path):
            return not path
        case NetworkSource(protocol=None):
            return True
        case VolumeSource(pool=None):
            return True
        case _:
            return False


def _complete_driver(disk: Disk) -> None:
    driver = disk.driver = disk.driver or DiskDriver()
    if isinstance(disk.source, VhostUserSource):
        driver.name = driver.name or "qemu"
        driver.type = driver.type or StorageFormat.RAW
        disk.snapshot = disk.snapshot or SnapshotLocation.NO
        return
    driver.name = driver.name or "qemu"
    if driver.type is None and disk.type is not StorageType.VOLUME:
        driver.type = StorageFormat.RAW


def _complete_source(disk: Disk) -> None:
    """Sources of all layers."""
    complete_encryption(disk.encryption)
    layer: BackingStore | None = BackingStore(source=disk.source, backing_store=disk.backing_store)
    while layer is not None:
        for source in (layer.source, data_source(layer.source)):
            if source is not None:
                complete_encryption(source.common.encryption)
            if isinstance(source, NetworkSource):
                complete_network_source(source)
            if isinstance(source, NvmeSource) and source.managed is None:
                source.managed = True
        layer = layer.backing_store


def complete_encryption(encryption: Encryption | None) -> None:
    """QEMU itself decrypts unless the definition says who else."""
    if encryption is not None and encryption.engine is None and encryption.format_ is not None:
        encryption.engine = EncryptionEngine.QEMU


_WITH_SSL = (StorageProtocol.HTTPS, StorageProtocol.FTPS)


def default_port(protocol: StorageProtocol) -> int:
    """The protocol's TCP port; 0 where there is none."""
    return DEFAULT_PORTS.get(protocol, 0)


def complete_network_source(source: NetworkSource) -> None:
    """Ports of hosts; an iSCSI target without a unit means unit 0."""
    if source.protocol not in _WITH_SSL:
        source.ssl_verify = None
    for host in source.host:
        if host.port is None and host.transport in (None, HostTransport.TCP) and source.protocol is not None:
            host.port = default_port(source.protocol) or None
    if source.protocol is StorageProtocol.ISCSI and source.name and "/" not in source.name:
        source.name += "/0"


def assign_drive_address(devices: Devices, disk: Disk) -> None:
    """The place on its controller that the target's name stands for. Raises where the name has another form."""
    bus = disk.target.bus
    places = BUSES[bus].places if bus is not None else None
    if disk.info.address is not None or places is None:
        return
    index = target_index(disk.target.dev or "")
    if index is None:
        raise UnknownTarget(f"Unknown disk name '{disk.target.dev}' and no address specified")
    controller, place = divmod(index, places.buses * places.units)
    disk.info.address = DriveAddress(controller=controller, bus=place // places.units, unit=place % places.units)
    if bus is DiskBus.SCSI:
        _check_scsi_conflict(devices, disk, disk.info.address)


class UnknownTarget(VirtError):
    domain = DOMAIN


def _check_scsi_conflict(devices: Devices, disk: Disk, address: DriveAddress) -> None:
    for hostdev in devices.hostdev:
        if hostdev.type is HostdevType.SCSI and hostdev.info.address == address:
            raise ConfigUnsupported(
                f"using disk target name '{disk.target.dev}' conflicts with SCSI host device address "
                f"controller='{address.controller}' bus='{address.bus}' target='{address.target}' "
                f"unit='{address.unit}'",
                domain=DOMAIN,
            )
