"""Numbers of libvirt's public API for the QEMU and LXC side programs: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class ConnectDomainQemuMonitorEventRegisterFlags(IntFlag):
    NOCASE = 0x2
    REGEX = 0x1


class DomainQemuAgentCommandTimeoutValues(IntEnum):
    BLOCK = -2
    DEFAULT = -1
    MIN = -2
    NOWAIT = 0
    SHUTDOWN = 60


class DomainQemuMonitorCommandFlags(IntFlag):
    DEFAULT = 0x0
    HMP = 0x1
