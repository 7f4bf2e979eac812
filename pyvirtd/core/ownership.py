"""Giving files to a guest's user and back: who owned them before is noted on the files themselves.

The notes are libvirt's, in extended attributes that only root can write: the former owner, how many guests use the
file now, and the host's boot in which that was counted; so a file lent by libvirtd is given back here, and the other
way round. A guest's user may have write access to directories on the way to its files: symbolic links which it could
have made are not followed, and what is changed is the file that was looked at, never a name.

Everything here blocks: for a thread.
"""

import errno
import functools
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.errors import InvalidArg, OperationInvalid, SystemError_, VirtError
from pyvirtd.util.files import Owner
from pyvirtd.util.users import group_id, user_id
from pyvirtd.util.walk import open_path

log = logging.getLogger(__name__)

FORMER_OWNER = "trusted.libvirt.security.dac"
USERS = "trusted.libvirt.security.ref_dac"
BOOT = "trusted.libvirt.security.timestamp_dac"
ROOT = Owner(0, 0)
# A network file system that maps root to nobody, a read-only one, one without owners: QEMU may still have access.
TOLERATED = (errno.EPERM, errno.EROFS, errno.EOPNOTSUPP)
NO_NOTES = (errno.EOPNOTSUPP, errno.EPERM, errno.EROFS, errno.ENOSYS)
BOOT_SLACK_S = 5  # the clock and the uptime are read one after the other, and the clock is adjusted
UTMP = "/run/utmp"
UTMP_RECORD, UTMP_BOOT, UTMP_SECONDS = 384, 2, 340  # utmp(5): size, BOOT_TIME, offset of tv_sec

_notes = threading.Lock()


@dataclass(frozen=True, slots=True)
class Label:
    """A file and whom it is given to: "+UID:+GID" or names. Without `restore` it is never given back.

    `remember`: note the former owner; without the note it goes back to root. `optional`: may be missing. `create`:
    made empty where it is missing. `storage`: an image, which errors call by that name.
    """

    path: str
    label: str
    remember: bool = True
    restore: bool = True
    optional: bool = False
    create: bool = False
    storage: bool = False


def parse_label(text: str) -> Owner:
    """The user and group of a label. Raises InvalidArg."""
    user, colon, group = text.partition(":")
    if not colon or not user or not group:
        raise InvalidArg(f"Failed to parse uid and gid from '{text}'")
    return Owner(user_id(user), group_id(group))


def apply(labels: Sequence[Label], given: Callable[[Label], None] | None = None) -> None:
    """Give the files to their users, `given` told of each; on an error all are as they were. Raises VirtError."""
    done: list[Label] = []
    try:
        owners = {text: parse_label(text) for text in {label.label for label in labels}}
        for label in labels:
            _give(label, owners[label.label])
            done.append(label)
            if given is not None:
                given(label)
    except BaseException:
        restore(reversed(done))
        raise


def restore(labels: Iterable[Label]) -> None:
    """Give the files back to those who had them, unless other guests still use them. What fails is only logged."""
    for label in labels:
        if label.restore:
            try:
                _give_back(label, parse_label(label.label))
            except FileNotFoundError:
                pass
            except (OSError, VirtError) as exc:
                log.warning("cannot restore the owner of '%s': %s", label.path, exc)


# --- one file -------------------------------------------------------------------------------------------------


def _give(label: Label, owner: Owner) -> None:
    try:
        fd = open_path(label.path, owner.uid, create=label.create)
    except OSError as exc:
        if exc.errno == errno.ENOENT and label.optional:
            return
        raise _cannot(label, owner, exc) from exc
    try:
        with _notes:
            _note_and_chown(f"/proc/self/fd/{fd}", label, owner, _owner(fd))
    except OSError as exc:
        raise _cannot(label, owner, exc) from exc
    finally:
        os.close(fd)


def _note_and_chown(file: str, label: Label, owner: Owner, current: Owner) -> None:
    noted = label.remember and _remember(file, label.path, current, owner)
    try:
        _chown(file, label.path, owner, current)
    except OSError:
        if noted:
            _recall(file, label.path)
        raise


