"""Numbers of libvirt's public API for storage pools and volumes: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class StoragePoolEventID(IntEnum):
    LIFECYCLE = 0
    REFRESH = 1


class StorageVolDownloadFlags(IntFlag):
    SPARSE_STREAM = 0x1


class StorageVolUploadFlags(IntFlag):
    SPARSE_STREAM = 0x1
