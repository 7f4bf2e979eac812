"""Numbers of libvirt's public API for networks: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class ConnectListAllNetworksFlags(IntFlag):
    ACTIVE = 0x2
    AUTOSTART = 0x10
    INACTIVE = 0x1
    NO_AUTOSTART = 0x20
    PERSISTENT = 0x4
    TRANSIENT = 0x8


class IPAddrType(IntEnum):
    IPV4 = 0
    IPV6 = 1


class NetworkCreateFlags(IntFlag):
    VALIDATE = 0x1


class NetworkDefineFlags(IntFlag):
    VALIDATE = 0x1


class NetworkEventLifecycleType(IntEnum):
    DEFINED = 0
    STARTED = 2
    STOPPED = 3
    UNDEFINED = 1


class NetworkEventID(IntEnum):
    LIFECYCLE = 0


class NetworkPortCreateFlags(IntFlag):
    RECLAIM = 0x1
    VALIDATE = 0x2


class NetworkUpdateSection(IntEnum):
    BRIDGE = 1
    DNS_HOST = 10
    DNS_SRV = 12
    DNS_TXT = 11
    DOMAIN = 2
    FORWARD = 6
    FORWARD_INTERFACE = 7
    FORWARD_PF = 8
    IP = 3
    IP_DHCP_HOST = 4
    IP_DHCP_RANGE = 5
    NONE = 0
    PORTGROUP = 9


class NetworkUpdateFlags(IntFlag):
    CONFIG = 0x2
    CURRENT = 0x0
    LIVE = 0x1


class NetworkUpdateCommand(IntEnum):
    ADD_FIRST = 4
    DELETE = 2
    MODIFY = 1
    NONE = 0


class NetworkXMLFlags(IntFlag):
    INACTIVE = 0x1
