"""Saving a running guest to a file: it ends up whole in the file, or it runs on."""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.api.events import DomainEventJobCompleted
from pyvirtd.constants.domain import (
    DomainEventResumedDetailType,
    DomainEventSuspendedDetailType,
    DomainJobOperation,
    DomainPausedReason,
    DomainRunningReason,
    DomainSaveRestoreFlags,
    DomainState,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.job_stats import JobStats
from pyvirtd.core.jobs import HeldLong, Job, LongJob
from pyvirtd.drivers.qemu import process
from pyvirtd.drivers.qemu.domain import SAVED, QemuDomain
from pyvirtd.drivers.qemu.pause import Pausing, Resuming, go_on, pause
from pyvirtd.drivers.qemu.saving.document import replacement, saved_cookie, saved_xml
from pyvirtd.drivers.qemu.saving.image import Format, Image, claim
from pyvirtd.drivers.qemu.saving.pipeline import Pipeline, available
from pyvirtd.drivers.qemu.saving.transfer import check_aborted, send_state
from pyvirtd.drivers.qemu.transient import has_transient
from pyvirtd.errors import BadCall, OperationFailed, OperationInvalid, from_os_error
from pyvirtd.util.files import in_thread, sync_directory

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

Flags = DomainSaveRestoreFlags
FOR_SAVE: Pausing = (DomainPausedReason.SAVE, DomainEventSuspendedDetailType.PAUSED)
SAVE_CANCELED: Resuming = (DomainRunningReason.SAVE_CANCELED, DomainEventResumedDetailType.UNPAUSED)


@dataclass(frozen=True, slots=True)
class Saving:
    """What a save is to be: `flags` are DomainSaveRestoreFlags, `xml` a client's document instead of the live one."""

    path: Path
    flags: int = 0
    xml: str | None = None
    format: Format = Format.RAW


async def save(driver: "QemuDriver", dom: QemuDomain, wanted: Saving, call: str) -> None:
    """Save a guest and end it. Raises VirtError; then the guest goes on as it was before, and no new file is left."""
    check_flags(wanted.flags)
    async with dom.jobs.long(LongJob.SAVE, call, Job.QUERY | Job.DESTROY | Job.ABORT) as job:
        guest = dom.running
        if has_transient(dom.live_def):
            raise OperationInvalid("migration with transient disk is not supported", domain=From.QEMU)
        job.stats = JobStats(DomainJobOperation.SAVE)
        await driver.save_status(dom)
        # A change that has begun is finished even when the daemon ends meanwhile: the next one resumes the guest.
        async with _stopped(driver, dom) as was_running:
            image = await _image(driver, dom, wanted, running=was_running)
            async with _file(wanted.path) as fd:
                await _fill(dom, job, fd, image, bypass=bool(wanted.flags & Flags.BYPASS_CACHE))
                await in_thread(sync_directory, wanted.path.parent)
                check_aborted(job)
                await in_thread(_finish, fd, image, wanted.path)
        dom.jobs.completed = job.stats
        driver.host.events.emit(driver, DomainEventJobCompleted(dom, job.stats.params()))
        await process.end(dom, guest, SAVED)
        await process.finish(driver, dom, guest)


def check_flags(flags: int) -> None:
    """Raises BadCall for flags that contradict each other."""
    if flags & Flags.RUNNING and flags & Flags.PAUSED:
        raise BadCall("Flags 'VIR_DOMAIN_SAVE_RUNNING' and 'VIR_DOMAIN_SAVE_PAUSED' are mutually exclusive")


def save_format(driver: "QemuDriver", word: str | None) -> Format:
    """The format that a call names, else qemu.conf's. Raises OperationFailed where it is none or cannot be had."""
    where = "" if word is not None else " in configuration file"
    word = word if word is not None else driver.config.save_image_format
    found = Format.of(word)
    if found is None:
        raise OperationFailed(f"Invalid save image format specified{where}", domain=From.QEMU)
    if not available(found):
        raise OperationFailed(f"Compression program for save image format{where} isn't available", domain=From.QEMU)
    return found


@asynccontextmanager
async def _stopped(driver: "QemuDriver", dom: QemuDomain) -> AsyncIterator[bool]:
    """The guest does not run meanwhile; whether it did. When the work within fails, it goes on."""
    was_running = dom.state is DomainState.RUNNING
    try:
        if was_running:
            await pause(driver, dom, FOR_SAVE)
        yield was_running
    except BaseException:
        if was_running:
            await asyncio.shield(go_on(driver, dom, SAVE_CANCELED))
        raise


async def _image(driver: "QemuDriver", dom: QemuDomain, wanted: Saving, *, running: bool) -> Image:
    definition = await replacement(driver, dom.live_def, wanted.xml) if wanted.xml is not None else None
    if wanted.flags & (Flags.RUNNING | Flags.PAUSED):
        running = bool(wanted.flags & Flags.RUNNING)
    text = saved_xml(driver, dom, definition)
    return Image.new(text, running=running, format=wanted.format, cookie=saved_cookie(dom))


# --- the file ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Opened:
    fd: int
    made: bool
    kept: bool = field(default=False)


@asynccontextmanager
async def _file(path: Path) -> AsyncIterator[int]:
    """An empty file, or a block device, that only its owner may read. What was made here goes when the work fails."""
    opened = await in_thread(_open, path)
    try:
        yield opened.fd
        opened.kept = True
    finally:
        await asyncio.shield(in_thread(_close, path, opened))


def _open(path: Path) -> _Opened:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    made = True
    try:
        try:
            fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            fd, made = os.open(path, flags), False
        try:
            claim(fd, write=True)
            if not made:
                _empty(fd)
        except BaseException:
            os.close(fd)
            raise
    except OSError as exc:
        raise from_os_error(exc, f"Failed to create file '{path}'", domain=From.QEMU) from exc
    return _Opened(fd, made)


def _empty(fd: int) -> None:
    """A file that was there: nobody else may read what comes. Raises OSError."""
    found = os.fstat(fd)
    if stat.S_ISBLK(found.st_mode):
        return
    if not stat.S_ISREG(found.st_mode):
        raise PermissionError(1, "not a regular file")
    if found.st_uid != os.geteuid():
        os.fchown(fd, os.geteuid(), os.getegid())
    os.fchmod(fd, 0o600)
    os.ftruncate(fd, 0)


def _close(path: Path, opened: _Opened) -> None:
    os.close(opened.fd)
    if opened.made and not opened.kept:
        path.unlink(missing_ok=True)


async def _fill(dom: QemuDomain, job: HeldLong, fd: int, image: Image, *, bypass: bool) -> None:
    """Write all of the image; it still says that it is partial."""
    try:
        await in_thread(_write, fd, image.prologue())
    except OSError as exc:
        raise from_os_error(exc, f"failed to write header to domain save file of '{dom.name}'") from exc
    async with Pipeline.writing(fd, image.state_offset, image.format, bypass=bypass) as pipeline:
        try:
            await send_state(dom, pipeline.fd, job, unblock=pipeline.kill)
        except OperationFailed as exc:
            raise await pipeline.failure() or exc from exc
        await pipeline.finish(job)


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _finish(fd: int, image: Image, path: Path) -> None:
    try:
        image.finish(fd)
    except OSError as exc:
        raise from_os_error(exc, f"cannot write '{path}'") from exc
