"""Dumps of a guest: its memory as a core file, or its whole state as QEMU's migration writes it.

The guest stands still meanwhile unless the dump is to be live, and then goes on, is reset or is ended, as the caller
asked. Whatever fails, it goes on, and no part of a file is left.
"""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pyvirtd.api.events import DomainEventJobCompleted
from pyvirtd.constants.domain import (
    DomainCoreDumpFlags,
    DomainCoreDumpFormat,
    DomainEventSuspendedDetailType,
    DomainJobOperation,
    DomainJobType,
    DomainPausedReason,
    DomainState,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.job_stats import Amount, JobStats
from pyvirtd.core.jobs import HeldLong, Job, LongJob
from pyvirtd.drivers.qemu import process
from pyvirtd.drivers.qemu.domain import CRASHED, QemuDomain
from pyvirtd.drivers.qemu.monitor import MonitorClosed
from pyvirtd.drivers.qemu.pause import UNPAUSED, Pausing, go_on, pause
from pyvirtd.drivers.qemu.saving.image import Format
from pyvirtd.drivers.qemu.saving.pipeline import Pipeline, available
from pyvirtd.drivers.qemu.saving.transfer import check_aborted, send_state, stop_transfer
from pyvirtd.errors import InvalidArg, OperationFailed, OperationUnsupported, VirtError, from_os_error
from pyvirtd.util.files import in_thread

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

Flags = DomainCoreDumpFlags
# qapi/dump.json DumpGuestMemoryFormat
FORMATS = {
    DomainCoreDumpFormat.RAW: "elf",
    DomainCoreDumpFormat.KDUMP_ZLIB: "kdump-zlib",
    DomainCoreDumpFormat.KDUMP_LZO: "kdump-lzo",
    DomainCoreDumpFormat.KDUMP_SNAPPY: "kdump-snappy",
    DomainCoreDumpFormat.WIN_DMP: "win-dmp",
}
DESCRIPTOR = "dump"
FOR_DUMP: Pausing = (DomainPausedReason.DUMP, DomainEventSuspendedDetailType.PAUSED)
# Why a guest that was being dumped stands still. UNKNOWN: the daemon died before it noted why it stopped it.
STOPPED_FOR = (DomainPausedReason.DUMP, DomainPausedReason.WATCHDOG, DomainPausedReason.UNKNOWN)
RECOVER_S = 600.0  # for QEMU to end the dump of a daemon that is gone
RECOVER_ASK_S = 0.5
STATS_S = 5.0
LETTING_GO_S = 10.0  # for QEMU to see that nobody reads what it writes


async def core_dump(
    driver: "QemuDriver", dom: QemuDomain, path: str, format: DomainCoreDumpFormat, flags: DomainCoreDumpFlags
) -> None:
    """Dump a guest to a file, and let it go on as the flags say. Raises VirtError."""
    allow = Job.QUERY | Job.DESTROY | Job.ABORT
    if flags & Flags.LIVE:
        allow |= Job.SUSPEND
    memory_only = bool(flags & Flags.MEMORY_ONLY)
    async with dump_job(driver, dom, "DomainCoreDump", allow, memory_only=memory_only) as job:
        await _check_format(dom, format, flags)
        ran = dom.state is DomainState.RUNNING
        crash = False
        try:
            if ran:
                await _stop(driver, dom, live=bool(flags & Flags.LIVE))
            await write_dump(driver, dom, job, path, format, flags)
            crash = bool(flags & Flags.CRASH)
            if flags & Flags.RESET:
                await dom.monitor.execute("system_reset")
        except MonitorClosed:
            raise OperationFailed("domain is not running", domain=From.DOMAIN) from None
        finally:
            if ran and not crash:
                await go_on(driver, dom, UNPAUSED, (DomainPausedReason.DUMP,))
        if crash:
            await _end_crashed(driver, dom)


@asynccontextmanager
async def dump_job(
    driver: "QemuDriver", dom: QemuDomain, owner: str, allow: Job, *, memory_only: bool
) -> AsyncIterator[HeldLong]:
    """Hold the job of a dump. It is noted on disk: should the daemon die, the next one lets the guest go on."""
    try:
        async with dom.jobs.long(LongJob.DUMP, owner, allow) as job:
            dom.running  # noqa: B018 - raises for a guest that ended before its turn came
            job.stats = JobStats(DomainJobOperation.DUMP, sums=not memory_only)
            await driver.save_status(dom)
            yield job
    finally:
        with suppress(VirtError):
            await driver.save_status(dom)


async def write_dump(
    driver: "QemuDriver",
    dom: QemuDomain,
    job: HeldLong,
    path: str,
    format: DomainCoreDumpFormat,
    flags: DomainCoreDumpFlags,
) -> None:
    """Write a dump and have it on the disk; where it fails there is no file. The caller holds `job`."""
    bypass = bool(flags & Flags.BYPASS_CACHE)
    async with _new_file(path) as file:
        # A write that hangs in a pipe is ended by ending who stands in between; one to a file needs nobody.
        piped = not stat.S_ISREG(os.fstat(file).st_mode)
        if flags & Flags.MEMORY_ONLY:
            async with Pipeline.writing(file, 0, Format.RAW, bypass=bypass, relay=True) as pipeline:
                await _piped(_dump_memory(dom, job, pipeline, FORMATS[format]), pipeline, job)
        else:
            async with Pipeline.writing(file, 0, dump_format(driver), bypass=bypass, relay=piped) as pipeline:
                await _piped(send_state(dom, pipeline.fd, job, unblock=pipeline.kill), pipeline, job)
        if not piped:
            await in_thread(os.fsync, file)
    if not flags & Flags.MEMORY_ONLY:  # of memory alone QEMU gives no figures that would be kept
        dom.jobs.completed = job.stats.ended(DomainJobType.COMPLETED) if job.stats is not None else None
        if dom.jobs.completed is not None:
            driver.host.events.emit(driver, DomainEventJobCompleted(dom, dom.jobs.completed.params()))


def dump_format(driver: "QemuDriver") -> Format:
    """The compression that qemu.conf asks for; none where it cannot be had."""
    word = driver.config.dump_image_format
    found = Format.of(word)
    if found is None or not available(found):
        log.warning("dump_image_format '%s' is unknown or its program not installed: dumps are raw", word)
        return Format.RAW
    return found


async def recover(driver: "QemuDriver", dom: QemuDomain) -> None:
    """The daemon that dumped a guest has died: once QEMU writes no more, the guest goes on."""
    reason = DomainPausedReason(dom.reason) if dom.state is DomainState.PAUSED else None
    async with dom.jobs.long(LongJob.DUMP, "end of a dump", Job.QUERY | Job.DESTROY):
        try:
            await stop_transfer(dom.monitor)
            async with asyncio.timeout(RECOVER_S):
                while (await dom.monitor.execute("query-dump"))["status"] == "active":  # noqa: ASYNC110 - may be missed
                    await asyncio.sleep(RECOVER_ASK_S)
        except (VirtError, TimeoutError) as exc:
            log.warning("domain %s: its dump does not end: %r", dom.name, exc)
        if reason in STOPPED_FOR:
            await go_on(driver, dom, UNPAUSED, (reason,))


async def _stop(driver: "QemuDriver", dom: QemuDomain, *, live: bool) -> None:
    """Stop the guest for its dump; a live one only where QEMU stops it itself, at the end."""
    if live:
        dom.running.pausing = FOR_DUMP
    else:
        await pause(driver, dom, FOR_DUMP)


async def _end_crashed(driver: "QemuDriver", dom: QemuDomain) -> None:
    guest = dom.guest
    if guest is not None:
        await process.end(dom, guest, CRASHED)
        await process.finish(driver, dom, guest)


async def _check_format(dom: QemuDomain, format: DomainCoreDumpFormat, flags: DomainCoreDumpFlags) -> None:
    """Raises OperationUnsupported and InvalidArg for what QEMU cannot write."""
    monitor = dom.monitor
    if format is DomainCoreDumpFormat.RAW:
        return
    if not flags & Flags.MEMORY_ONLY:
        raise OperationUnsupported("kdump-compressed format is only supported with memory-only dump", domain=From.QEMU)
    known = (await monitor.execute("query-dump-guest-memory-capability"))["formats"]
    if FORMATS[format] not in known:
        raise InvalidArg(f"unsupported dumpformat '{FORMATS[format]}' for this QEMU binary", domain=From.QEMU)


# --- memory only ------------------------------------------------------------------------------------------------


async def _dump_memory(dom: QemuDomain, job: HeldLong, pipeline: Pipeline, format: str) -> None:
    """Have QEMU write the guest's memory. Raises OperationFailed, OperationAborted, MonitorClosed."""
    monitor = dom.monitor
    over: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def listen(message: dict[str, Any]) -> None:
        if message.get("event") == "DUMP_COMPLETED" and not over.done():
            over.set_result(message.get("data") or {})

    arguments = {"paging": False, "protocol": f"fd:{DESCRIPTOR}", "detach": True, "format": format}
    job.refresh = lambda: _refresh(dom, job)
    monitor.raw_listeners.append(listen)
    watched: set[asyncio.Future[Any]] = {
        over,
        asyncio.ensure_future(monitor.closed.wait()),
        asyncio.ensure_future(job.aborted.wait()),
    }
    try:
        check_aborted(job)
        await monitor.pass_fd(DESCRIPTOR, pipeline.fd)
        pipeline.close()
        await monitor.execute("dump-guest-memory", arguments)
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        if not over.done() and not monitor.closed.is_set():
            # QEMU knows no end of a dump but one that cannot write on.
            pipeline.kill()
            await asyncio.wait({over}, timeout=LETTING_GO_S)
        check_aborted(job)
        if not over.done():
            raise MonitorClosed
        if error := over.result().get("error"):
            raise OperationFailed(f"memory-only dump failed: {error}", domain=From.QEMU)
    finally:
        job.refresh = None
        monitor.raw_listeners.remove(listen)
        for task in watched:
            task.cancel()


async def _refresh(dom: QemuDomain, job: HeldLong) -> None:
    try:
        answer = await dom.monitor.execute("query-dump", timeout=STATS_S)
    except VirtError as exc:
        log.debug("no figures: %s", exc)
        return
    if job.stats is not None and answer.get("status") in ("active", "completed"):
        total, done = int(answer["total"]), int(answer["completed"])
        job.stats = replace(job.stats, memory=Amount(total, done, total - done))


# --- the file ---------------------------------------------------------------------------------------------------


async def _piped(writing: Any, pipeline: Pipeline, job: HeldLong) -> None:
    """What QEMU writes, and the programs behind it; where both fail, theirs is the cause."""
    try:
        await writing
    except OperationFailed:
        if (error := await pipeline.failure()) is not None:
            raise error from None
        raise
    await pipeline.finish(job)


@asynccontextmanager
async def _new_file(path: str) -> AsyncIterator[int]:
    """A file to dump to; it is removed when that fails. Raises VirtError."""
    try:
        file = await in_thread(_open, path)
    except (OSError, ValueError) as exc:
        error = exc if isinstance(exc, OSError) else OSError(22, "")
        raise from_os_error(error, f"Failed to create file '{path}'", domain=From.QEMU) from exc
    try:
        yield file
    except BaseException as exc:
        await in_thread(_remove, path, file)
        if isinstance(exc, OSError):
            raise from_os_error(exc, f"unable to write '{path}'", domain=From.QEMU) from exc
        raise
    finally:
        os.close(file)


def _open(path: str) -> int:
    """Open for writing, empty; a pipe that nobody reads does not keep us waiting."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o600)
    os.set_blocking(file, True)
    return file


def _remove(path: str, file: int) -> None:
    """Remove what was written, if the name still leads to it and it is a file and no device."""
    with suppress(OSError):
        found = os.stat(path, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.fstat(file)):
            os.unlink(path)
