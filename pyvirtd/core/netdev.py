"""One network device of the host: address, MTU, up or down, a bridge's port.

By ioctl, since loading pyroute2 costs a fifth of a second and 26 MB; only what no ioctl can do loads it. All of it
takes the kernel's network lock and may wait for others: these functions are for a thread. They raise SystemError_.
"""

import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

from pyvirtd.errors import SystemError_, from_os_error

NAME_MAX = 15  # linux/if.h IFNAMSIZ without its end
REQUEST_SIZE = 40  # struct ifreq
# linux/sockios.h, linux/if.h, linux/if_arp.h
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFMTU, SIOCSIFMTU, SIOCSIFHWADDR = 0x8913, 0x8914, 0x8921, 0x8922, 0x8924
SIOCBRADDIF = 0x89A2
IFF_UP, ARPHRD_ETHER = 0x1, 1


def index_of(name: str) -> int:
    """The kernel's number of a device."""
    try:
        return socket.if_nametoindex(name)
    except OSError:  # Python gives no errno
        reason = os.strerror(errno.ENODEV)
        raise SystemError_(f"Unable to get index for interface {name}: {reason}", int1=errno.ENODEV) from None


def exists(name: str) -> bool:
    """A device of that name is in our network namespace."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def set_mac(name: str, mac: str) -> None:
    """Give a device an Ethernet address."""
    address = bytes.fromhex(mac.replace(":", ""))
    value = struct.pack("=H6s", ARPHRD_ETHER, address)
    _ioctl(SIOCSIFHWADDR, name, value, f"Cannot set interface MAC to {mac} on '{name}'")


def get_mtu(name: str) -> int:
    """The size of the largest packet."""
    answer = _ioctl(SIOCGIFMTU, name, b"", f"Cannot get interface MTU on '{name}'")
    return int(struct.unpack_from("=i", answer, 16)[0])


def set_mtu(name: str, mtu: int) -> None:
    """Set the size of the largest packet."""
    _ioctl(SIOCSIFMTU, name, struct.pack("=i", mtu), f"Cannot set interface MTU on '{name}'")


def set_up(name: str, *, up: bool) -> None:
    """Bring a device up or down."""
    answer = _ioctl(SIOCGIFFLAGS, name, b"", f"Cannot get interface flags on '{name}'")
    flags = struct.unpack_from("=H", answer, 16)[0]
    wanted = flags | IFF_UP if up else flags & ~IFF_UP
    if wanted != flags:
        _ioctl(SIOCSIFFLAGS, name, struct.pack("=H", wanted), f"Cannot set interface flags on '{name}'")


def join_bridge(name: str, bridge: str) -> None:
    """Make a device a bridge's port."""
    _ioctl(SIOCBRADDIF, bridge, struct.pack("=i", index_of(name)), f"Unable to add bridge {bridge} port {name}")


def isolate_port(name: str) -> None:
    """Keep a bridge's port from reaching other isolated ones."""
    with _netlink() as ip:
        ip.brport("set", index=index_of(name), isolated=1)


def add_link(name: str, **attributes: Any) -> None:
    """Make a device; the attributes are pyroute2's."""
    with _netlink() as ip:
        ip.link("add", ifname=name, **attributes)


def delete_link(name: str) -> None:
    """Remove a device; none of that name is fine."""
    try:
        index = socket.if_nametoindex(name)
    except OSError:
        return
    with _netlink() as ip:
        ip.link("del", index=index)


def request(name: str, value: bytes) -> bytes:
    """struct ifreq: a device's name and a value. Raises OSError."""
    raw = name.encode("utf-8", "surrogateescape")
    if not raw or len(raw) > NAME_MAX:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return (raw.ljust(NAME_MAX + 1, b"\0") + value).ljust(REQUEST_SIZE, b"\0")


def _ioctl(number: int, name: str, value: bytes, what: str) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        try:
            return fcntl.ioctl(control, number, request(name, value))
        except OSError as exc:
            raise from_os_error(exc, what) from exc


@contextlib.contextmanager
def _netlink() -> Iterator[Any]:
    """pyroute2's calls, with our errors."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with IPRoute() as ip:
        try:
            yield ip
        except NetlinkError as exc:
            raise SystemError_(f"netlink: {os.strerror(exc.code)}", int1=exc.code) from exc
