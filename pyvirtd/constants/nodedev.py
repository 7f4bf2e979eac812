"""Numbers of libvirt's public API for node devices: its enumerations and flags.

The class name is the header's typedef without "vir"; a member is the constant without the words all members share.
"""

from enum import IntEnum, IntFlag


class ConnectListAllNodeDeviceFlags(IntFlag):
    ACTIVE = 0x80000000
    CAP_AP_CARD = 0x40000
    CAP_AP_MATRIX = 0x100000
    CAP_AP_QUEUE = 0x80000
    CAP_CCW_DEV = 0x8000
    CAP_CSS_DEV = 0x10000
    CAP_DRM = 0x1000
    CAP_FC_HOST = 0x200
    CAP_MDEV = 0x4000
    CAP_MDEV_TYPES = 0x2000
    CAP_NET = 0x10
    CAP_PCI_DEV = 0x2
    CAP_SCSI = 0x80
    CAP_SCSI_GENERIC = 0x800
    CAP_SCSI_HOST = 0x20
    CAP_SCSI_TARGET = 0x40
    CAP_STORAGE = 0x100
    CAP_SYSTEM = 0x1
    CAP_USB_DEV = 0x4
    CAP_USB_INTERFACE = 0x8
    CAP_VDPA = 0x20000
    CAP_VPD = 0x200000
    CAP_VPORTS = 0x400
    INACTIVE = 0x40000000


class NodeDeviceCreateXMLFlags(IntFlag):
    VALIDATE = 0x1


class NodeDeviceDefineXMLFlags(IntFlag):
    VALIDATE = 0x1


class NodeDeviceEventLifecycleType(IntEnum):
    CREATED = 0
    DEFINED = 2
    DELETED = 1
    UNDEFINED = 3


class NodeDeviceEventID(IntEnum):
    LIFECYCLE = 0
    UPDATE = 1
