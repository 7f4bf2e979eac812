"""The host's table of neighbours: which IP address was last seen behind which MAC address.

https://man7.org/linux/man-pages/man7/rtnetlink.7.html
"""

import socket
import struct

from pyvirtd.api.types import IPAddress
from pyvirtd.constants.network import IPAddrType
from pyvirtd.core import netlink
from pyvirtd.errors import from_os_error
from pyvirtd.util.files import in_thread
from pyvirtd.util.values import format_mac

# linux/neighbour.h struct ndmsg: family, index, state, flags, type
NEIGHBOUR = struct.Struct("=BxxxiHBB")
RTM_NEWNEIGH, RTM_GETNEIGH = 28, 30
NDA_DST, NDA_LLADDR = 1, 2
NUD_NOARP = 0x40  # an entry of the kernel's own, such as a multicast address
FAMILIES = {socket.AF_INET: IPAddrType.IPV4, socket.AF_INET6: IPAddrType.IPV6}


async def neighbours() -> list[tuple[str, IPAddress]]:
    """MAC and IP address of every neighbour the kernel knows. Raises SystemError_."""
    try:
        return await in_thread(_read)
    except OSError as exc:
        raise from_os_error(exc, "cannot read the table of neighbours") from exc


def _read() -> list[tuple[str, IPAddress]]:
    answer = netlink.ask(RTM_GETNEIGH, NEIGHBOUR.pack(socket.AF_UNSPEC, 0, 0, 0, 0), netlink.NLM_F_DUMP)
    return [found for kind, body in answer if kind == RTM_NEWNEIGH for found in entry(body)]


def entry(body: bytes) -> list[tuple[str, IPAddress]]:
    """The neighbour of an RTM_NEWNEIGH message, where it has both addresses."""
    family, _, state, _, _ = NEIGHBOUR.unpack_from(body)
    attributes = dict(netlink.attributes(body[NEIGHBOUR.size :]))
    mac, address = attributes.get(NDA_LLADDR, b""), attributes.get(NDA_DST, b"")
    if state & NUD_NOARP or family not in FAMILIES or len(mac) != 6 or not address:
        return []
    return [(format_mac(mac), IPAddress(FAMILIES[family], socket.inet_ntop(family, address), 0))]
