"""Small values of libvirt's world: sets of CPUs, MAC addresses, UUIDs, PCI addresses, times in logs.

Parsers take what libvirt takes and raise InvalidArg with its words; formatters print what it prints.
"""

import re
import secrets
import time
from collections.abc import Collection, Iterable
from typing import NamedTuple, Self

from pyvirtd.errors import InvalidArg

# libvirtd 9.0 refuses higher numbers in a definition's CPU sets.
CPUS_MAX = 16384
# Locally administered addresses that QEMU and libvirt share.
MAC_PREFIX = bytes((0x52, 0x54, 0x00))


# Sets of CPUs (and NUMA nodes): frozen sets of numbers here, words in XML, bitmaps on the wire.

_RANGE = re.compile(r"\s*(?:([0-9]{1,9})(?:-([0-9]{1,9}))?|\^([0-9]{1,9}))\s*")


def parse_cpus(text: str, limit: int = CPUS_MAX) -> frozenset[int]:
    """The numbers of "0-3,^2,7": ^N takes out again. Numbers are below `limit`. Raises InvalidArg."""
    found: set[int] = set()
    for word in text.split(","):
        match = _RANGE.fullmatch(word)
        if match is None:
            raise _bad_cpus(text)
        first, last, excluded = (None if group is None else int(group) for group in match.groups())
        if excluded is not None:
            if excluded >= limit:
                raise _bad_cpus(text)
            found.discard(excluded)
            continue
        assert first is not None
        end = first if last is None else last
        if not first <= end < limit:
            raise _bad_cpus(text)
        found.update(range(first, end + 1))
    return frozenset(found)


def _bad_cpus(text: str) -> InvalidArg:
    return InvalidArg(f"Failed to parse bitmap '{text}'")


def format_cpus(cpus: Iterable[int]) -> str:
    """Numbers as ranges in their order: "0-1,3"."""
    parts: list[list[int]] = []
    for number in sorted(set(cpus)):
        if parts and parts[-1][-1] == number - 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def cpus_to_map(cpus: Collection[int], length: int | None = None) -> bytes:
    """The wire's bitmap, CPU 0 the lowest bit of the first byte; `length` bytes, or as many as the highest needs."""
    size = length if length is not None else max(cpus, default=-1) // 8 + 1
    bits = sum(1 << number for number in set(cpus) if number < size * 8)
    return bits.to_bytes(size, "little")


def cpus_from_map(data: bytes) -> frozenset[int]:
    """The numbers whose bits are set in the wire's bitmap."""
    return frozenset(index * 8 + bit for index, byte in enumerate(data) if byte for bit in range(8) if byte >> bit & 1)


# MAC addresses

_MAC = re.compile(r"[0-9a-fA-F]{1,2}(?::[0-9a-fA-F]{1,2}){5}\s*")


def parse_mac(text: str) -> bytes:
    """Six bytes of "52:54:0:a:B:cc". Raises InvalidArg."""
    if not _MAC.fullmatch(text):
        raise InvalidArg(f"unable to parse mac address '{text}'")
    return bytes(int(part, 16) for part in text.split(":"))


def format_mac(mac: bytes) -> str:
    """ "52:54:00:0a:0b:cc"."""
    return mac.hex(":")


def generate_mac(prefix: bytes = MAC_PREFIX) -> bytes:
    """A random address that begins with the prefix."""
    return prefix + secrets.token_bytes(6 - len(prefix))


# UUIDs: 16 bytes in RFC 4122 order, as on the wire

_UUID = re.compile(r"\s*(?:[- ]*[0-9a-fA-F]{2}){16}\s*")


def parse_uuid(text: str) -> bytes:
    """The bytes of a UUID in any case, with dashes and blanks between its bytes or without. Raises InvalidArg."""
    if not _UUID.fullmatch(text):
        raise InvalidArg(f"malformed uuid '{text}'")
    return bytes.fromhex(text.replace("-", ""))


# PCI addresses

_PCI = re.compile(r"([0-9a-fA-F]{4,8}):([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")


class PciAddress(NamedTuple):
    """Where a PCI device is. As text "0000:00:1f.2", as in sysfs."""

    domain: int
    bus: int
    slot: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises InvalidArg."""
        match = _PCI.fullmatch(text)
        if match is None:
            raise InvalidArg(f"malformed PCI address '{text}'")
        address = cls(*(int(part, 16) for part in match.groups()))
        address.check()
        return address

    def check(self) -> None:
        """Raises InvalidArg with libvirt's words when a part is out of range."""
        limits = (("domain", self.domain, 0xFFFFFFFF), ("bus", self.bus, 0xFF), ("slot", self.slot, 0x1F))
        for name, value, limit in limits:
            if value > limit:
                raise InvalidArg(f"Invalid PCI address {name}='0x{value:x}', must be <= 0x{limit:X}")
        if self.function > 7:
            raise InvalidArg(f"Invalid PCI address function=0x{self.function:x}, must be <= 7")

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


# Times


def log_time(seconds: float | None = None) -> str:
    """A moment as libvirt's logs show it, now if none is given: "2026-11-23 03:20:01.123+0000"."""
    moment = time.time() if seconds is None else seconds
    millis = round(moment * 1000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(millis // 1000))}.{millis % 1000:03d}+0000"
