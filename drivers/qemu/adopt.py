"""Finding guests again after the daemon was away, by their status files.

A guest that ended meanwhile is noticed and reported; none is killed but one whose start was cut short.
"""

import asyncio
import contextlib
import logging
import os
import select
import shutil
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.constants.domain import (
    DomainEventStoppedDetailType,
    DomainEventType,
    DomainPausedReason,
    DomainRunningReason,
    DomainShutdownReason,
    DomainShutoffReason,
    DomainState,
)
from pyvirtd.core.hooks import DomainOp
from pyvirtd.core.jobs import LongJob
from pyvirtd.core.security import domain_identity
from pyvirtd.drivers.qemu import cgroups, events, placement, process, shares, start_notes
from pyvirtd.drivers.qemu.domain import SHUT_DOWN, Guest, Phase, QemuDomain
from pyvirtd.drivers.qemu.helpers import Helpers, end_orphans
from pyvirtd.drivers.qemu.monitor import Monitor
from pyvirtd.drivers.qemu.runtime import refresh, reserve_interfaces
from pyvirtd.drivers.qemu.saving.recover import recover
from pyvirtd.drivers.qemu.status_file import state_of
from pyvirtd.errors import VirtError
from pyvirtd.model.status import DomStatus, read_status
from pyvirtd.paths import FUNCTIONS_NOTE, PCI_NOTE, SHORT_NAME_MAX, START_NOTE, QemuPaths, short_name
from pyvirtd.util.files import in_thread, read_text, sweep_temporaries
from pyvirtd.util.process import Process

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

ADOPT_S = 20.0  # for a guest's monitor to answer a daemon that comes back, before it is tried again
RETRY_S = 5.0
KILL_MS = 5000
PATIENCE_S = 3.0


async def adopt_all(driver: "QemuDriver") -> None:
    """Take up every guest with a status file, all at once; a broken file is reported and left alone.

    A guest that does not answer holds up the daemon's start for PATIENCE_S, and is waited for in the background.
    """
    paths = driver.host.paths.qemu
    found = await in_thread(_read_all, paths.run)
    for status in found.values():
        if status is not None:
            driver.pci.adopt(status.domain)
    unborn = await in_thread(_end_unborn, paths)
    for short in await in_thread(_over, paths.run, found):
        await driver.functions.take_back_left(short)
        await driver.pci.take_back_left(short)
    for short in unborn:
        await shares.remove_left(short)
        await start_notes.undo_left(paths, short)
    await in_thread(_forget_unborn, paths, unborn)
    tasks = [
        driver.host.tasks.start(_adopt_one(driver, name, status), f"adoption of {name}")
        for name, status in found.items()
        if status is not None
    ]
    if tasks:
        await asyncio.wait(tasks, timeout=PATIENCE_S)


def _read_all(directory: Path) -> dict[str, DomStatus | None]:
    """What the status files say, by the guests' names; None for one that cannot be read."""
    sweep_temporaries(directory)
    found: dict[str, DomStatus | None] = {}
    for path in sorted(directory.glob("*.xml")):
        found[path.stem] = None
        try:
            found[path.stem] = read_status(read_text(path, 16 << 20))
        except (OSError, VirtError) as exc:
            log.error("%s is left alone: %s", path, exc)
        except Exception:  # one guest must not keep the others from being found
            log.exception("%s is left alone", path)
    return found


def _over(directory: Path, found: Mapping[str, DomStatus | None]) -> list[str]:
    """The runs that have notes of devices and are over: no status file is theirs, or could be."""
    run = {short_name(one.domain.id or 0, name) for name, one in found.items() if one is not None}
    unknown = {name[:SHORT_NAME_MAX] for name, one in found.items() if one is None}
    noted = {path.stem for suffix in (PCI_NOTE, FUNCTIONS_NOTE) for path in directory.glob(f"*{suffix}")}
    return sorted(short for short in noted - run if short.partition("-")[2] not in unknown)


