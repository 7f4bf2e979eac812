"""Numbers of libvirt's public API for host interfaces: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntFlag


class ConnectListAllInterfacesFlags(IntFlag):
    ACTIVE = 0x2
    INACTIVE = 0x1


class InterfaceDefineFlags(IntFlag):
    VALIDATE = 0x1


class InterfaceXMLFlags(IntFlag):
    INACTIVE = 0x1
