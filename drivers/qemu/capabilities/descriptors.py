"""JSON descriptors that QEMU and the distributions install in directories, and noticing that one came or went.

A file in a later directory hides one of the same name in an earlier one; an empty file hides only.
https://www.qemu.org/docs/master/interop/ (firmware.json, vhost-user.json)
"""

import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

log = logging.getLogger(__name__)

FILE_MAX = 1024 * 1024

Described = TypeVar("Described")


def read_descriptors(
    directories: Iterable[Path], parse: Callable[[Any], Described], what: str
) -> tuple[Described, ...]:
    """All that `parse` makes of descriptors, in the order of their names. Broken ones are logged as `what` and left
    out. Blocks."""
    files: dict[str, Path] = {}
    for directory in directories:
        try:
            files.update({entry.name: Path(entry.path) for entry in os.scandir(directory) if entry.name[0] != "."})
        except OSError:
            continue
    found = []
    for name in sorted(files):
        try:
            text = files[name].read_text()[:FILE_MAX]
            if text.strip():
                found.append(parse(json.loads(text)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
            log.warning("Ignoring %s descriptor %s: %r", what, files[name], exc)
    return tuple(found)


def directories_key(directories: Iterable[Path]) -> tuple[int, ...]:
    """Changes when a file is put into or taken from one of the directories."""
    found = []
    for directory in directories:
        try:
            found.append(os.stat(directory).st_mtime_ns)
        except OSError:
            found.append(0)
    return tuple(found)
