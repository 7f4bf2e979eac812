"""What a start does to files that are not the guest's alone, noted until its status file is there.

A daemon that is killed meanwhile leaves overlays of transient disks, in whose way the next start would be, and files
given to the guest's user; the next daemon undoes both. The note is a line of JSON for each: an overlay before it is
made, a file after it was given away, so that no file is taken back which another guest has.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyvirtd.core import ownership
from pyvirtd.core.ownership import Label
from pyvirtd.drivers.qemu import transient
from pyvirtd.errors import from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import QemuPaths
from pyvirtd.util.files import in_thread

log = logging.getLogger(__name__)

OVERLAY, LABEL = "overlay", "label"


class StartNote:
    """The note of one start. `short`: as `short_name` says."""

    def __init__(self, paths: QemuPaths, short: str) -> None:
        self._path = paths.start_note(short)
        self._overlays: list[str] = []

    async def begin(self, live: DomainDef) -> None:
        """Note the overlays that are going to be made. Raises VirtError."""
        self._overlays = [str(path) for path in await in_thread(transient.missing_overlays, live)]
        await self.forget_files()

    async def forget_files(self) -> None:
        """The files are being given back, or none is given away yet. Raises VirtError."""
        await in_thread(self._write, "w", [{OVERLAY: path} for path in self._overlays])

    def given(self, label: Label) -> None:
        """A file has been given to the guest. Raises VirtError. Blocks."""
        self._write("a", [{LABEL: asdict(label)}])

    async def end(self) -> None:
        """The start is over: undone, or noted in the guest's status file."""
        await in_thread(self._path.unlink, missing_ok=True)

    def _write(self, mode: str, rows: Iterable[Mapping[str, object]]) -> None:
        try:
            with self._path.open(mode) as file:
                file.write("".join(f"{json.dumps(row)}\n" for row in rows))
        except OSError as exc:
            raise from_os_error(exc, f"cannot write '{self._path}'") from exc


async def undo_left(paths: QemuPaths, short: str) -> None:
    """Undo what a start had done whose daemon was killed; its QEMU is gone. What fails is logged."""
    await in_thread(_undo, paths.start_note(short))


def _undo(note: Path) -> None:
    rows = _read(note)
    if files := [Label(**row[LABEL]) for row in rows if LABEL in row]:
        ownership.restore(reversed(files))
    transient.remove_files(Path(row[OVERLAY]) for row in rows if OVERLAY in row)
    note.unlink(missing_ok=True)


def _read(note: Path) -> list[dict[str, Any]]:
    """Nothing where there is no note; a line that is cut off changed nothing yet, or is the last file."""
    try:
        lines = note.read_text().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            log.warning("'%s' ends in the middle of a line", note)
    return rows
