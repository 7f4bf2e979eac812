"""Rules of where a disk's data comes from: formats, hosts, secrets, encryption, reservations, NVMe."""

from pyvirtd.drivers.qemu.postparse.given_disks import chain_of
from pyvirtd.drivers.qemu.postparse.refuse import qemu_unsupported, unsupported, xml
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.model.disk import Disk, DiskDevice
from pyvirtd.model.storage import (
    AnySource,
    DirSource,
    Encryption,
    EncryptionEngine,
    EncryptionFormat,
    NetworkSource,
    StorageFormat,
    StorageProtocol,
)

_NO_BLOCKDEV = (StorageProtocol.TFTP, StorageProtocol.VXHS)


def check_source(scope: Scope, disk: Disk) -> None:
    """Whether this QEMU can open every layer."""
    for source, kind in chain_of(disk):
        _check_format(disk, source, kind)
        _check_data(disk, source, kind)
        if isinstance(source, NetworkSource):
            check_protocol(source)
        encryption = source.common.encryption or (disk.encryption if source is disk.source else None)
        if encryption is not None:
            _check_encryption(source, kind, encryption)
        if source.common.reservations is not None and disk.device is not DiskDevice.LUN:
            raise unsupported("<reservations/> allowed only for lun devices")


def _check_format(disk: Disk, source: AnySource, kind: StorageFormat | None) -> None:
    match kind:
        case StorageFormat.COW:
            raise qemu_unsupported("'cow' storage format is not supported")
        case StorageFormat.ISO:
            raise qemu_unsupported("storage format 'iso' is not directly supported by QEMU, use 'raw' instead")
        case StorageFormat.DIR:
            raise qemu_unsupported(
                "'directory' storage format is not directly supported by QEMU, use 'dir' disk type instead"
            )
        case StorageFormat.FAT if not isinstance(source, DirSource):
            raise qemu_unsupported("storage format 'fat' is supported only with 'dir' storage type")
        case _:
            pass
    if isinstance(source, DirSource):
        if kind is not StorageFormat.FAT:
            raise qemu_unsupported("storage type 'dir' requires use of storage format 'fat'")
        if not disk.readonly and disk.device is not DiskDevice.FLOPPY:
            raise qemu_unsupported("virtual FAT storage can't be accessed in read-write mode")


def _check_data(disk: Disk, source: AnySource, kind: StorageFormat | None) -> None:
    """Only qcow2 can keep its data elsewhere, and only as they are."""
    held = source.common.data_store
    if held is None:
        return
    target = disk.target.dev
    if kind is not StorageFormat.QCOW2:
        raise unsupported(f"<dataStore> of disk '{target}' can be used only with images of format 'qcow2'")
    if held.source is None:
        raise xml(f"missing source of <dataStore> of disk '{target}'")
    if held.format_ is None or held.format_.type is not StorageFormat.RAW:
        raise unsupported(f"<dataStore> of disk '{target}' can only have the format 'raw'")
    if held.source.common.data_store is not None:
        raise unsupported(f"<dataStore> of disk '{target}' cannot have a <dataStore> itself")


def check_protocol(source: NetworkSource) -> None:
    """What QEMU's network drivers can do."""
    protocol = source.protocol
    if source.tls_hostname is not None and protocol is not StorageProtocol.NBD:
        raise qemu_unsupported("'tlsHostname' field is supported only with NBD disks")
    if protocol is StorageProtocol.TFTP:
        raise qemu_unsupported("'tftp' protocol is not supported with this QEMU binary")
    if protocol is StorageProtocol.NFS:
        if len(source.host) != 1:
            raise qemu_unsupported("'nfs' protocol requires the usage of exactly one host")
        if source.host[0].transport not in (None, "tcp"):
            raise qemu_unsupported("'nfs' host must use TCP protocol")
        if source.host[0].port:
            raise qemu_unsupported("port cannot be specified in 'nfs' protocol host")


def _check_encryption(source: AnySource, kind: StorageFormat | None, encryption: Encryption) -> None:
    if encryption.engine is EncryptionEngine.LIBRBD:
        if not (isinstance(source, NetworkSource) and source.protocol is StorageProtocol.RBD):
            raise qemu_unsupported("librbd encryption is supported only with RBD backed disks")
        return
    if encryption.format_ in (EncryptionFormat.QCOW, EncryptionFormat.DEFAULT):
        raise qemu_unsupported("old qcow/qcow2 encryption is not supported")
    if encryption.format_ is EncryptionFormat.LUKS2:
        raise qemu_unsupported("luks2 is currently not supported by the qemu encryption engine")
    if kind not in (None, StorageFormat.RAW, StorageFormat.QCOW2):
        raise qemu_unsupported("encryption is supported only with 'raw' and 'qcow2' image format")
