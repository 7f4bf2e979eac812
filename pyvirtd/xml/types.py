"""Scalar types of the XML documents: how a word is read, range-checked and printed.

Use the aliases in annotations: `port: U16 | None = attr()`. A plain `str`, `int`, `bool` or `StrEnum` needs no alias:
they stand for text, a signed 32-bit integer, yes/no and the enum's words.
"""

import re
import socket
import uuid as uuid_module
from collections.abc import Callable, Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import Annotated, Any

from pyvirtd.errors import InvalidArg, Overflow, VirtError
from pyvirtd.xml.bitmap import Bitmap as Bitmap
from pyvirtd.xml.bitmap import format_bitmap as format_bitmap


@dataclass(frozen=True, slots=True)
class Codec:
    """How one scalar travels: `parse` raises ValueError, `expects` is libvirt's tail of the error text."""

    name: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str]
    expects: str = ""
    escape: bool = False  # printed values may hold characters that need escaping
    refusal: Callable[[str], VirtError] | None = None  # the error for a refused word, when it is not the usual one


class ScalarError(ValueError):
    """A value that is refused with words of its own, put after "Invalid value for attribute 'a' in element 'e': "."""


_DECIMAL = re.compile(r"[ \t\r\n]*([+-]?[0-9]+)")
_AUTO = re.compile(r"[ \t\r\n]*([+-]?(?:0[xX][0-9a-fA-F]+|[0-9]+))")
_HEX = re.compile(r"[ \t\r\n]*(?:0[xX])?([0-9a-fA-F]+)")

NUMBERS = 2048  # words that are remembered: definitions are full of the same small numbers


@lru_cache(NUMBERS)
def integer(word: str, low: int, high: int) -> int:
    """A decimal number in [low, high]."""
    match = _DECIMAL.fullmatch(word)
    if match is None or len(word) > 40:
        raise ValueError(word)
    value = int(match[1])
    if not low <= value <= high:
        raise ValueError(word)
    return value


@lru_cache(NUMBERS)
def any_base_integer(word: str, low: int, high: int) -> int:
    """A number in [low, high], hexadecimal after 0x, octal after 0."""
    match = _AUTO.fullmatch(word)
    if match is None or len(word) > 40:
        raise ValueError(word)
    digits = match[1].lower()
    body = digits.lstrip("+-")
    if body.startswith("0x"):
        value = int(body, 16)
    elif body.startswith("0") and len(body) > 1:
        value = int(body, 8)
    else:
        value = int(body)
    if digits.startswith("-"):
        value = -value
    if not low <= value <= high:
        raise ValueError(word)
    return value


def hexadecimal(word: str, high: int) -> int:
    """A hexadecimal number up to `high`, with or without 0x."""
    match = _HEX.fullmatch(word)
    if match is None or len(word) > 40:
        raise ValueError(word)
    value = int(match[1], 16)
    if value > high:
        raise ValueError(word)
    return value


def octal(word: str) -> int:
    """A file mode, octal with or without a leading 0."""
    match = _DECIMAL.fullmatch(word)
    if match is None or len(word) > 20 or word.lstrip().startswith("-"):
        raise ValueError(word)
    return int(match[1], 8)


def _ranged(name: str, low: int, high: int, expects: str) -> Codec:
    return Codec(name, lambda word: integer(word, low, high), str, expects)


def _nonzero(name: str, high: int) -> Codec:
    def parse(word: str) -> int:
        value = integer(word, 0, high)
        if value == 0:
            raise ScalarError("Zero is not permitted")
        return value

    return Codec(name, parse, str, "Expected non-negative integer value")


def _printed_hex(name: str, high: int, form: str, expects: str = "Expected non-negative integer value") -> Codec:
    return Codec(name, lambda word: any_base_integer(word, 0, high), form.__mod__, expects)


_UNSIGNED = "Expected non-negative integer value"
_I32 = _ranged("integer", -(1 << 31), (1 << 31) - 1, "Expected integer value")
_STRING = Codec("text", lambda word: word, lambda value: value, escape=True)

I32 = Annotated[int, _I32]


def _count(word: str) -> int:
    value = integer(word, -(1 << 31), (1 << 31) - 1)
    if value < 0:
        raise ScalarError(f"'{word}'. Expected non-negative value")
    return value


