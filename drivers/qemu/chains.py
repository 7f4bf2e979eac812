"""The chain of images below each disk of a guest that is about to start, and the files that hold their data: read from
the images' headers, written into the live definition, so that every layer is named, given to the guest's user and
opened as what it is.

A definition that names layers itself is followed as far as it goes. Nothing of a raw image is looked at.
"""

import os

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.image_header import HEADER_BYTES, Backing, backing_of, data_file_of, looks_like
from pyvirtd.drivers.qemu.backing_names import source_of
from pyvirtd.drivers.qemu.descriptors import Groups
from pyvirtd.errors import InternalError, NoStoragePool, OperationInvalid, VirtError, from_os_error
from pyvirtd.model.disk import Disk, DiskDriver
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import (
    AnySource,
    BackingStore,
    ChainFormat,
    DataStore,
    DirSource,
    FileSource,
    StorageFormat,
    StorageType,
    VolumeSource,
    data_source,
    host_path,
)
from pyvirtd.util.process import Identity

DEPTH_MAX = 200
HELP = "https://libvirt.org/kbase/backing_chains.html"
_ENDS = (StorageFormat.RAW, StorageFormat.DIR, StorageFormat.ISO, StorageFormat.FAT)


def detect_chains(live: DomainDef, identity: Identity, lent: Groups | None = None) -> None:
    """Complete the chain of every disk; `identity`: whom QEMU runs as, which errors name; `lent`: the descriptors by
    which some are had. Blocks. Raises VirtError.
    """
    for disk in live.devices.disk:
        if disk.source is None:
            if disk.driver is not None:
                disk.driver.type = None
        else:
            _Chain(disk, disk.source, identity, lent or {}).complete()


class _Chain:
    """One disk's chain, from the image that the guest writes to down to the last one."""

    def __init__(self, disk: Disk, top: AnySource, identity: Identity, lent: Groups) -> None:
        self.disk = disk
        self.lent = lent
        self.top = top
        self.identity = identity
        self.seen: set[str] = set()

    def complete(self) -> None:
        """Write the layers into the disk. Raises VirtError."""
        if isinstance(self.top, VolumeSource):
            raise NoStoragePool(f"no storage pool with matching name '{self.top.pool}'", domain=From.STORAGE)
        parent: Disk | BackingStore = self.disk
        source: AnySource = self.top
        kind = (self.disk.driver or DiskDriver()).type or StorageFormat.RAW
        for _ in range(DEPTH_MAX):
            self._find_data(source, kind)
            store = parent.backing_store
            if store is None:
                store = parent.backing_store = self._below(source, kind)
            if store is None or store.source is None:
                return
            if (path := host_path(store.source)) is not None:
                self._require(path)
            parent, source = store, store.source
            kind = (store.format_.type if store.format_ is not None else None) or StorageFormat.RAW
        raise InternalError(f"backing chain for '{_name_of(self.top)}' is too deep", domain=From.STORAGE)

    def _find_data(self, source: AnySource, kind: StorageFormat) -> None:
        """Note where an image keeps its data, and see that it is there."""
        path = _name_of(source)
        if kind is StorageFormat.QCOW2 and path is not None and source.common.data_store is None:
            name = data_file_of(self._quiet_head(source))
            if name is not None:
                held = source_of(name, path)
                format_ = ChainFormat(type=StorageFormat.RAW)
                source.common.data_store = DataStore(type=StorageType(held.case[0]), format_=format_, source=held)
        if (data := host_path(data_source(source))) is not None:
            self._require(data, "data file")

    def _below(self, source: AnySource, kind: StorageFormat) -> BackingStore | None:
        """The layer below an image; an empty one where the chain ends, None where that cannot be told."""
        path = _name_of(source)
        if kind in _ENDS or isinstance(source, DirSource):
            return BackingStore()
        if path is None:
            return None
        if (real := os.path.realpath(path)) in self.seen:
            raise InternalError(f"backing store for {path} ({path}) is self-referential", domain=From.STORAGE)
        self.seen.add(real)
        try:
            found = backing_of(self._head(source), kind)
        except PermissionError:
            return None  # a file system that maps root to nobody: QEMU's user may be able to
        except OSError as exc:
            raise from_os_error(exc, f"Failed to open file '{path}'", domain=From.STORAGE) from exc
        if found is None:
            return BackingStore()
        below = source_of(found.name, path)
        format_ = ChainFormat(type=self._format(found, below, path))
        return BackingStore(type=StorageType(below.case[0]), format_=format_, source=below)

    def _format(self, found: Backing, below: AnySource, above: str) -> StorageFormat:
        """What the header says; without that only an image that is nothing else may count as raw."""
        if found.format_ is not None and found.format_ in set(StorageFormat):
            return StorageFormat(found.format_)
        path = host_path(below)
        if path is not None:
            self._require(path)
            if looks_like(self._quiet_head(below)) is StorageFormat.RAW:
                return StorageFormat.RAW
        raise OperationInvalid(
            f"format of backing image '{found.name}' of image '{above}' was not specified in the image metadata"
            f" (See {HELP} for troubleshooting)",
            domain=From.STORAGE,
        )

    def _head(self, source: AnySource) -> bytes:
        """The beginning of an image, by its descriptor where it is lent. Raises OSError."""
        group = self.lent.get(getattr(source, "fdgroup", None) or "")
        if group:
            return os.pread(group[0], HEADER_BYTES, 0)
        return read_head(host_path(source) or "", HEADER_BYTES)

    def _quiet_head(self, source: AnySource) -> bytes:
        try:
            return self._head(source)
        except OSError:
            return b""

    def _require(self, path: str, noun: str = "backing file") -> None:
        """A layer must be there. Others' permissions are QEMU's matter."""
        try:
            os.stat(path)
        except PermissionError:
            pass
        except OSError as exc:
            what = f"Cannot access {noun} '{path}' of storage file '{_name_of(self.top)}'"
            raise missing(exc, what, self.identity) from exc


def _name_of(source: AnySource) -> str | None:
    """What an image on this host is called; names in its header are relative to that."""
    return (source.file if isinstance(source, FileSource) else host_path(source)) or None


def missing(exc: OSError, what: str, identity: Identity) -> VirtError:
    """The error for an image that cannot be reached."""
    return from_os_error(exc, f"{what} (as uid:{identity.uid}, gid:{identity.gid})", domain=From.STORAGE)


def read_head(path: str, size: int) -> bytes:
    """The first bytes of an image; never waits for a pipe's other end."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)
