"""Numbers of libvirt's public API for secrets: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum


class SecretEventID(IntEnum):
    LIFECYCLE = 0
    VALUE_CHANGED = 1


class SecretUsageType(IntEnum):
    CEPH = 2
    ISCSI = 3
    NONE = 0
    TLS = 4
    VOLUME = 1
    VTPM = 5
