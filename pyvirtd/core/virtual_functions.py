"""Virtual functions of network cards (SR-IOV): the address, VLAN and port that the card itself keeps them to.

These belong to the physical function, so whoever has the virtual one cannot change them. A function is found in sysfs,
and its settings are read and written by netlink; requests and answers are made and read by pure functions. What a card
does with them is not known to the tests, which have none: they check bytes, and that the kernel understands them.

Everything that asks the kernel blocks: for a thread. linux/if_link.h, linux/rtnetlink.h
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from pyvirtd.core import netdev, netlink
from pyvirtd.core.netlink import attribute, attributes, nested
from pyvirtd.errors import InternalError, from_os_error
from pyvirtd.util.values import format_mac

RTM_NEWLINK, RTM_GETLINK, RTM_SETLINK = 16, 18, 19
LINK = struct.Struct("=BxHiII")  # struct ifinfomsg: family, type, index, flags, changed ones
IFLA_VFINFO_LIST, IFLA_VF_PORTS, IFLA_EXT_MASK = 22, 24, 29
RTEXT_FILTER_VF = 1
IFLA_VF_INFO, IFLA_VF_MAC, IFLA_VF_VLAN = 1, 1, 2
VF_MAC, VF_VLAN = struct.Struct("=I32s"), struct.Struct("=III")
IFLA_VF_PORT = 1
PORT_VF, PORT_PROFILE, PORT_INSTANCE, PORT_HOST, PORT_REQUEST, PORT_RESPONSE = 1, 2, 4, 5, 6, 7
NO_MAC, ANY_MAC = bytes(6), bytes.fromhex("020000000000")  # nobody's, and one that every card takes

Ask = Callable[[int, bytes, int], list[tuple[int, bytes]]]


class Function(NamedTuple):
    """A virtual function: the network device of its physical one, and its number there."""

    link: str
    number: int


class Settings(NamedTuple):
    """What a card keeps a function to. VLAN 0 is none."""

    mac: bytes
    vlan: int
    priority: int = 0


class PortRequest(IntEnum):
    ASSOCIATE = 2
    DISASSOCIATE = 3


class PortResponse(IntEnum):
    SUCCESS = 0x100
    IN_PROGRESS = 0x101


def is_function(device: Path) -> bool:
    """A device of sysfs is a virtual function."""
    return (device / "physfn").is_symlink()


def find(device: Path) -> Function:
    """The function that a device of sysfs is; of a card's several ports, the first. Raises InternalError."""
    parent = device / "physfn"
    links: list[str] = []
    with suppress(OSError):
        links = sorted(os.listdir(parent / "net"), key=lambda link: (_port(parent / "net" / link), link))
    if not links:
        raise InternalError(f"The PF device for VF {device.name} has no network device name")
    for entry in parent.glob("virtfn*"):
        if os.path.realpath(entry) == os.path.realpath(device):
            return Function(links[0], int(entry.name.removeprefix("virtfn")))
    raise InternalError(f"PCI device {device.name} is no virtual function of '{links[0]}'")


def _port(link: Path) -> int:
    with suppress(OSError, ValueError):
        return int((link / "dev_port").read_text())
    return 0


# --- asking the kernel ------------------------------------------------------------------------------------------


def read(function: Function, ask: Ask = netlink.ask) -> Settings:
    """What a card keeps a function to. Raises SystemError_, and InternalError where it does not say."""
    found = settings_in(_get(function, ask), function.number)
    if found is None:
        raise InternalError(f"'{function.link}' tells nothing of its virtual function {function.number}")
    return found


def write(function: Function, settings: Settings, ask: Ask = netlink.ask) -> None:
    """Keep a function to an address and a VLAN. Raises SystemError_."""
    index = netdev.index_of(function.link)
    try:
        try:
            ask(RTM_SETLINK, settings_request(index, function.number, settings), netlink.NLM_F_ACK)
        except OSError as exc:
            if exc.errno != errno.EINVAL or settings.mac != NO_MAC:
                raise
            # Cards that had no address at first do not take that back.
            again = settings._replace(mac=ANY_MAC)
            ask(RTM_SETLINK, settings_request(index, function.number, again), netlink.NLM_F_ACK)
    except OSError as exc:
        what = f"Cannot set interface MAC/vlanid to {format_mac(settings.mac)}/{settings.vlan}"
        raise from_os_error(exc, f"{what} for ifname {function.link} vf {function.number}") from exc


