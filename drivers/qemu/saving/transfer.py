"""A guest's state from QEMU to a descriptor and back, with progress; a client may end it at any moment.

QEMU's migration does it. https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html#qapidoc-migration
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pyvirtd.constants.domain import DomainJobType
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.job_stats import Amount
from pyvirtd.core.jobs import HeldLong, LongJob
from pyvirtd.drivers.qemu.domain import QemuDomain
from pyvirtd.drivers.qemu.monitor import Monitor, MonitorClosed
from pyvirtd.errors import OperationAborted, OperationFailed, VirtError

log = logging.getLogger(__name__)

DESCRIPTOR = "migrate"
UNLIMITED = (2**63 - 1) >> 20 << 20  # bytes a second; QEMU counts in MiB
_JOB_NAMES = {LongJob.SAVE: "domain save", LongJob.DUMP: "domain core dump"}
OVER = ("completed", "failed", "cancelled")
ASK_S = 2.0  # between two looks when no event comes
ABORT_S = 30.0  # for QEMU to let go of the descriptor
STATS_S = 5.0  # for QEMU to tell how far it is; the last figures count where it does not
SETTLE_TIMES = 500  # a hundredth of a second each
ENDING_S = 1.0  # for a QEMU that gave up to be gone


async def send_state(dom: QemuDomain, fd: int, job: HeldLong, *, unblock: Callable[[], object] = lambda: None) -> None:
    """Write a paused guest's whole state to a descriptor; returns when QEMU has written all of it.

    The caller holds `job`, keeps `fd` and closes it. `unblock` makes a write of QEMU's that hangs fail: it ends
    whoever reads the other end of a pipe, and is called when the transfer is to end early. Whatever is raised, the
    guest is as it was, paused, and may be resumed. Raises OperationAborted and OperationFailed.
    """
    monitor = dom.monitor
    check_aborted(job)
    job.refresh = lambda: _refresh(monitor, job)
    try:
        await _prepare(monitor)
        async with _changes(monitor) as changed:
            await monitor.pass_fd(DESCRIPTOR, fd)
            await monitor.execute("migrate", {"uri": f"fd:{DESCRIPTOR}", "detach": True})
            try:
                answer = await _wait(monitor, changed, job)
            except BaseException:
                await asyncio.shield(_cancel(monitor, changed, unblock))
                raise
        await _settle(monitor)
    except MonitorClosed as exc:
        raise OperationFailed("domain is not running", domain=From.QEMU) from exc
    finally:
        job.refresh = None
    _note(job, answer)
    if answer.get("status") != "completed":
        check_aborted(job)
        raise OperationFailed(f"job '{job_name(job)}' failed: {reason(answer)}", domain=From.QEMU)


async def load_state(dom: QemuDomain, fd: int) -> None:
    """Fill a QEMU that was started for it (`-incoming defer`) with a state from a descriptor; its vcpus stay stopped.

    The caller keeps `fd`. Raises OperationFailed, and MonitorClosed where QEMU gave up the state and itself.
    """
    monitor = dom.monitor
    await _prepare(monitor)
    async with _changes(monitor) as changed:
        await monitor.pass_fd(DESCRIPTOR, fd)
        await monitor.execute("migrate-incoming", {"uri": f"fd:{DESCRIPTOR}"})
        answer = await _wait(monitor, changed, None)
    if answer.get("status") != "completed":
        # QEMU says so and ends; its last words tell more.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(monitor.closed.wait(), ENDING_S)
            raise MonitorClosed
        raise OperationFailed(f"job 'restore' failed: {reason(answer)}", domain=From.QEMU)


def job_name(job: HeldLong) -> str:
    """A long job as libvirt's errors name it."""
    return _JOB_NAMES.get(job.kind, "snapshot")


def reason(answer: dict[str, Any]) -> str:
    """Why QEMU says it failed, in its words."""
    return str(answer.get("error-desc") or "unexpectedly failed")


def check_aborted(job: HeldLong | None) -> None:
    """Raises OperationAborted once a client wants the job to end."""
    if job is not None and job.aborted.is_set():
        raise OperationAborted(f"job '{job_name(job)}' canceled by client", domain=From.QEMU)


async def _prepare(monitor: Monitor) -> None:
    """No limit of the rate, and events; whatever an earlier migration had set is taken back."""
    capabilities = await monitor.execute("query-migrate-capabilities")
    wanted = [
        {"capability": item["capability"], "state": item["capability"] == "events"}
        for item in capabilities
        if bool(item["state"]) != (item["capability"] == "events")
    ]
    if wanted:
        await monitor.execute("migrate-set-capabilities", {"capabilities": wanted})
    await monitor.execute("migrate-set-parameters", {"max-bandwidth": UNLIMITED})


