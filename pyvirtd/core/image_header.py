"""What the header of a disk image says of the image below it and of where its data are.

Pure: bytes in, a value out; hostile bytes do no harm.
The format is always the one that somebody vouches for: the data may be a guest's, and a guest must not choose how its
disk is read. docs/interop/qcow2.txt, qed_spec.txt of QEMU; the VMDK specification
"""

import re
import struct
from typing import NamedTuple

from pyvirtd.model.storage import StorageFormat

HEADER_BYTES = 33280  # as much as is looked at: the first sectors and a VMDK's descriptor
NAME_MAX = 1023  # bytes of a backing file's name in qcow2
_QCOW_MAGIC, _QED_MAGIC, _VMDK_MAGIC = b"QFI\xfb", b"QED\0", b"KDMV"
# qcow2: header extensions, and the feature that the data are elsewhere
_BACKING_FORMAT, _DATA_FILE, _HAS_DATA_FILE = 0xE2792ACA, 0x44415441, 1 << 2
_V3_LENGTH = 100  # where the length of qcow2's header stands from version 3 on
_QED_HAS_BACKING, _QED_BACKING_IS_RAW = 1, 4
_VMDK_DESCRIPTOR = 512
_NO_PARENT = "ffffffff"
# Beginnings of images by which they are known; the place of each in the file.
_MAGICS = (
    (StorageFormat.QCOW2, 0, b"QFI\xfb\0\0\0\x02"),
    (StorageFormat.QCOW2, 0, b"QFI\xfb\0\0\0\x03"),
    (StorageFormat.QCOW, 0, b"QFI\xfb\0\0\0\x01"),
    (StorageFormat.QED, 0, _QED_MAGIC),
    (StorageFormat.VMDK, 0, _VMDK_MAGIC),
    (StorageFormat.VMDK, 0, b"# Disk DescriptorFile"),
    (StorageFormat.VDI, 0x40, b"\x7f\x10\xda\xbe"),
    (StorageFormat.VPC, 0, b"conectix"),
    (StorageFormat.VHD, 0, b"vhdxfile"),
    (StorageFormat.LUKS, 0, b"LUKS\xba\xbe"),
    (StorageFormat.PLOOP, 0, b"WithoutFreeSpace"),
    (StorageFormat.PLOOP, 0, b"WithouFreSpacExt"),
    (StorageFormat.BOCHS, 0, b"Bochs Virtual HD Image"),
    (StorageFormat.COW, 0, b"OOOM"),
)


class Backing(NamedTuple):
    """The image below, by the name that the header gives it. `format_`: what the header says that it is, if it does."""

    name: str
    format_: str | None


def backing_of(data: bytes, kind: StorageFormat) -> Backing | None:
    """The image below the one that begins with `data`; None where there is none, or the data is not of that format."""
    try:
        match kind:
            case StorageFormat.QCOW2 | StorageFormat.QCOW if data[:4] == _QCOW_MAGIC:
                return _qcow(data)
            case StorageFormat.QED if data[:4] == _QED_MAGIC:
                return _qed(data)
            case StorageFormat.VMDK:
                return _vmdk(data)
    except struct.error:  # it ends within its header
        pass
    return None


def data_file_of(data: bytes) -> str | None:
    """The name of the file that holds the data of the qcow2 image that begins with `data`; None where it does."""
    try:
        version, bits, features = struct.unpack_from(">I12xI48xQ", data, 4)
        if data[:4] != _QCOW_MAGIC or version < 3 or not features & _HAS_DATA_FILE:
            return None
        (begin,) = struct.unpack_from(">I", data, _V3_LENGTH)
        return _extension(data, begin, 1 << min(bits, 32), _DATA_FILE)
    except struct.error:  # it ends within its header
        return None


def looks_like(data: bytes) -> StorageFormat:
    """The format that data seems to have; raw where it is none that is known."""
    return next((kind for kind, place, magic in _MAGICS if data[place:].startswith(magic)), StorageFormat.RAW)


def _qcow(data: bytes) -> Backing | None:
    version, offset, size = struct.unpack_from(">IQI", data, 4)
    name = _name(data, offset, size)
    if not name:
        return None
    if version == 1:
        return Backing(name, None)
    begin = struct.unpack_from(">I", data, _V3_LENGTH)[0] if version > 2 else 72
    return Backing(name, _extension(data, begin, offset, _BACKING_FORMAT))


def _extension(data: bytes, begin: int, end: int, wanted: int) -> str | None:
    """The text of one of the header extensions, which are: type, length, data filled up to eight bytes."""
    end = min(end, len(data))
    while begin + 8 <= end:
        kind, size = struct.unpack_from(">II", data, begin)
        begin += 8
        if kind == 0 or size > end - begin:
            return None
        if kind == wanted:
            return data[begin : begin + size].decode("utf-8", "surrogateescape") or None
        begin += size + -size % 8
    return None


def _qed(data: bytes) -> Backing | None:
    (features,) = struct.unpack_from("<Q", data, 16)
    offset, size = struct.unpack_from("<II", data, 56)
    if not features & _QED_HAS_BACKING or not (name := _name(data, offset, size)):
        return None
    return Backing(name, str(StorageFormat.RAW) if features & _QED_BACKING_IS_RAW else None)


def _vmdk(data: bytes) -> Backing | None:
    text = data[_VMDK_DESCRIPTOR:] if data[:4] == _VMDK_MAGIC else data
    found = re.search(rb'^parentFileNameHint="([^"\n]{1,1024})"', text, re.MULTILINE)
    parent = re.search(rb"^parentCID=([0-9a-fA-F]{1,8})", text, re.MULTILINE)
    if found is None or (parent is not None and parent[1].decode().lower() == _NO_PARENT):
        return None
    return Backing(found[1].decode("utf-8", "surrogateescape"), str(StorageFormat.VMDK))


def _name(data: bytes, offset: int, size: int) -> str:
    if not offset or not 0 < size <= NAME_MAX or offset + size > len(data):
        return ""
    return data[offset : offset + size].split(b"\0")[0].decode("utf-8", "surrogateescape")
