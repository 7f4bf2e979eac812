"""Paths that lead through directories in which a guest's user may write: links of its making are not followed.

Everything here blocks: for a thread.
"""

import errno
import os
import stat

LINKS_MAX = 40  # as the kernel's own limit


def open_path(path: str, distrusted: int, *, create: bool = False) -> int:
    """A descriptor (O_PATH) of the file at the end of a path. Raises OSError, so for links that `distrusted` made."""
    pending = _parts(path)
    here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    links = 0
    try:
        while pending:
            name = pending.pop()
            found = _open_entry(here, name, create=create and not pending)
            status = os.fstat(found)
            if not stat.S_ISLNK(status.st_mode):
                os.close(here)
                here = found
                continue
            try:
                links += 1
                if links > LINKS_MAX or (distrusted and status.st_uid == distrusted):
                    raise OSError(errno.ELOOP, f"symbolic link '{name}' of the guest's user", path)
                target = os.readlink("", dir_fd=found)
            finally:
                os.close(found)
            if target.startswith("/"):
                os.close(here)
                here = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            pending += _parts(target)
    except BaseException:
        os.close(here)
        raise
    return here


def _parts(path: str) -> list[str]:
    """The components of a path, the last one first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _open_entry(folder: int, name: str, *, create: bool) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder))
    return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
