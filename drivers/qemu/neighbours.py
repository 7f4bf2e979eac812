"""The host's table of neighbours: which IP address was last seen behind which MAC address.

Over netlink by hand (rtnetlink(7)): one request, and loading pyroute2 for it would cost more than all of it.
"""

import socket
import struct
from collections.abc import Iterator

from pyvirtd.api.types import IPAddress
from pyvirtd.constants.network import IPAddrType
from pyvirtd.errors import from_os_error
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import format_mac

# linux/netlink.h struct nlmsghdr: length, type, flags, sequence, port; linux/neighbour.h struct ndmsg: family, index,
# state, flags, type; linux/rtnetlink.h struct rtattr: length, type.
HEADER = struct.Struct("=IHHII")
NEIGHBOUR = struct.Struct("=BxxxiHBB")
ATTRIBUTE = struct.Struct("=HH")
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
NDA_DST, NDA_LLADDR = 1, 2
NUD_NOARP = 0x40  # an entry of the kernel's own, such as a multicast address
FAMILIES = {socket.AF_INET: IPAddrType.IPV4, socket.AF_INET6: IPAddrType.IPV6}
RECEIVE = 1 << 16
ANSWER_S = 5.0


async def neighbours() -> list[tuple[str, IPAddress]]:
    """MAC and IP address of every neighbour the kernel knows. Raises SystemError_."""
    try:
        return await in_thread(_read)
    except OSError as exc:
        raise from_os_error(exc, "cannot read the table of neighbours") from exc


def _read() -> list[tuple[str, IPAddress]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(ANSWER_S)
        length = HEADER.size + NEIGHBOUR.size
        request = HEADER.pack(length, RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, 1, 0)
        sock.send(request + NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
        found: list[tuple[str, IPAddress]] = []
        while True:
            for kind, body in messages(sock.recv(RECEIVE)):
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    return found
                if kind == RTM_NEWNEIGH:
                    found += entry(body)


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each netlink message."""
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        if length < HEADER.size:
            return
        yield kind, data[HEADER.size : length]
        data = data[length + 3 & ~3 :]


def entry(body: bytes) -> list[tuple[str, IPAddress]]:
    """The neighbour of an RTM_NEWNEIGH message, where it has both addresses."""
    family, _, state, _, _ = NEIGHBOUR.unpack_from(body)
    attributes: dict[int, bytes] = {}
    rest = body[NEIGHBOUR.size :]
    while len(rest) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(rest)
        if length < ATTRIBUTE.size:
            break
        attributes[kind] = rest[ATTRIBUTE.size : length]
        rest = rest[length + 3 & ~3 :]
    mac, address = attributes.get(NDA_LLADDR, b""), attributes.get(NDA_DST, b"")
    if state & NUD_NOARP or family not in FAMILIES or len(mac) != 6 or not address:
        return []
    return [(format_mac(mac), IPAddress(FAMILIES[family], socket.inet_ntop(family, address), 0))]
