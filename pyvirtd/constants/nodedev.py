"""Numbers of libvirt's public API for node devices: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum


class NodeDeviceEventID(IntEnum):
    LIFECYCLE = 0
    UPDATE = 1
