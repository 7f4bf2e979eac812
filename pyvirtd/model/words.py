"""Words that several parts of the domain document share."""

from enum import StrEnum


class StartupPolicy(StrEnum):
    """What to do at start when a source is not there."""

    MANDATORY = "mandatory"
    REQUISITE = "requisite"
    OPTIONAL = "optional"


class VirtioModel(StrEnum):
    """Which generation of virtio a device speaks."""

    VIRTIO = "virtio"
    TRANSITIONAL = "virtio-transitional"
    NON_TRANSITIONAL = "virtio-non-transitional"


class MemoryAccess(StrEnum):
    """Whether other processes see the guest's memory."""

    SHARED = "shared"
    PRIVATE = "private"


class ConnectMode(StrEnum):
    """Which side of a unix socket listens."""

    SERVER = "server"
    CLIENT = "client"
