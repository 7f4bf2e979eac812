"""Numbers of libvirt's public API for the admin program: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum


class ClientTransport(IntEnum):
    TCP = 1
    TLS = 2
    UNIX = 0