def _give_back(label: Label, owner: Owner) -> None:
    fd = open_path(label.path, owner.uid)
    try:
        file = f"/proc/self/fd/{fd}"
        with _notes:
            current = _owner(fd)
            former = _recall(file, label.path) if label.remember else None
            if former is not None and former.in_use:
                return
            if former is not None:
                _chown(file, label.path, former.owner, current)
            elif current == owner:
                _chown(file, label.path, ROOT, current)
    finally:
        os.close(fd)


def _chown(file: str, path: str, owner: Owner, current: Owner) -> None:
    if current == owner:
        return
    try:
        os.chown(file, owner.uid, owner.gid)
    except OSError as exc:
        if exc.errno not in TOLERATED:
            raise
        log.info("the owner of '%s' stays: %s", path, exc.strerror)


def _owner(fd: int) -> Owner:
    status = os.fstat(fd)
    return Owner(status.st_uid, status.st_gid)


def _cannot(label: Label, owner: Owner, exc: OSError) -> VirtError:
    reason = os.strerror(exc.errno or 0)
    if label.storage and exc.errno != errno.EPERM:
        what = f"Cannot access storage file '{label.path}'"
    elif exc.errno == errno.ENOENT:
        return SystemError_(f"unable to stat: {label.path}: {reason}", domain=From.SECURITY, int1=errno.ENOENT)
    else:
        what = f"unable to set user and group to '{owner.uid}:{owner.gid}' on '{label.path}'"
    return SystemError_(f"{what}: {reason}", int1=exc.errno or 0)


# --- notes on a file ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Former:
    """What a file's notes say: who gets it, or that others still use it."""

    owner: Owner
    in_use: bool


def _remember(file: str, path: str, current: Owner, wanted: Owner) -> bool:
    """Note one more user of a file, and at the first one its owner; False where no notes can be kept."""
    users = _users(file, path)
    try:
        if users:
            if current != wanted:
                raise OperationInvalid(
                    f"Setting different DAC user or group on {path} which is already in use", domain=From.SECURITY
                )
        else:
            _set(file, FORMER_OWNER, f"+{current.uid}:+{current.gid}")
            _set(file, BOOT, str(boot_time()))
        _set(file, USERS, str(users + 1))  # last: without it the others count for nothing
    except OSError as exc:
        if exc.errno not in NO_NOTES:
            raise
        return False
    return True


def _recall(file: str, path: str) -> Former | None:
    """Note one user less, and with the last one remove the notes; None where there are none."""
    users = _users(file, path)
    if not users:
        return None
    try:
        owner = parse_label(_get(file, FORMER_OWNER))
    except VirtError:
        log.warning("'%s' does not say who owned it; root gets it", path)
        owner = ROOT
    if users > 1:
        _set(file, USERS, str(users - 1))
    else:
        _forget(file)
    return Former(owner, users > 1)


def _users(file: str, path: str) -> int:
    """How many guests use a file. Notes from before the host's boot are removed: those guests are gone."""
    text = _get(file, USERS)
    if not text:
        return 0
    boot = _get(file, BOOT)
    if not boot.isdigit() or abs(int(boot) - boot_time()) > BOOT_SLACK_S or not text.isdigit():
        log.warning("'%s' was noted as in use before this boot of the host", path)
        _forget(file)
        return 0
    return int(text)


def _get(file: str, name: str) -> str:
    try:
        return os.getxattr(file, name).decode("ascii", "replace").rstrip("\0")
    except OSError:
        return ""


def _set(file: str, name: str, value: str) -> None:
    os.setxattr(file, name, value.encode())


def _forget(file: str) -> None:
    for name in (USERS, FORMER_OWNER, BOOT):
        with suppress(OSError):
            os.removexattr(file, name)


@functools.cache
def boot_time() -> int:
    """When the host booted, in seconds since the epoch, as libvirt finds it."""
    with suppress(OSError), open(UTMP, "rb") as file:
        while len(record := file.read(UTMP_RECORD)) == UTMP_RECORD:
            if struct.unpack_from("<h", record)[0] == UTMP_BOOT:
                return int(struct.unpack_from("<i", record, UTMP_SECONDS)[0])
    with open("/proc/uptime") as uptime:
        return int(time.time() - float(uptime.read().split()[0]) + 0.5)
