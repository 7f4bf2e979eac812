"""Short names for the errors that rules raise: which code, and on whose behalf libvirt reports it.

`qemu_*` are rules of the emulator, the others hold for every hypervisor.
"""

from typing import ClassVar

from pyvirtd.constants.error import ErrorDomain
from pyvirtd.constants.error import ErrorNumber as Code
from pyvirtd.errors import ConfigUnsupported, InternalError, InvalidArg, VirtError, XmlDetail, XmlError

DOMAIN, QEMU = ErrorDomain.DOMAIN, ErrorDomain.QEMU


class NoSource(VirtError):
    """Code 19."""

    code: ClassVar[Code] = Code.NO_SOURCE
    domain = DOMAIN


class NoTarget(VirtError):
    """Code 20."""

    code: ClassVar[Code] = Code.NO_TARGET
    domain = DOMAIN


def unsupported(text: str) -> VirtError:
    return ConfigUnsupported(text, domain=DOMAIN)


def qemu_unsupported(text: str) -> VirtError:
    return ConfigUnsupported(text, domain=QEMU)


def xml(text: str) -> VirtError:
    return XmlError(text, domain=DOMAIN)


def qemu_xml(text: str) -> VirtError:
    return XmlError(text, domain=QEMU)


def detail(text: str) -> VirtError:
    return XmlDetail(text, domain=DOMAIN)


def internal(text: str) -> VirtError:
    return InternalError(text, domain=DOMAIN)


def qemu_internal(text: str) -> VirtError:
    return InternalError(text, domain=QEMU)


def invalid(text: str) -> VirtError:
    return InvalidArg(text, domain=DOMAIN)
