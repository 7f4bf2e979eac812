"""Notes beside the status files of what a run changed on the host, by which a later daemon can change it back.

A line an item; what is in a line is its writer's business. All of it blocks: for a thread.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from pyvirtd.errors import VirtError, from_os_error

log = logging.getLogger(__name__)


def write_note(note: Path, lines: Iterable[str]) -> None:
    """Make a note, or make it anew. Raises VirtError."""
    try:
        note.write_text("".join(f"{line}\n" for line in lines))
    except OSError as exc:
        raise from_os_error(exc, f"cannot write '{note}'") from exc


def keep_in_note(note: Path, lines: list[str]) -> None:
    """Leave no more in a note; without any it goes. What fails is logged."""
    try:
        if lines:
            write_note(note, lines)
        else:
            note.unlink(missing_ok=True)
    except (OSError, VirtError) as exc:
        log.error("'%s' is not up to date: %s", note, exc)