def _end_unborn(paths: QemuPaths) -> list[str]:
    """End what a start left that was cut off before there was a status file: its vcpus never ran. The runs' names.

    Its runtime directory is there and no status file of that name; its QEMU has the key's path on the command line.
    """
    known = {path.stem[:SHORT_NAME_MAX] for path in paths.run.glob("*.xml")}
    stale = [path for path in paths.lib.glob("domain-*-*") if path.name.split("-", 2)[2] not in known]
    if not stale:
        return []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
            if any(f"{path}/master-key.aes" in words for path in stale):
                log.warning("process %s is of a start that was cut short, and is ended", entry.name)
                _kill(int(entry.name))
    for path in stale:
        end_orphans(paths, path.name.removeprefix("domain-"))
    return [path.name.removeprefix("domain-") for path in stale]


def _forget_unborn(paths: QemuPaths, unborn: list[str]) -> None:
    """Remove what such starts are known by, when nothing else is left of them; other notes of starts say no more."""
    for short in unborn:
        shutil.rmtree(paths.lib / f"domain-{short}", ignore_errors=True)
    for note in paths.run.glob(f"*{START_NOTE}"):
        note.unlink(missing_ok=True)


def _kill(pid: int) -> None:
    """End a process, and wait a while until it has let its devices go. Raises OSError."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        gone = select.poll()
        gone.register(pidfd, select.POLLIN)
        gone.poll(KILL_MS)
    finally:
        os.close(pidfd)


async def _adopt_one(driver: "QemuDriver", name: str, status: DomStatus) -> None:
    try:
        await _adopt(driver, name, status)
    except VirtError as exc:
        log.error("the status of domain '%s' is left alone: %s", name, exc)
    except Exception:  # one guest must not keep the others from being found
        log.exception("domain %s is not taken up", name)


async def _adopt(driver: "QemuDriver", name: str, status: DomStatus) -> None:
    dom = driver.domains.get_name(name)
    if dom is None:
        dom = driver.new_domain(status.domain.copy(), persistent=False)
        dom.config.id = None
        driver.domains.add(dom)
    try:
        running = _process_of(status)
    except OSError:
        await _ended_meanwhile(driver, dom, status)
        return
    if status.job is not None and status.job.async_ == LongJob.START.value and status.restored is None:
        log.warning("domain %s: its start was cut short, process %d is ended", dom.name, running.pid)
        running.send_signal(signal.SIGKILL)
        await running.wait()
        await _ended_meanwhile(driver, dom, status)
        return
    await _take_up(driver, dom, status, running)


def _process_of(status: DomStatus) -> Process:
    """The guest's process. Raises OSError when it is gone, or when its number is another program's now."""
    running = Process.adopt(status.pid)
    try:
        words = Path(f"/proc/{status.pid}/cmdline").read_bytes().split(b"\0")
        if (status.domain.uuid or "").encode() not in words:
            raise ProcessLookupError(f"process {status.pid} is no longer the guest's")
    except BaseException:
        running.close()
        raise
    return running


async def _ended_meanwhile(driver: "QemuDriver", dom: QemuDomain, status: DomStatus) -> None:
    """Nobody watched when the guest ended: say so now."""
    log.warning("domain %s (id %s) ended while the daemon was away", dom.name, status.domain.id)
    dom.live = None
    driver.domains.set_id(dom, -1)
    reason = (
        DomainShutoffReason.SHUTDOWN if state_of(status)[0] is DomainState.SHUTDOWN else DomainShutoffReason.CRASHED
    )
    dom.set_state(DomainState.SHUTOFF, reason)
    helpers = await _helpers_of(driver, status)
    await process.clean_up(driver, dom, status.domain, driver.labels(status.domain), helpers, None, status.restored)
    driver.emit_lifecycle(dom, DomainEventType.STOPPED, DomainEventStoppedDetailType.FAILED)
    driver.forget_if_transient(dom)


async def _helpers_of(driver: "QemuDriver", status: DomStatus) -> Helpers:
    """The helpers of a run that an earlier daemon began, as far as they still run."""
    live = status.domain
    identity = await domain_identity(live, driver.credentials)
    helpers = Helpers(driver.helper_run(live, live.id if live.id is not None else -1, identity))
    await helpers.find()
    return helpers


async def _take_up(driver: "QemuDriver", dom: QemuDomain, status: DomStatus, running: Process) -> None:
    caps = await driver.capabilities.get(status.domain.devices.emulator or "")
    monitor_path = Path(status.monitor.path)
    helpers = await _helpers_of(driver, status)
    guest = Guest(running, Monitor(dom.name), caps, monitor_path, monitor_path.parent, helpers=helpers)
    guest.taints = [taint.flag for taint in status.taint]
    guest.fake_reboot = status.fakereboot
    guest.own_cpu = status.cpu
    guest.fdsets = status.fdset or 0
    guest.restored = status.restored
    if status.job is not None and status.job.async_ != "none":
        log.warning("domain %s: its job '%s' ended with the daemon that ran it", dom.name, status.job.async_)
        guest.unfinished = status.job
    guest.phase = Phase.UP
    dom.live, dom.guest = status.domain, guest
    dom.agent_timeout = status.agent_timeout if status.agent_timeout is not None else -2
    driver.domains.set_id(dom, status.domain.id if status.domain.id is not None else driver.domains.next_id())
    dom.live.id = dom.id
    dom.set_state(*state_of(status))
    await placement.place_again(dom.live, status.numad)
    driver.ports.adopt(dom.live)
    driver.pci.adopt(dom.live)
    reserve_interfaces(dom.live)
    guest.labels = driver.labels(dom.live)
    guest.group = await cgroups.find(driver, dom.live, running.pid)
    helpers.watch(driver.host.tasks, partial(cgroups.gather_helpers, guest))
    process.watch(driver, dom, guest)
    while True:
        monitor = guest.monitor
        try:
            await monitor.connect(Path(status.monitor.path), ADOPT_S)
            break
        except VirtError as exc:
            log.error("domain %s runs as process %d but its monitor does not answer: %s", dom.name, running.pid, exc)
        await monitor.close()
        guest.monitor = Monitor(dom.name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(guest.over.wait(), RETRY_S)
        if guest.phase >= Phase.FINISHING:
            return
    monitor.start(lambda message: events.handle(driver, dom, message))
    for step in (_reconcile, recover):
        try:
            await step(driver, dom)
        except VirtError as exc:
            if guest.phase >= Phase.FINISHING:
                return
            log.error("domain %s is not recovered: %s", dom.name, exc)
    with contextlib.suppress(VirtError):
        await driver.hook(dom, DomainOp.RECONNECT, status.domain)


async def _reconcile(driver: "QemuDriver", dom: QemuDomain) -> None:
    """What changed while nobody listened: QEMU's own state counts. Raises VirtError."""
    answer = await dom.monitor.execute("query-status")
    word, runs = str(answer.get("status")), bool(answer.get("running"))
    await refresh(driver, dom)
    if runs and dom.state is not DomainState.RUNNING:
        dom.set_state(DomainState.RUNNING, DomainRunningReason.UNPAUSED)
    elif word == "shutdown" and dom.running.fake_reboot:
        dom.running.rebooting = True
        driver.host.tasks.start(driver.finish_reboot(dom), f"reboot of {dom.name}")
    elif word == "shutdown":
        dom.set_state(DomainState.SHUTDOWN, DomainShutdownReason.UNKNOWN)
        driver.end(dom, SHUT_DOWN)
    elif not runs and dom.state is DomainState.RUNNING:
        dom.set_state(DomainState.PAUSED, _PAUSED.get(word, DomainPausedReason.UNKNOWN))
    await driver.save_status(dom)


_PAUSED = {
    "io-error": DomainPausedReason.IOERROR,
    "watchdog": DomainPausedReason.WATCHDOG,
    "guest-panicked": DomainPausedReason.CRASHED,
}
