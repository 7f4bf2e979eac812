"""Numbers of libvirt's public API for connections, the node and streams: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class ConnectBaselineCPUFlags(IntFlag):
    EXPAND_FEATURES = 0x1
    MIGRATABLE = 0x2


class ConnectCompareCPUFlags(IntFlag):
    FAIL_INCOMPATIBLE = 0x1
    VALIDATE_XML = 0x2


class ConnectFlags(IntFlag):
    NO_ALIASES = 0x2
    RO = 0x1


class CPUCompareResult(IntEnum):
    ERROR = -1
    IDENTICAL = 1
    INCOMPATIBLE = 0
    SUPERSET = 2


class NodeAllocPagesFlags(IntFlag):
    ADD = 0x0
    SET = 0x1


class NodeSuspendTarget(IntEnum):
    DISK = 1
    HYBRID = 2
    MEM = 0


class TypedParameterType(IntEnum):
    BOOLEAN = 6
    DOUBLE = 5
    INT = 1
    LLONG = 3
    STRING = 7
    UINT = 2
    ULLONG = 4


class TypedParameterFlags(IntFlag):
    STRING_OKAY = 0x4
