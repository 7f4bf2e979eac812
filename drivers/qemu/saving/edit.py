"""Editing the document in an image, which stays where it is: a crash leaves the old document or the new one.

What is going to be written is noted first, in a file of the daemon's own; a note that is found is carried out again.
The notes are not among the guests' files: whoever writes one has the daemon write to a file of his choice.

All but `finish_edits` blocks: for a thread.
"""

import contextlib
import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.saving.image import Image, claim
from pyvirtd.errors import from_os_error
from pyvirtd.util.files import in_thread, read_file, sweep_temporaries, unlink_file, write_file

log = logging.getLogger(__name__)

NOTE_MAX = 64 << 20  # bytes of a note: more than the longest text section


def rewrite(notes: Path, path: Path, fd: int, before: Image, image: Image) -> None:
    """Put an edited document into the image in an open file. Raises VirtError; then `before` is still there."""
    data = replace(image, complete=True).prologue()
    note = _note_of(notes, path)
    try:
        found = os.fstat(fd)
        about = {"path": str(path), "inode": found.st_ino, "size": found.st_size}
        write_file(note, json.dumps(about).encode() + b"\n" + data)
        try:
            _write(fd, data)
        except OSError:
            _write(fd, replace(before, complete=True).prologue())
            unlink_file(note)
            raise
        unlink_file(note)
    except OSError as exc:
        raise from_os_error(exc, f"failed to write xml to '{path}'", domain=From.QEMU) from exc


def finish_edit(notes: Path, path: Path) -> None:
    """Carry out the edit of this image that a crash cut short, if there is one. Raises OSError."""
    _carry_out(_note_of(notes, path))


async def finish_edits(notes: Path) -> None:
    """Carry out all of them; what cannot be done now stays noted."""
    await in_thread(_carry_out_all, notes)


def _carry_out_all(notes: Path) -> None:
    sweep_temporaries(notes)
    for note in notes.iterdir():
        try:
            _carry_out(note)
        except OSError as exc:
            log.error("the edit of a save image noted in '%s' is left for later: %s", note, exc)


def _carry_out(note: Path) -> None:
    try:
        head, _, data = read_file(note, NOTE_MAX).partition(b"\n")
    except FileNotFoundError:
        return
    try:
        about = json.loads(head)
        path, inode, size = str(about["path"]), about["inode"], about["size"]
    except (ValueError, KeyError, TypeError):
        log.error("'%s' is no note of an edit and is left alone", note)
        return
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            claim(fd, write=True)
            found = os.fstat(fd)
            if (found.st_ino, found.st_size) == (inode, size):
                log.warning("finishing an edit of the save image '%s'", path)
                _write(fd, data)
        finally:
            os.close(fd)
    unlink_file(note, missing_ok=True)


def _note_of(notes: Path, path: Path) -> Path:
    return notes / hashlib.sha256(os.fsencode(path)).hexdigest()


def _write(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)
    os.fsync(fd)