@asynccontextmanager
async def _changes(monitor: Monitor) -> AsyncIterator[asyncio.Event]:
    """Set at each event of the migration."""
    changed = asyncio.Event()

    def listen(message: dict[str, Any]) -> None:
        if message.get("event") == "MIGRATION":
            changed.set()

    monitor.raw_listeners.append(listen)
    try:
        yield changed
    finally:
        monitor.raw_listeners.remove(listen)


async def _wait(monitor: Monitor, changed: asyncio.Event, job: HeldLong | None) -> dict[str, Any]:
    """QEMU's last word of a migration that runs. Raises OperationAborted when a client ends the job first."""
    watched = {asyncio.ensure_future(monitor.closed.wait())}
    if job is not None:
        watched.add(asyncio.ensure_future(job.aborted.wait()))
    try:
        while True:
            answer = await _ask(monitor)
            if answer.get("status") in OVER:
                return answer
            if job is not None:
                _note(job, answer)
            change = asyncio.ensure_future(changed.wait())
            await asyncio.wait({change, *watched}, timeout=ASK_S, return_when=asyncio.FIRST_COMPLETED)
            change.cancel()
            changed.clear()
            if monitor.closed.is_set():
                raise MonitorClosed
            check_aborted(job)
    finally:
        for task in watched:
            task.cancel()


async def stop_transfer(monitor: Monitor) -> None:
    """End a transfer that an earlier daemon began, if one still runs. Raises VirtError."""
    if (await _ask(monitor)).get("status", "none") not in ("none", *OVER):
        async with _changes(monitor) as changed:
            await _cancel(monitor, changed, lambda: None)


async def _settle(monitor: Monitor) -> None:
    """Wait until QEMU, whose migration is over, takes commands that let the guest run again."""
    for _ in range(SETTLE_TIMES):
        if (await monitor.execute("query-status")).get("status") != "finish-migrate":
            return
        await asyncio.sleep(0.01)


async def _ask(monitor: Monitor) -> dict[str, Any]:
    return dict(await monitor.execute("query-migrate") or {})


async def _cancel(monitor: Monitor, changed: asyncio.Event, unblock: Callable[[], object]) -> None:
    """End a migration that runs: on return QEMU writes no more, or is gone."""
    try:
        async with asyncio.timeout(ABORT_S):
            asking = asyncio.ensure_future(monitor.execute("migrate_cancel"))
            # Whoever reads the pipe ends too: a write that hangs would hold QEMU up for ever.
            unblock()
            with contextlib.suppress(VirtError):
                await asking
            while (await _ask(monitor)).get("status") not in OVER:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), 0.1)
                changed.clear()
            await _settle(monitor)
    except VirtError:
        return
    except TimeoutError:
        log.error("QEMU does not end a migration that was cancelled")


# --- figures ----------------------------------------------------------------------------------------------------


async def _refresh(monitor: Monitor, job: HeldLong) -> None:
    try:
        _note(job, dict(await monitor.execute("query-migrate", timeout=STATS_S) or {}))
    except VirtError as exc:
        log.debug("no figures: %s", exc)


# QEMU's names of figures in MigrationInfo's `ram`, and libvirt's.
_RAM = (
    ("duplicate", "memory_constant"),
    ("normal", "memory_normal"),
    ("normal-bytes", "memory_normal_bytes"),
    ("dirty-pages-rate", "memory_dirty_rate"),
    ("dirty-sync-count", "memory_iteration"),
    ("postcopy-requests", "memory_postcopy_requests"),
    ("page-size", "memory_page_size"),
)


def _note(job: HeldLong, answer: dict[str, Any]) -> None:
    """Put QEMU's figures into the job's. Memory is what the job moves even when QEMU has not begun to."""
    ram = answer.get("ram")
    if job.stats is None or ram is None:
        return
    details = [("memory_bps", int(float(ram.get("mbps", 0)) * 1_000_000 / 8))]
    details += [(ours, int(ram.get(theirs, 0))) for theirs, ours in _RAM]
    over = answer.get("status") == "completed"
    job.stats = replace(
        job.stats,
        memory=Amount(int(ram["total"]), int(ram["transferred"]), int(ram["remaining"])),
        details=tuple(details),
        setup_ms=_whole(answer.get("setup-time")),
        downtime_ms=_whole(answer.get("downtime" if over else "expected-downtime")),
    )
    if over:
        job.stats = job.stats.ended(DomainJobType.COMPLETED)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