def connect_port(
    function: Function,
    request: PortRequest,
    profile: str,
    instance: bytes,
    host: bytes,
    ask: Ask = netlink.ask,
) -> None:
    """Ask an 802.1Qbh switch to take a function's port or to let it go; ids have 16 bytes. Raises SystemError_."""
    body = port_request(netdev.index_of(function.link), function.number, request, profile, instance, host)
    try:
        ask(RTM_SETLINK, body, netlink.NLM_F_ACK)
    except OSError as exc:
        word = request.name.lower()
        raise from_os_error(exc, f"cannot {word} port {function.number} of '{function.link}'") from exc


def port_response(function: Function, ask: Ask = netlink.ask) -> int | None:
    """What the switch answered last; None where it did not. Raises SystemError_."""
    return response_in(_get(function, ask), function.number)


def _get(function: Function, ask: Ask) -> bytes:
    index = netdev.index_of(function.link)
    try:
        answer = ask(RTM_GETLINK, link_request(index), netlink.NLM_F_ACK)
    except OSError as exc:
        raise from_os_error(exc, f"cannot read the virtual functions of '{function.link}'") from exc
    return next((body[LINK.size :] for kind, body in answer if kind == RTM_NEWLINK), b"")


# --- bytes ------------------------------------------------------------------------------------------------------


def _link(index: int) -> bytes:
    return LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)


def link_request(index: int) -> bytes:
    """Asks for a device with all its functions."""
    return _link(index) + attribute(IFLA_EXT_MASK, struct.pack("=I", RTEXT_FILTER_VF))


def settings_request(index: int, number: int, settings: Settings) -> bytes:
    mac = attribute(IFLA_VF_MAC, VF_MAC.pack(number, settings.mac))
    vlan = attribute(IFLA_VF_VLAN, VF_VLAN.pack(number, settings.vlan, settings.priority))
    return _link(index) + nested(IFLA_VFINFO_LIST, nested(IFLA_VF_INFO, mac, vlan))


def settings_in(link: bytes, number: int) -> Settings | None:
    """One function's settings, from a device's attributes."""
    for info in _all(link, IFLA_VFINFO_LIST, IFLA_VF_INFO):
        mac, vlan = info.get(IFLA_VF_MAC, b""), info.get(IFLA_VF_VLAN, b"")
        if len(mac) < VF_MAC.size or len(vlan) < VF_VLAN.size:
            continue
        place, address = VF_MAC.unpack_from(mac)
        if place == number:
            _, tag, priority = VF_VLAN.unpack_from(vlan)
            return Settings(address[: len(NO_MAC)], tag, priority)
    return None


def port_request(index: int, number: int, request: PortRequest, profile: str, instance: bytes, host: bytes) -> bytes:
    parts = [
        attribute(PORT_VF, struct.pack("=I", number)),
        attribute(PORT_PROFILE, profile.encode() + b"\0"),
        attribute(PORT_INSTANCE, instance),
        attribute(PORT_HOST, host),
        attribute(PORT_REQUEST, bytes([request])),
    ]
    return _link(index) + nested(IFLA_VF_PORTS, nested(IFLA_VF_PORT, *parts))


def response_in(link: bytes, number: int) -> int | None:
    """What the switch answered for one function's port, from a device's attributes."""
    for port in _all(link, IFLA_VF_PORTS, IFLA_VF_PORT):
        response = port.get(PORT_RESPONSE, b"")
        if port.get(PORT_VF) == struct.pack("=I", number) and len(response) >= 2:
            return int(struct.unpack_from("=H", response)[0])
    return None


def _all(link: bytes, outer: int, inner: int) -> Iterator[dict[int, bytes]]:
    for kind, entries in attributes(link):
        if kind == outer:
            yield from (dict(attributes(entry)) for word, entry in attributes(entries) if word == inner)