Count32 = Annotated[int, Codec("count", _count, str, "Expected integer value")]
I64 = Annotated[int, _ranged("64-bit integer", -(1 << 63), (1 << 63) - 1, "Expected long long integer value")]
U8 = Annotated[int, _ranged("8-bit unsigned", 0, (1 << 8) - 1, _UNSIGNED)]
U16 = Annotated[int, _ranged("16-bit unsigned", 0, (1 << 16) - 1, _UNSIGNED)]
U24 = Annotated[int, Codec("24-bit unsigned", lambda w: any_base_integer(w, 0, (1 << 24) - 1), str, _UNSIGNED)]
U32 = Annotated[int, _ranged("unsigned", 0, (1 << 32) - 1, _UNSIGNED)]


def _lenient(word: str) -> int | None:
    try:
        return integer(word, 0, (1 << 32) - 1)
    except ValueError:
        return None


LenientU32 = Annotated[int | None, Codec("unsigned, anything else is none", _lenient, str)]
U64 = Annotated[int, _ranged("64-bit unsigned", 0, (1 << 64) - 1, _UNSIGNED)]
Positive32 = Annotated[int, _nonzero("positive", (1 << 32) - 1)]
Hex1 = Annotated[int, _printed_hex("hex digit", (1 << 32) - 1, "0x%x")]
Hex8 = Annotated[int, _printed_hex("8-bit hex", (1 << 32) - 1, "0x%02x")]
Hex16 = Annotated[int, _printed_hex("16-bit hex", (1 << 32) - 1, "0x%04x")]
UpperHex8 = Annotated[int, _printed_hex("8-bit hex", (1 << 8) - 1, "0x%02X", "Expected integer value")]
UpperHex16 = Annotated[int, _printed_hex("16-bit hex", (1 << 16) - 1, "0x%04X", "Expected integer value")]
Hex32 = Annotated[int, _printed_hex("32-bit hex", (1 << 32) - 1, "0x%08x")]
HexPort = Annotated[
    int,
    Codec("port", lambda w: any_base_integer(w, -(1 << 31), (1 << 31) - 1), "0x%x".__mod__, "Expected integer value"),
]
Octal = Annotated[int, Codec("octal mode", lambda w: octal(w), "0%03o".__mod__, "Expected non-negative integer value")]
HexShort = Annotated[int, _printed_hex("hex", (1 << 64) - 1, "0x%x")]


def _words(name: str, yes: str, no: str) -> Codec:
    table = {yes: True, no: False}

    def parse(word: str) -> bool:
        try:
            return table[word]
        except KeyError:
            raise ValueError(word) from None

    return Codec(name, parse, lambda value: yes if value else no)


def _yes_or_not(word: str) -> bool:
    return word == "yes"


YesOrNot = Annotated[bool, Codec("yes, or anything else", _yes_or_not, lambda value: "yes" if value else "no")]
LenientYesNo = Annotated[bool | None, Codec("yes/no", {"yes": True, "no": False}.get, lambda v: "yes" if v else "no")]
YesNo = Annotated[bool, _words("yes/no", "yes", "no")]
OnOff = Annotated[bool, _words("on/off", "on", "off")]
OneZero = Annotated[bool, _words("1/0", "1", "0")]


def _bad_bitmap(word: str) -> VirtError:
    return InvalidArg(f"Failed to parse bitmap '{word}'")


def _bitmap(word: str) -> Bitmap:
    try:
        return Bitmap.parse(word)
    except InvalidArg as exc:
        raise ValueError(word) from exc


# Any set of int may be assigned; documents give a Bitmap.
CpuSet = Annotated[Set[int], Codec("list of numbers", _bitmap, format_bitmap, refusal=_bad_bitmap)]

_MAC = re.compile(r"([0-9a-fA-F]{1,2})(?::([0-9a-fA-F]{1,2})){5}")


def parse_mac(word: str) -> str:
    """A MAC address in the form libvirt prints, "52:54:00:12:34:56"."""
    if not _MAC.fullmatch(word):
        raise ValueError(word)
    return ":".join(f"{int(part, 16):02x}" for part in word.split(":"))


Mac = Annotated[str, Codec("MAC address", parse_mac, str)]

