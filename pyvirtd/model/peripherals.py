"""Small devices: cryptography, and the store that outlives a guest's crash.

https://libvirt.org/formatdomain.html#crypto
"""

from enum import StrEnum

from pyvirtd.model.address import Device, DeviceInfo, VirtioDriver
from pyvirtd.xml.element import Element, attr, child, group, text
from pyvirtd.xml.types import U32, U64


class CryptoModel(StrEnum):
    VIRTIO = "virtio"


class CryptoType(StrEnum):
    QEMU = "qemu"


class CryptoBackendModel(StrEnum):
    BUILTIN = "builtin"
    LKCF = "lkcf"


class CryptoBackend(Element, tag="backend"):
    """Who does the work: QEMU's own code, or the host's kernel (lkcf)."""

    model: CryptoBackendModel | None = attr(required=True)
    queues: U32 | None = attr(omit=0)


class Crypto(Device, tag="crypto"):
    model: CryptoModel | None = attr(required=True)
    type: CryptoType | None = attr(required=True)
    backend: CryptoBackend | None = child(required=True)
    info: DeviceInfo = group()
    driver: VirtioDriver | None = child()


class PstoreBackend(StrEnum):
    ACPI_ERST = "acpi-erst"


class Pstore(Device, tag="pstore"):
    """Without a path the driver chooses one."""

    backend: PstoreBackend | None = attr(required=True)
    path: str | None = text()
    size_kib: U64 | None = text(name="size", unit="KiB")
    info: DeviceInfo = group()
