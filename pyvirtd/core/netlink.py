"""Questions to the kernel's network configuration (rtnetlink(7)), by hand: pyroute2 takes long to load.

Bytes are made and read by pure functions; `ask` sends and waits, in a thread.
"""

import os
import socket
import struct
from collections.abc import Iterator

# linux/netlink.h struct nlmsghdr: length, type, flags, sequence, port; linux/rtnetlink.h struct rtattr: length, type.
HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
ERROR = struct.Struct("=i")
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NESTED = 0x8000  # NLA_F_NESTED
TYPE_MASK = 0x3FFF
RECEIVE = 1 << 18  # a message of the many functions of one device
ANSWER_S = 5.0


def ask(kind: int, body: bytes, flags: int) -> list[tuple[int, bytes]]:
    """Type and body of each message of the answer. Raises OSError, also for what the kernel refuses. Blocks."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(ANSWER_S)
        sock.send(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
        found: list[tuple[int, bytes]] = []
        while True:
            for answer, content in messages(sock.recv(RECEIVE)):
                if answer == NLMSG_ERROR and (number := -ERROR.unpack_from(content)[0]):
                    raise OSError(number, os.strerror(number))
                if answer in (NLMSG_DONE, NLMSG_ERROR):
                    return found
                found.append((answer, content))


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each netlink message."""
    while len(data) >= HEADER.size:
        length, kind, *_ = HEADER.unpack_from(data)
        if length < HEADER.size:
            return
        yield kind, data[HEADER.size : length]
        data = data[length + 3 & ~3 :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute."""
    while len(data) >= ATTRIBUTE.size:
        length, kind = ATTRIBUTE.unpack_from(data)
        if length < ATTRIBUTE.size:
            return
        yield kind & TYPE_MASK, data[ATTRIBUTE.size : length]
        data = data[length + 3 & ~3 :]


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, filled up to four bytes."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NESTED, b"".join(inner))
