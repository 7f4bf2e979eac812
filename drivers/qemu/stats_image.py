"""How big disk images at rest are: what the host gives them, and what a guest would see.

The format is the definition's; an image whose data does not begin as its format says counts as raw, as libvirt has it.
Reading blocks, on a dead network file system for ever, so it happens in threads of its own.
"""

import asyncio
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.blocks_find import local_path
from pyvirtd.errors import InternalError, OperationTimeout, OperationUnsupported, from_os_error
from pyvirtd.model.disk import Disk
from pyvirtd.model.storage import FileSource, NetworkSource, StorageFormat

T = TypeVar("T")

SECTOR = 512
HEADER_BYTES = 512

_pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="images")


def require_local(disk: Disk) -> str:
    """The file or device of a disk. Raises InternalError for storage that is not on this host."""
    path = local_path(disk.source)
    refuse_lent(disk)
    if not path:
        if isinstance(disk.source, NetworkSource):
            detail = f"missing storage backend for network files using {disk.source.protocol} protocol"
        else:
            detail = f"missing storage backend for '{disk.type}' storage"
        raise InternalError(detail, domain=From.STORAGE)
    return path


def refuse_lent(disk: Disk) -> None:
    """Raises OperationUnsupported for an image that is had as a descriptor: its name need not be that of a file."""
    if isinstance(disk.source, FileSource) and disk.source.fdgroup:
        raise OperationUnsupported("block info is not supported for FD passed disk image", domain=From.QEMU)


class ImageSize(NamedTuple):
    """Bytes the host has given to an image, a guest sees, and the file or device is long."""

    allocation: int
    capacity: int
    physical: int


class _Header(NamedTuple):
    """Where a format keeps the size that the guest sees: magic, layout of the number, its place, its unit."""

    magic: bytes
    layout: str
    offset: int
    unit: int
    magic_offset: int = 0


# docs/interop/qcow2.txt, qed_spec.txt of QEMU; the VMDK, VDI and VHD specifications
_HEADERS = {
    StorageFormat.QCOW2: _Header(b"QFI\xfb", ">Q", 24, 1),
    StorageFormat.QCOW: _Header(b"QFI\xfb", ">Q", 24, 1),
    StorageFormat.QED: _Header(b"QED\0", "<Q", 48, 1),
    StorageFormat.VMDK: _Header(b"KDMV", "<Q", 12, SECTOR),
    StorageFormat.VDI: _Header(b"\x7f\x10\xda\xbe", "<Q", 0x170, 1, magic_offset=0x40),
    StorageFormat.VPC: _Header(b"conectix", ">Q", 48, 1),
}


def measure(path: str, format_: StorageFormat | None) -> ImageSize:
    """The sizes of one image; zeros for what is neither a file nor a block device. Raises OSError. Blocks."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        info = os.fstat(fd)
        if stat.S_ISREG(info.st_mode):
            physical, allocation = info.st_size, info.st_blocks * SECTOR
        elif stat.S_ISBLK(info.st_mode):
            physical = allocation = os.lseek(fd, 0, os.SEEK_END)
        else:
            return ImageSize(0, 0, 0)
        header = _HEADERS.get(format_) if format_ is not None else None
        capacity = physical if header is None else _capacity(os.pread(fd, HEADER_BYTES, 0), header, physical)
        return ImageSize(allocation, capacity, physical)
    finally:
        os.close(fd)


def _capacity(data: bytes, header: _Header, physical: int) -> int:
    size = struct.calcsize(header.layout)
    begin = header.magic_offset
    if data[begin : begin + len(header.magic)] != header.magic or len(data) < header.offset + size:
        return physical
    (number,) = struct.unpack_from(header.layout, data, header.offset)
    return int(number) * header.unit


class Image(NamedTuple):
    """An image to measure."""

    path: str
    format_: StorageFormat | None


async def measure_all(images: Sequence[Image], timeout: float) -> list[ImageSize | None]:
    """The sizes of many images, None for one that cannot be read; all None when that takes too long."""
    if not images:
        return []
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.get_running_loop().run_in_executor(_pool, _measure_each, images)
    except TimeoutError:
        return [None] * len(images)


def _measure_each(images: Sequence[Image]) -> list[ImageSize | None]:
    return [_measure_or_none(image) for image in images]


def _measure_or_none(image: Image) -> ImageSize | None:
    try:
        return measure(image.path, image.format_)
    except OSError:
        return None


async def measure_one(image: Image, timeout: float, domain: From) -> ImageSize:
    """The sizes of one image. Raises SystemError_ "Failed to open file", OperationTimeout."""
    return await _in_pool(image.path, timeout, lambda: measure(image.path, image.format_), domain)


async def peek(path: str, offset: int, size: int, timeout: float) -> bytes:
    """The bytes of a file or device from `offset`, fewer than `size` at its end. Raises as `measure_one`."""
    return await _in_pool(path, timeout, lambda: _read_at(path, offset, size), From.STORAGE)


async def _in_pool(path: str, timeout: float, work: Callable[[], T], domain: From) -> T:
    try:
        async with asyncio.timeout(timeout):
            return await asyncio.get_running_loop().run_in_executor(_pool, work)
    except TimeoutError:
        raise OperationTimeout(f"the storage of '{path}' does not answer", domain=domain) from None
    except OSError as exc:
        raise from_os_error(exc, f"Failed to open file '{path}'", domain=domain) from exc


def _read_at(path: str, offset: int, size: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(mode := os.fstat(fd).st_mode) and not stat.S_ISBLK(mode):
            return b""
        return b"".join(_read_pieces(fd, offset, size))
    finally:
        os.close(fd)


def _read_pieces(fd: int, offset: int, size: int) -> Iterator[bytes]:
    """A read of a device may give less than it was asked for."""
    while size and (piece := os.pread(fd, size, offset)):
        yield piece
        offset, size = offset + len(piece), size - len(piece)