_UUID = re.compile(r"[ \t\r\n]*[0-9a-fA-F](?:[ -]*[0-9a-fA-F]){31}[ \t\r\n]*")


def parse_uuid(word: str) -> str:
    """A UUID in its canonical form; dashes may be left out, as libvirt allows."""
    if len(word) > 100 or not _UUID.fullmatch(word):
        raise ValueError(word)
    return str(uuid_module.UUID(hex=re.sub(r"[^0-9a-fA-F]", "", word)))


Uuid = Annotated[str, Codec("UUID", parse_uuid, str, "Expected UUID")]


def parse_ip(word: str) -> str:
    """An IP address in its canonical form."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_ntop(family, socket.inet_pton(family, word))
        except (OSError, ValueError):
            continue
    raise ValueError(word)


IpAddress = Annotated[str, Codec("IP address", parse_ip, str)]

_USB_PORT = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){0,3}")


def parse_usb_port(word: str) -> str:
    """A chain of USB ports, "1.2"."""
    if not _USB_PORT.fullmatch(word):
        raise ValueError(word)
    return ".".join(str(int(part)) for part in word.split("."))


UsbPort = Annotated[str, Codec("USB port", parse_usb_port, str)]


def parse_usb_version(word: str) -> str:
    """A device's USB version, two digits behind the point."""
    match = re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})", word)
    if match is None:
        raise ValueError(word)
    return f"{int(match[1])}.{match[2]:0<2}"


UsbVersion = Annotated[str, Codec("USB version", parse_usb_version, str)]


def parse_wwn(word: str) -> str:
    """A world wide name: 16 hexadecimal digits, with or without 0x."""
    if not re.fullmatch(r"(?:0[xX])?[0-9a-fA-F]{16}", word):
        raise ValueError(word)
    return word


Wwn = Annotated[str, Codec("WWN", parse_wwn, str)]


def absolute_path(word: str) -> str:
    """A path from the root."""
    if not word.startswith("/"):
        raise ValueError(word)
    return word


AbsolutePath = Annotated[str, Codec("absolute path", absolute_path, str, escape=True)]

# Multipliers by upper-case suffix; "K" is binary, "KB" decimal, as in libvirt's documents.
_UNITS: dict[str, int] = {"": 1, "B": 1, "BYTE": 1, "BYTES": 1}
for _power, _letter in enumerate("KMGTPE", 1):
    _UNITS[_letter] = _UNITS[_letter + "IB"] = 1024**_power
    _UNITS[_letter + "B"] = 1000**_power


def unit_bytes(unit: str) -> int:
    """Bytes in one `unit` ("KiB", "MB", "bytes"). Raises ValueError."""
    try:
        return _UNITS[unit.upper()]
    except KeyError:
        raise ValueError(unit) from None


def scale(count: int, unit: str, into: str) -> int:
    """`count` units expressed in whole `into` units, rounded up. Raises InvalidArg for an unknown unit."""
    try:
        size = count * unit_bytes(unit)
    except ValueError:
        raise InvalidArg(f"unknown suffix '{unit}'") from None
    if size >= 1 << 64:
        raise Overflow(f"value too large: {count}{unit}")
    return -(-size // unit_bytes(into))


def pretty_size(size: int) -> tuple[int, str]:
    """A size in bytes as the largest binary unit that divides it: 3145728 is (3, "MiB")."""
    for power, unit in ((6, "EiB"), (5, "PiB"), (4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return size // 1024**power, unit
    return size, "B"


@cache
def enum_codec(cls: type[StrEnum]) -> Codec:
    """The words of an enum."""
    table = {str(member.value): member for member in cls}

    def parse(word: str) -> StrEnum:
        try:
            return table[word]
        except KeyError:
            raise ValueError(word) from None

    return Codec(cls.__name__, parse, str)


def codec_of(annotation: Any) -> Codec | None:
    """The codec of a scalar annotation (None stripped already), or None for what is no scalar."""
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Codec):
            return extra
    if isinstance(annotation, type):
        if issubclass(annotation, StrEnum):
            return enum_codec(annotation)
        if annotation is bool:
            return _words("yes/no", "yes", "no")
        if annotation is int:
            return _I32
        if annotation is str:
            return _STRING
    return None
