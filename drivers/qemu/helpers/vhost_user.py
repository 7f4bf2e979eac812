"""Which program serves a kind of vhost-user device: the descriptors that QEMU and the distributions install.

A file in a later directory hides one of the same name in an earlier one; an empty file hides only.
https://www.qemu.org/docs/master/interop/vhost-user.html (docs/interop/vhost-user.json)
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import OperationFailed

log = logging.getLogger(__name__)

DIRECTORIES = (Path("/usr/share/qemu/vhost-user"), Path("/etc/qemu/vhost-user"))
FILE_MAX = 1024 * 1024


class Backend(NamedTuple):
    """One descriptor. `kind`: fs, gpu, input, …"""

    kind: str
    binary: str


def find_vhost_user(kind: str, title: str, directories: Iterable[Path] = DIRECTORIES) -> str:
    """The program for a kind of device. Raises OperationFailed where the host has none."""
    found = programs(kind, directories)
    if not found:
        raise OperationFailed(f"Unable to find a satisfying {title}", domain=From.QEMU)
    return found[0]


def programs(kind: str, directories: Iterable[Path] = DIRECTORIES) -> list[str]:
    """All programs for a kind of device, the preferred first. Blocks."""
    return [one.binary for one in read(directories) if one.kind == kind and os.access(one.binary, os.X_OK)]


def read(directories: Iterable[Path]) -> Iterator[Backend]:
    """All descriptors, the preferred first. Broken ones are logged and left out. Blocks."""
    files: dict[str, Path] = {}
    for directory in directories:
        try:
            files.update({entry.name: Path(entry.path) for entry in os.scandir(directory) if entry.name[0] != "."})
        except OSError:
            continue
    for name in sorted(files):
        try:
            text = files[name].read_text()[:FILE_MAX]
            if text.strip():
                data: Any = json.loads(text)
                yield Backend(str(data["type"]), str(data["binary"]))
        except (OSError, ValueError, KeyError, TypeError) as exc:
            log.warning("Ignoring vhost-user descriptor %s: %r", files[name], exc)
