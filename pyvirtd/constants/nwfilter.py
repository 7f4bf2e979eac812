"""Numbers of libvirt's public API for network filters: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntFlag


class NWFilterBindingCreateFlags(IntFlag):
    VALIDATE = 0x1


class NWFilterDefineFlags(IntFlag):
    VALIDATE = 0x1
