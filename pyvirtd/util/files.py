"""Files that survive a crash: written beside, synced, renamed, and their directory synced; pid files; careful reads.

Each operation is a plain function for use in a thread, and a coroutine that runs it in a thread of its own pool, so
that a slow disk never holds up the loop and syncs of many calls run side by side. All raise OSError.
"""

import asyncio
import errno
import fcntl
import functools
import itertools
import os
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, ParamSpec, Self, TypeVar

from pyvirtd.errors import SystemError_
from pyvirtd.util.walk import open_path

P = ParamSpec("P")
R = TypeVar("R")

# Threads that mostly sleep in fsync: enough that the file system can commit many calls at once.
THREADS = 16
TEMPORARY_PREFIX = ".pyvirtd-"
TEMPORARY_SUFFIX = ".new"
DEFAULT_READ_LIMIT = 10 * 1024 * 1024
# struct flock of Linux: type, whence, start, length, pid.
FLOCK = struct.Struct("@hhqqi4x")

_numbers = itertools.count()


class Owner(NamedTuple):
    """User and group of a file, by number."""

    uid: int
    gid: int


class LockHeld(SystemError_):
    """Another process holds the lock; `pid` is None where it cannot be told."""

    def __init__(self, path: Path, pid: int | None) -> None:
        holder = f", held by process {pid}" if pid else ""
        reason = f"{os.strerror(errno.EAGAIN)}{holder}"
        super().__init__(f"Failed to acquire pid file '{path}': {reason}", int1=errno.EAGAIN)
        self.pid = pid


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="files")


