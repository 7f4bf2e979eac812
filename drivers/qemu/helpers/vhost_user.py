"""Which program serves a kind of vhost-user device: the descriptors that QEMU and the distributions install.

https://www.qemu.org/docs/master/interop/vhost-user.html (docs/interop/vhost-user.json)
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.capabilities.descriptors import read_descriptors
from pyvirtd.errors import OperationFailed

DIRECTORIES = (Path("/usr/share/qemu/vhost-user"), Path("/etc/qemu/vhost-user"))


class Backend(NamedTuple):
    """One descriptor. `kind`: fs, gpu, input, …"""

    kind: str
    binary: str


def find_vhost_user(kind: str, title: str, directories: Iterable[Path] = DIRECTORIES) -> str:
    """The program for a kind of device. Raises OperationFailed where the host has none. Blocks."""
    found = programs(kind, directories)
    if not found:
        raise OperationFailed(f"Unable to find a satisfying {title}", domain=From.QEMU)
    return found[0]


def programs(kind: str, directories: Iterable[Path] = DIRECTORIES) -> list[str]:
    """All programs for a kind of device, the preferred first. Blocks."""
    known = read_descriptors(directories, _backend, "vhost-user")
    return [one.binary for one in known if one.kind == kind and os.access(one.binary, os.X_OK)]


def _backend(data: Any) -> Backend:
    return Backend(str(data["type"]), str(data["binary"]))
