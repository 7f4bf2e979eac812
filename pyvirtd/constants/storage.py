"""Numbers of libvirt's public API for storage pools and volumes: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class ConnectListAllStoragePoolsFlags(IntFlag):
    ACTIVE = 0x2
    AUTOSTART = 0x10
    DIR = 0x40
    DISK = 0x400
    FS = 0x80
    GLUSTER = 0x10000
    INACTIVE = 0x1
    ISCSI = 0x800
    ISCSI_DIRECT = 0x80000
    LOGICAL = 0x200
    MPATH = 0x2000
    NETFS = 0x100
    NO_AUTOSTART = 0x20
    PERSISTENT = 0x4
    RBD = 0x4000
    SCSI = 0x1000
    SHEEPDOG = 0x8000
    TRANSIENT = 0x8
    VSTORAGE = 0x40000
    ZFS = 0x20000


class StoragePoolState(IntEnum):
    BUILDING = 1
    DEGRADED = 3
    INACCESSIBLE = 4
    INACTIVE = 0
    RUNNING = 2


class StoragePoolBuildFlags(IntFlag):
    NEW = 0x0
    NO_OVERWRITE = 0x4
    OVERWRITE = 0x8
    REPAIR = 0x1
    RESIZE = 0x2


class StoragePoolCreateFlags(IntFlag):
    NORMAL = 0x0
    WITH_BUILD = 0x1
    WITH_BUILD_NO_OVERWRITE = 0x4
    WITH_BUILD_OVERWRITE = 0x2


class StoragePoolDefineFlags(IntFlag):
    VALIDATE = 0x1


class StoragePoolDeleteFlags(IntFlag):
    NORMAL = 0x0
    ZEROED = 0x1


class StoragePoolEventLifecycleType(IntEnum):
    CREATED = 4
    DEFINED = 0
    DELETED = 5
    STARTED = 2
    STOPPED = 3
    UNDEFINED = 1


class StoragePoolEventID(IntEnum):
    LIFECYCLE = 0
    REFRESH = 1


class StorageVolType(IntEnum):
    BLOCK = 1
    DIR = 2
    FILE = 0
    NETDIR = 4
    NETWORK = 3
    PLOOP = 5


class StorageVolCreateFlags(IntFlag):
    PREALLOC_METADATA = 0x1
    REFLINK = 0x2
    VALIDATE = 0x4


class StorageVolDeleteFlags(IntFlag):
    NORMAL = 0x0
    WITH_SNAPSHOTS = 0x2
    ZEROED = 0x1


class StorageVolDownloadFlags(IntFlag):
    SPARSE_STREAM = 0x1


class StorageVolInfoFlags(IntFlag):
    GET_PHYSICAL = 0x1
    USE_ALLOCATION = 0x0


class StorageVolResizeFlags(IntFlag):
    ALLOCATE = 0x1
    DELTA = 0x2
    SHRINK = 0x4


class StorageVolUploadFlags(IntFlag):
    SPARSE_STREAM = 0x1


class StorageVolWipeAlgorithm(IntEnum):
    BSI = 3
    DOD = 2
    GUTMANN = 4
    NNSA = 1
    PFITZNER33 = 7
    PFITZNER7 = 6
    RANDOM = 8
    SCHNEIER = 5
    TRIM = 9
    ZERO = 0


class StorageXMLFlags(IntFlag):
    INACTIVE = 0x1
