"""Editing the document in an image, which stays where it is: a crash leaves the old document or the new one.

What is going to be written is noted first, in a file of the daemon's own; a note that is found is carried out again.
The notes are not among the guests' files: whoever writes one has the daemon write to a file of his choice. A note is
for the file that it says what was in it; neither inode nor device are the same for good.

All but `finish_edits` blocks: for a thread.
"""

import hashlib
import json
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Self

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.saving.image import SIZE, TEXT_MAX, Image, claim, open_image
from pyvirtd.errors import OperationFailed, from_os_error
from pyvirtd.util.files import in_thread, read_file, sweep_temporaries, unlink_file, write_file

log = logging.getLogger(__name__)

HEAD_MAX = 64 << 10  # bytes of a note's first line
NOTE_MAX = HEAD_MAX + 2 * (SIZE + TEXT_MAX)
MISSED_S = 60 * 24 * 3600  # for which an image may be away, on a file system that is not mounted


class _Note(NamedTuple):
    """What is going to be written at the start of a file, and what was there."""

    path: Path
    size: int
    since: float  # seconds since the epoch
    before: bytes
    after: bytes

    def written(self) -> bytes:
        """As a file: a line of words, then the contents."""
        about = {"path": str(self.path), "size": self.size, "since": self.since, "length": len(self.before)}
        return json.dumps(about).encode() + b"\n" + self.before + self.after

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises OSError, and ValueError for what is no note."""
        head, _, data = read_file(file, NOTE_MAX).partition(b"\n")
        try:
            about = json.loads(head)
            length, path = int(about["length"]), Path(str(about["path"]))
            return cls(path, int(about["size"]), float(about["since"]), data[:length], data[length:])
        except (KeyError, TypeError) as exc:
            raise ValueError(f"no note: {exc}") from exc

    def fits(self, fd: int) -> bool:
        """Whether an open file is the one: all at its start is from before or from after, bit by bit."""
        if os.fstat(fd).st_size != self.size:
            return False
        now = _read(fd, len(self.after))
        if len(now) != len(self.before):
            return False
        here, old, new = (int.from_bytes(data, "little") for data in (now, self.before, self.after))
        return not (here ^ old) & (here ^ new)


def rewrite(notes: Path, path: Path, fd: int, image: Image) -> None:
    """Put an edited document into the image in an open file. Raises VirtError; then the old one is still there."""
    after = replace(image, complete=True).prologue()
    file = _note_of(notes, path)
    try:
        note = _Note(path, os.fstat(fd).st_size, time.time(), _read(fd, len(after)), after)
        write_file(file, note.written())
        try:
            _write(fd, after)
        except OSError:
            _write(fd, note.before)
            unlink_file(file)
            raise
    except OSError as exc:
        raise from_os_error(exc, f"failed to write xml to '{path}'", domain=From.QEMU) from exc
    try:
        unlink_file(file)
    except OSError as exc:
        log.warning("the note '%s' of an edit that is done stays: %s", file, exc)  # doing it again changes nothing


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


def _carry_out(file: Path) -> None:
    try:
        note = _Note.read(file)
    except FileNotFoundError:
        return
    except ValueError:
        log.error("'%s' is no note of an edit and is left alone", file)
        return
    try:
        _finish(note)
    except (FileNotFoundError, NotADirectoryError):
        if 0 <= time.time() - note.since < MISSED_S:
            return
        log.warning("the save image '%s' is gone, and so is the edit of it that was cut short", note.path)
    unlink_file(file, missing_ok=True)


def _finish(note: _Note) -> None:
    """Write all of it once more. Raises OSError."""
    try:
        fd = open_image(note.path, write=True)
    except OperationFailed:  # no file
        return
    try:
        claim(fd, write=True)
        if note.fits(fd):
            log.warning("finishing an edit of the save image '%s'", note.path)
            _write(fd, note.after)
    finally:
        os.close(fd)


def _note_of(notes: Path, path: Path) -> Path:
    return notes / hashlib.sha256(os.fsencode(path)).hexdigest()


def _write(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(fd, data[done:], done)
    os.fsync(fd)


def _read(fd: int, size: int) -> bytes:
    """The start of a file."""
    data = b""
    while len(data) < size and (part := os.pread(fd, size - len(data), len(data))):
        data += part
    return data
