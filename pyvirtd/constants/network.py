"""Numbers of libvirt's public API for networks: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class IPAddrType(IntEnum):
    IPV4 = 0
    IPV6 = 1


class NetworkEventID(IntEnum):
    LIFECYCLE = 0


class NetworkUpdateFlags(IntFlag):
    CONFIG = 0x2
    CURRENT = 0x0
    LIVE = 0x1
