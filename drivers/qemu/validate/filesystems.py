"""Rules of folders that the guest shares with the host."""

from pyvirtd.drivers.qemu.postparse.refuse import qemu_unsupported, unsupported
from pyvirtd.drivers.qemu.postparse.scope import Scope
from pyvirtd.drivers.qemu.validate.memory import shares_memory
from pyvirtd.model.devices import AccessMode, Filesystem, FilesystemDriverType, FilesystemType


def check_filesystems(scope: Scope) -> None:
    """Every folder."""
    for filesystem in scope.devices.filesystem:
        virtiofs = _is_virtiofs(filesystem)
        if filesystem.info.boot is not None and not virtiofs:
            raise unsupported("boot order is only supported for virtiofs")
        if filesystem.type is not FilesystemType.MOUNT:
            raise qemu_unsupported("only supports mount filesystem type")
        if virtiofs:
            _check_virtiofs(scope, filesystem)
        else:
            _check_ninep(filesystem)


def _is_virtiofs(filesystem: Filesystem) -> bool:
    return filesystem.driver is not None and filesystem.driver.type is FilesystemDriverType.VIRTIOFS


def _check_ninep(filesystem: Filesystem) -> None:
    if (filesystem.fmode or filesystem.dmode) and filesystem.accessmode is not AccessMode.MAPPED:
        raise qemu_unsupported("fmode and dmode must be used with accessmode=mapped")
    kind = filesystem.driver.type if filesystem.driver is not None else None
    if kind not in (None, FilesystemDriverType.PATH, FilesystemDriverType.HANDLE):
        raise qemu_unsupported("Filesystem driver type not supported")


def _check_virtiofs(scope: Scope, filesystem: Filesystem) -> None:
    driver = filesystem.driver
    if filesystem.readonly:
        raise qemu_unsupported("virtiofs does not yet support read-only mode")
    if filesystem.accessmode not in (None, AccessMode.PASSTHROUGH):
        raise qemu_unsupported("only supports passthrough accessmode")
    refused = (
        ("wrpolicy", driver is not None and driver.wrpolicy is not None),
        ("model", filesystem.model is not None),
        ("multidevs", filesystem.multidevs is not None),
        ("format", driver is not None and driver.format_ is not None),
    )
    for word, given in refused:
        if given:
            raise qemu_unsupported(f"virtiofs does not support {word}")
    if not shares_memory(scope.definition):
        raise qemu_unsupported("'virtiofs' requires shared memory")
