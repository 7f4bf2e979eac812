"""The layout of save images, byte by byte; both byte orders; damaged ones."""

import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from pyvirtd.drivers.qemu.saving.image import (
    ALIGNMENT,
    BIG,
    ROOM,
    SIZE,
    Format,
    Image,
    IncompleteImage,
    read_image,
)
from pyvirtd.errors import OperationFailed


def image(**more: object) -> Image:
    made = Image.new("<domain/>", running=True, format=Format.ZSTD, cookie="<cookie/>")
    return replace(made, complete=True, **more)  # type: ignore[arg-type]


def read(tmp_path: Path, data: bytes) -> Image:
    path = tmp_path / "image"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDONLY)
    try:
        found = read_image(fd)
        assert os.lseek(fd, 0, os.SEEK_CUR) == found.state_offset
        return found
    finally:
        os.close(fd)


def test_header_is_libvirts() -> None:
    data = image().prologue()
    assert data[:16] == b"LibvirtQemudSave"
    version, room, running, compressed, cookie = struct.unpack_from("<5I", data, 16)
    assert (version, running, compressed) == (2, 1, 5)
    assert len(data) == SIZE + room
    assert data[SIZE:].startswith(b"<domain/>\0<cookie/>\0\0")
    assert data[SIZE + cookie :].startswith(b"<cookie/>\0")
    assert data[36:SIZE] == bytes(56)


def test_state_begins_where_direct_writing_can() -> None:
    found = image()
    assert found.state_offset % ALIGNMENT == 0
    assert found.room > ROOM


@pytest.mark.parametrize("order", ["<16s19I", BIG])
def test_either_byte_order_is_read(tmp_path: Path, order: str) -> None:
    written = image(order=order)
    assert read(tmp_path, written.prologue() + b"state") == written


def test_an_image_is_partial_until_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "image"
    new = replace(image(), complete=False)
    path.write_bytes(new.prologue())
    with pytest.raises(IncompleteImage, match="save image is incomplete"):
        read(tmp_path, path.read_bytes())
    fd = os.open(path, os.O_RDWR)
    new.finish(fd)
    os.close(fd)
    assert read(tmp_path, path.read_bytes()) == image()


def test_an_edited_document_keeps_the_state_where_it_is(tmp_path: Path) -> None:
    edited = image().edited("<domain>" + "x" * 1000 + "</domain>", running=False)
    found = read(tmp_path, edited.prologue())
    assert found.state_offset == image().state_offset
    assert (found.running, found.cookie, len(found.xml)) == (False, "<cookie/>", 1017)


def test_a_document_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OperationFailed, match="new xml too large to fit in file"):
        image().edited("x" * (2 * ROOM), running=True)


WHOLE = image().prologue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "failed to read qemu header"),
        (WHOLE[: SIZE - 1], "failed to read qemu header"),
        (b"x" * 200, "image magic is incorrect"),
        (WHOLE[:16] + bytes(76) + WHOLE[SIZE:], "invalid header data length: 0"),
        (WHOLE[:20] + b"\xff\xff\xff\xff" + WHOLE[24:], "invalid header data length: 4294967295"),
        (WHOLE[:16] + b"\x03\0\0\x03" + WHOLE[20:], "image version is not supported"),
        (WHOLE[:28] + b"\x09\0\0\0" + WHOLE[32:], "Invalid compressed save format 9"),
        (WHOLE[:32] + b"\xff\xff\xff\0" + WHOLE[36:], "failed to read domain XML"),
        (WHOLE[:-1], "failed to read domain XML"),
        (WHOLE[:32] + bytes(4) + b"x" * (len(WHOLE) - 36), "failed to read domain XML"),
    ],
)
def test_a_damaged_image_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(OperationFailed, match=message):
        read(tmp_path, data)
