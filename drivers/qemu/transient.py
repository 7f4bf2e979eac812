"""Disks whose changes are forgotten when the guest ends: an overlay beside the image takes what the guest writes.

The live definition names the overlay, with the image below it; that is how a later daemon knows what to remove.
"""

import logging
import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.qemu_img import qemu_img
from pyvirtd.errors import ConfigUnsupported, OperationUnsupported, from_os_error
from pyvirtd.model.disk import Disk, DiskDriver
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.storage import BackingStore, ChainFormat, FileSource, StorageFormat, StorageType
from pyvirtd.util.files import Owner, in_thread

log = logging.getLogger(__name__)


def has_transient(live: DomainDef) -> bool:
    """Whether the guest's disks are only half of the truth."""
    return any(disk.transient is not None for disk in live.devices.disk)


async def lay_over(live: DomainDef, owner: Owner | None, undo: AsyncExitStack) -> None:
    """Put a new overlay on every transient disk of a guest whose chains are known. Raises VirtError."""
    for disk in live.devices.disk:
        if disk.transient is not None:
            await _lay_over(disk, live.name, owner, undo)


async def remove_overlays(live: DomainDef) -> None:
    """Forget what a guest wrote that was started with overlays."""
    for disk in live.devices.disk:
        top, below = disk.source, disk.backing_store.source if disk.backing_store is not None else None
        if disk.transient is None or not isinstance(top, FileSource) or not isinstance(below, FileSource):
            continue
        if (overlay := _overlay(below.file or "", live.name)) == Path(top.file or ""):
            await in_thread(_remove, overlay)


def missing_overlays(live: DomainDef) -> list[Path]:
    """Those that a start is going to make, as far as nobody else's file is in their way. Blocks."""
    images = [disk.source for disk in live.devices.disk if disk.transient is not None]
    overlays = [_overlay(one.file or "", live.name) for one in images if isinstance(one, FileSource)]
    return [overlay for overlay in overlays if overlay.is_absolute() and not os.path.lexists(overlay)]


def remove_files(overlays: Iterable[Path]) -> None:
    """Remove the overlays of a start that was cut short. Blocks."""
    for overlay in overlays:
        _remove(overlay)


def _overlay(image: str, name: str) -> Path:
    return Path(f"{image}.TRANSIENT-{name}")


def _remove(overlay: Path) -> None:
    try:
        overlay.unlink(missing_ok=True)
    except OSError as exc:
        log.warning("cannot remove overlay '%s': %s", overlay, exc)


async def _lay_over(disk: Disk, name: str, owner: Owner | None, undo: AsyncExitStack) -> None:
    source, target = disk.source, disk.target.dev
    if not isinstance(source, FileSource) or not (source.file or "").startswith("/"):
        raise ConfigUnsupported(f"transient disk '{target}' is supported only with a file", domain=From.QEMU)
    if source.fdgroup:
        raise ConfigUnsupported(f"transient disk '{target}' with file descriptors is not supported", domain=From.QEMU)
    if (source.common.encryption or disk.encryption) is not None:
        raise ConfigUnsupported(f"transient disk '{target}' with encryption is not supported", domain=From.QEMU)
    image = source.file or ""
    overlay = _overlay(image, name)
    kind = (disk.driver.type if disk.driver is not None else None) or StorageFormat.RAW
    error = f"cannot make overlay '{overlay}' of transient disk '{target}'"
    fd = await in_thread(_reserve, overlay, str(target), error)
    try:
        undo.push_async_callback(in_thread, _remove, overlay)
        # Not by its name: the image's directory may be one where somebody else can put a link in its place.
        words = ["create", "-q", "-f", "qcow2", "-F", str(kind), "-b", image, f"/proc/self/fd/{fd}"]
        await qemu_img(*words, error=error, pass_fds=(fd,))
        if owner is not None:
            await in_thread(_give, fd, owner, error)
    finally:
        await in_thread(os.close, fd)
    disk.backing_store = BackingStore(
        type=StorageType.FILE,
        format_=ChainFormat(type=kind),
        source=source,
        backing_store=disk.backing_store,
    )
    disk.source = FileSource(file=str(overlay))
    disk.driver = disk.driver or DiskDriver()
    disk.driver.type = StorageFormat.QCOW2


def _reserve(overlay: Path, target: str, error: str) -> int:
    """Make the overlay's file, which nobody else may have made, and open it. Raises VirtError."""
    try:
        return os.open(overlay, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise OperationUnsupported(
            f"Overlay file '{overlay}' for transient disk '{target}' already exists", domain=From.QEMU
        ) from None
    except OSError as exc:
        raise from_os_error(exc, error) from exc


def _give(fd: int, owner: Owner, error: str) -> None:
    try:
        os.fchown(fd, owner.uid, owner.gid)
    except OSError as exc:
        raise from_os_error(exc, error) from exc