async def in_thread(function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The function's result, from a thread of the files' pool. Cancelling the caller does not stop the function."""
    return await asyncio.get_running_loop().run_in_executor(_pool(), functools.partial(function, *args, **kwargs))


# Writing


def write_file(path: Path, data: bytes | str, mode: int = 0o600, *, owner: Owner | None = None) -> None:
    """Replace or make a file as a whole; when it returns, the new content outlasts a crash. Never a torn file."""
    content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    temporary = _temporary_beside(path)
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _write_all(fd, content)
            if mode != 0o600:
                os.fchmod(fd, mode)
            if owner is not None:
                os.fchown(fd, owner.uid, owner.gid)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def unlink_file(path: Path, *, missing_ok: bool = False) -> bool:
    """Remove a file for good. False where there was none and that is fine."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        if missing_ok:
            return False
        raise
    sync_directory(path.parent)
    return True


def make_symlink(target: Path, link: Path, *, replace: bool = False) -> None:
    """Make a symbolic link that outlasts a crash. Raises FileExistsError unless it may replace what is there."""
    if not replace:
        os.symlink(target, link)
    else:
        temporary = _temporary_beside(link)
        os.symlink(target, temporary)
        try:
            os.rename(temporary, link)
        except OSError:
            os.unlink(temporary)
            raise
    sync_directory(link.parent)


def make_directory(path: Path, mode: int = 0o755, *, owner: Owner | None = None) -> bool:
    """Make a directory and its parents with exactly this mode; an existing one only gets the owner. True if made.

    What the owner has put in its place, or on the way to it, to lead elsewhere is an error.
    """
    made = False
    if not path.is_dir():
        make_directory(path.parent, mode)
        with suppress(FileExistsError):
            os.mkdir(path, mode)
            made = True
    if made or owner is not None:
        fd = open_path(str(path.absolute()), owner.uid if owner is not None else 0)
        try:
            _settle_directory(fd, path, mode if made else None, owner)
        finally:
            os.close(fd)
    if made:
        sync_directory(path.parent)
    return made


def _settle_directory(fd: int, path: Path, mode: int | None, owner: Owner | None) -> None:
    """Mode and owner of the directory that is open, whatever its name leads to by now."""
    found = os.fstat(fd)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    same = f"/proc/self/fd/{fd}"  # a descriptor that gives no access takes neither by itself
    if mode is not None:
        os.chmod(same, mode)
    if owner is not None and (found.st_uid, found.st_gid) != owner:
        os.chown(same, owner.uid, owner.gid)


def sweep_temporaries(directory: Path) -> list[str]:
    """Remove what writers that crashed have left in a directory, and return the names."""
    left = [
        entry.name
        for entry in os.scandir(directory)
        if entry.name.startswith(TEMPORARY_PREFIX) and entry.name.endswith(TEMPORARY_SUFFIX)
    ]
    for name in left:
        with suppress(FileNotFoundError):
            os.unlink(directory / name)
    return left


async def atomic_write(path: Path, data: bytes | str, mode: int = 0o600, *, owner: Owner | None = None) -> None:
    """write_file() in a thread."""
    await in_thread(write_file, path, data, mode, owner=owner)


async def durable_unlink(path: Path, *, missing_ok: bool = False) -> bool:
    """unlink_file() in a thread."""
    return await in_thread(unlink_file, path, missing_ok=missing_ok)


async def durable_symlink(target: Path, link: Path, *, replace: bool = False) -> None:
    """make_symlink() in a thread."""
    await in_thread(make_symlink, target, link, replace=replace)


# Reading


def read_file(path: Path, limit: int = DEFAULT_READ_LIMIT, *, follow: bool = False) -> bytes:
    """A regular file's content. Raises OSError for a link (unless followed), anything else, and over `limit` bytes."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    fd = os.open(path, flags)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = _read_up_to(fd, limit + 1)
    finally:
        os.close(fd)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return data


def read_text(path: Path, limit: int = DEFAULT_READ_LIMIT, *, follow: bool = False) -> str:
    """A regular file's text; bytes that are not UTF-8 come back by encoding with surrogateescape."""
    return read_file(path, limit, follow=follow).decode("utf-8", "surrogateescape")


# Pid files


class PidFile:
    """A pid file whose lock says that the process lives; libvirt's daemons lock theirs in the same way.

    The lock is the process's (POSIX): it does not pass to a child, and is lost when the process opens and closes the
    same file elsewhere. Take it after becoming a daemon.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path) -> Self:
        """Lock the file and write our pid. Raises LockHeld when another process has it, and OSError."""
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                _lock(fd, path)
                if _is_still(fd, path):
                    os.ftruncate(fd, 0)
                    _write_all(fd, str(os.getpid()).encode())
                    return cls(path, fd)
            except BaseException:
                os.close(fd)
                raise
            # Its former owner removed it between our open and our lock: lock the file that is there now.
            os.close(fd)

    def release(self) -> None:
        """Remove the file and give up the lock. May be called again."""
        if self._fd >= 0:
            if _is_still(self._fd, self.path):
                with suppress(OSError):
                    os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise LockHeld(path, _holder(fd)) from None


def _holder(fd: int) -> int | None:
    answer = fcntl.fcntl(fd, fcntl.F_GETLK, FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    kind, _, _, _, pid = FLOCK.unpack(answer)
    # A holder in another pid namespace has number 0 here.
    return None if kind == fcntl.F_UNLCK or pid <= 0 else pid


def _is_still(fd: int, path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(fd))


# Directories: one sync may serve several callers.


class _DirectorySync:
    """Syncs of one directory. A caller needs a sync that began after it came; those who wait share the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.users = 0
        self._condition = threading.Condition()
        self._running = False
        self._begun = 0
        self._done = 0
        self._failed: dict[int, OSError] = {}

    def sync(self) -> None:
        with self._condition:
            wanted = self._begun + 1
            while self._running and self._begun < wanted:
                self._condition.wait()
            if self._begun >= wanted:
                self._await(wanted)
                return
            self._begun = wanted
            self._running = True
        try:
            _fsync_path(self.path)
        except OSError as exc:
            self._failed[wanted] = exc
            raise
        finally:
            with self._condition:
                self._running = False
                self._done = wanted
                self._condition.notify_all()

    def _await(self, wanted: int) -> None:
        """Wait for a sync that another caller runs, and share its error."""
        while self._done < wanted:
            self._condition.wait()
        if failure := self._failed.get(wanted):
            raise OSError(failure.errno, failure.strerror, str(self.path)) from failure


_syncs: dict[Path, _DirectorySync] = {}
_syncs_lock = threading.Lock()


@contextmanager
def _shared_sync(path: Path) -> Iterator[_DirectorySync]:
    with _syncs_lock:
        sync = _syncs.setdefault(path, _DirectorySync(path))
        sync.users += 1
    try:
        yield sync
    finally:
        with _syncs_lock:
            sync.users -= 1
            if not sync.users:
                del _syncs[path]


def sync_directory(path: Path) -> None:
    """Make the names in a directory outlast a crash. Calls that come together share a sync."""
    with _shared_sync(path) as sync:
        sync.sync()


def _fsync_path(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _temporary_beside(path: Path) -> Path:
    # Not made from the file's name, which may be as long as a name can be.
    return path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{next(_numbers)}{TEMPORARY_SUFFIX}"


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_up_to(fd: int, size: int) -> bytes:
    parts: list[bytes] = []
    while size > 0 and (part := os.read(fd, min(size, 1 << 20))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
