"""The save image: a header, the domain's document and a cookie, then the guest's state, maybe compressed.

The layout is libvirt's, so that either daemon restores what the other saved: 16 bytes of magic; version, length of
the text section, whether the guest ran, the compression, the cookie's offset in the text section and 14 words
reserved, each 32 bits in the writer's byte order; the text section: the document, NUL, the cookie, NUL, zeros.

Everything here blocks: for a thread.
"""

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Self

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import OperationFailed

COMPLETE, PARTIAL = b"LibvirtQemudSave", b"LibvirtQemudPart"
VERSION = 2
SIZE = 92
ROOM = 64 << 10  # zeros after the text, so that an edited document still fits
ALIGNMENT = 4096  # where the state begins: what writing past the page cache needs
TEXT_MAX = 32 << 20
LITTLE, BIG = "<16s19I", ">16s19I"


class Format(IntEnum):
    """How the state is compressed; the name in lower case is the program's and qemu.conf's word."""

    RAW = 0
    GZIP = 1
    BZIP2 = 2
    XZ = 3
    LZOP = 4
    ZSTD = 5

    @classmethod
    def of(cls, word: str) -> "Format | None":
        """The format of qemu.conf's word."""
        return next((item for item in cls if item.name.lower() == word), None)


class IncompleteImage(OperationFailed):
    """A save that never ended."""

    domain = From.QEMU

    def __init__(self) -> None:
        super().__init__("save image is incomplete")


@dataclass(frozen=True, slots=True)
class Image:
    """All of a save image but the guest's state, which begins at `state_offset`.

    `room` is the length of the text section; `order` the byte order of the numbers.
    """

    xml: str
    running: bool
    format: Format = Format.RAW
    cookie: str | None = None
    room: int = 0
    complete: bool = False
    order: str = LITTLE

    @classmethod
    def new(cls, xml: str, *, running: bool, format: Format, cookie: str | None = None) -> Self:
        """An image that is about to be written."""
        image = cls(xml, running, format, cookie)
        total = -(-(SIZE + len(image._text()) + ROOM) // ALIGNMENT) * ALIGNMENT
        return replace(image, room=total - SIZE)

    @property
    def state_offset(self) -> int:
        return SIZE + self.room

    def edited(self, xml: str, *, running: bool) -> "Image":
        """With another document, in the room there is. Raises OperationFailed."""
        image = replace(self, xml=xml, running=running)
        if len(image._text()) > self.room:
            raise OperationFailed("new xml too large to fit in file", domain=From.QEMU)
        return image

    def _text(self) -> bytes:
        text = self.xml.encode("utf-8", "surrogateescape") + b"\0"
        return text if self.cookie is None else text + self.cookie.encode() + b"\0"

    def header(self) -> bytes:
        offset = 0 if self.cookie is None else len(self.xml.encode("utf-8", "surrogateescape")) + 1
        words = (VERSION, self.room, int(self.running), int(self.format), offset, *[0] * 14)
        return struct.pack(self.order, COMPLETE if self.complete else PARTIAL, *words)

    def prologue(self) -> bytes:
        """All that stands before the state."""
        return self.header() + self._text().ljust(self.room, b"\0")

    def finish(self, fd: int) -> None:
        """Mark the image in an open file as whole; what it holds is durable before it says so. Raises OSError."""
        os.fsync(fd)
        os.pwrite(fd, replace(self, complete=True).header(), 0)
        os.fsync(fd)


def open_image(path: Path, *, write: bool) -> int:
    """Open what may be an image. Raises OSError, and OperationFailed for what is none.

    A character device is not so much as opened: that alone makes some of them act.
    """
    mode = os.O_RDWR if write else os.O_RDONLY
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        kind = os.fstat(place).st_mode
        if stat.S_ISDIR(kind):
            raise _failed("failed to read qemu header")
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            raise _failed(f"'{path}' is no file that could be a save image")
        return os.open(f"/proc/self/fd/{place}", mode | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    finally:
        os.close(place)


def read_image(fd: int) -> Image:
    """The image in an open file; its position is where the state begins. Raises OperationFailed, IncompleteImage."""
    header = _read(fd, SIZE)
    if len(header) < SIZE:
        raise _failed("failed to read qemu header")
    order = LITTLE
    words = struct.unpack(order, header)
    if words[0] == PARTIAL:
        raise IncompleteImage
    if words[0] != COMPLETE:
        raise _failed("image magic is incorrect")
    if words[1] > VERSION:
        order = BIG
        words = struct.unpack(order, header)
    _, version, room, running, number, offset = words[:6]
    if version > VERSION:
        raise _failed(f"image version is not supported ({version} > {VERSION})")
    if not 0 < room <= TEXT_MAX:
        raise _failed(f"invalid header data length: {room}")
    if number not in {item.value for item in Format}:
        raise _failed(f"Invalid compressed save format {number}")
    data = _read(fd, room)
    if len(data) < room or b"\0" not in data[: offset or None]:
        raise _failed("failed to read domain XML")
    if offset >= room:
        raise _failed("failed to read domain XML")
    xml = data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    cookie = data[offset:].partition(b"\0")[0].decode("utf-8", "replace") if offset else None
    return Image(xml, bool(running), Format(number), cookie, room, complete=True, order=order)


def claim(fd: int, *, write: bool) -> None:
    """Keep others from writing an image (or reading one that is written), as long as any copy of the descriptor is
    open: QEMU's and a compressor's count, also when the daemon that gave it to them is gone. Raises OSError.
    """
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if write else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY)) from None
    except OSError as exc:
        if exc.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _read(fd: int, size: int) -> bytes:
    """Up to `size` bytes, all there are; nothing where the file cannot be read."""
    parts: list[bytes] = []
    try:
        while size > 0 and (part := os.read(fd, min(size, 1 << 20))):
            parts.append(part)
            size -= len(part)
    except OSError:
        return b""
    return b"".join(parts)


def _failed(text: str) -> OperationFailed:
    return OperationFailed(text, domain=From.QEMU)
