"""Disks of a definition: by the name a client gives, their data's path, the names QEMU has for them."""

from collections.abc import Iterator
from typing import NamedTuple

from pyvirtd.model.disk import Disk
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import AnySource, BackingStore, BlockSource, DirSource, FileSource, StorageFormat


def find_disk(definition: DomainDef, name: str) -> Disk | None:
    """The disk with this target (`vda`) or, for a name with a leading slash, with this path and no other with it."""
    disks = definition.devices.disk
    if not name.startswith("/"):
        return next((disk for disk in disks if disk.target.dev == name), None)
    found = [disk for disk in disks if local_path(disk.source) == name]
    return found[0] if len(found) == 1 else None


def local_path(source: AnySource | None) -> str:
    """The file, device or directory of this host that a source is; "" for other kinds and for an empty drive."""
    if isinstance(source, FileSource):
        return source.file or ""
    if isinstance(source, BlockSource):
        return source.dev or ""
    if isinstance(source, DirSource):
        return source.dir or ""
    return ""


def measured_path(source: AnySource | None) -> str:
    """Where the size of a source can be looked up; "" for what only QEMU can tell."""
    return "" if isinstance(source, FileSource) and source.fdgroup else local_path(source)


def is_empty(disk: Disk) -> bool:
    """Whether nothing is in the drive."""
    return disk.source is None or (
        isinstance(disk.source, FileSource | BlockSource | DirSource) and not local_path(disk.source)
    )


def disk_format(disk: Disk) -> StorageFormat | None:
    """The format a definition states; it is never guessed from the data, which is the guest's."""
    return disk.driver.type if disk.driver is not None else None


class Layer(NamedTuple):
    """One image of a disk's chain; `number` is its own in a running guest, 0 for none."""

    source: AnySource
    number: int
    format_: StorageFormat | None


def chain(disk: Disk) -> Iterator[Layer]:
    """The images of a disk that a definition names, the one that the guest writes first."""
    if disk.source is not None:
        yield Layer(disk.source, disk.source.index or 0, disk_format(disk))
    layer: BackingStore | None = disk.backing_store
    while layer is not None and layer.source is not None:
        format_ = layer.format_.type if layer.format_ is not None else None
        yield Layer(layer.source, layer.index or layer.source.index or 0, format_)
        layer = layer.backing_store


def format_node(index: int) -> str:
    """The block node in which QEMU has the data of a numbered image, as libvirt names it."""
    return f"libvirt-{index}-format"
