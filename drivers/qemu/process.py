"""Starting, watching and ending one guest's QEMU.

`start` gathers everything on an undo stack and keeps it only when QEMU runs; `finish` is the one way a run ends,
whoever ended it. What the host gave, `clean_up` takes back: each step on the undo stack has its line there.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pyvirtd.api.types import Caller
from pyvirtd.constants.domain import (
    DomainCreateFlags,
    DomainEventResumedDetailType,
    DomainEventStartedDetailType,
    DomainEventStoppedDetailType,
    DomainEventSuspendedDetailType,
    DomainEventType,
    DomainPausedReason,
    DomainRunningReason,
    DomainShutoffReason,
    DomainState,
)
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core import audit_records
from pyvirtd.core.cgroup import Group
from pyvirtd.core.hooks import DomainOp
from pyvirtd.core.security import Label, apply_labels, confine, domain_identity, restore_labels
from pyvirtd.drivers.qemu import cgroups, cpu_live, events, firmware_files, placement, shares, transient
from pyvirtd.drivers.qemu.capabilities import QemuCapabilities
from pyvirtd.drivers.qemu.chains import detect_chains
from pyvirtd.drivers.qemu.chardev_files import open_chardevs
from pyvirtd.drivers.qemu.command import build
from pyvirtd.drivers.qemu.command.block import number_nodes
from pyvirtd.drivers.qemu.command.context import Command, Context
from pyvirtd.drivers.qemu.command.host_facts import HostFacts
from pyvirtd.drivers.qemu.descriptors import Groups, borrow
from pyvirtd.drivers.qemu.disks import check_presence
from pyvirtd.drivers.qemu.domain import DESTROYED, Ending, Guest, Phase, QemuDomain
from pyvirtd.drivers.qemu.helpers import Helpers
from pyvirtd.drivers.qemu.host_devices import find_host_devices, wants_host_devices
from pyvirtd.drivers.qemu.incoming import Incoming
from pyvirtd.drivers.qemu.leftovers import remove_tpm
from pyvirtd.drivers.qemu.limits import check_start
from pyvirtd.drivers.qemu.monitor import Monitor
from pyvirtd.drivers.qemu.pause import let_run
from pyvirtd.drivers.qemu.postparse import assign_aliases
from pyvirtd.drivers.qemu.prepare import fill_in
from pyvirtd.drivers.qemu.run_files import (
    log_end,
    log_header,
    make_memory_directories,
    open_log,
    remove_memory_directories,
    tail,
    write_key,
    write_pid,
)
from pyvirtd.drivers.qemu.runtime import close_interfaces, open_interfaces, refresh, set_up
from pyvirtd.drivers.qemu.saving import managed
from pyvirtd.drivers.qemu.sockets import listen_socket
from pyvirtd.drivers.qemu.start_notes import StartNote
from pyvirtd.drivers.qemu.status_file import remove_status
from pyvirtd.errors import InternalError, OperationFailed, OperationInvalid, VirtError, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.model.status import StatusRestored
from pyvirtd.paths import short_name
from pyvirtd.util.files import Owner, in_thread, make_directory
from pyvirtd.util.process import Identity, Launch, Process, spawn

if TYPE_CHECKING:
    from pyvirtd.drivers.qemu.driver import QemuDriver

log = logging.getLogger(__name__)

START_S = 60.0  # for QEMU to answer on its monitor
START_S_BY_GIB = 4.0  # and for the memory that it may have to allocate first
ENDING_S = 0.5
TERM_S = 10.0  # after SIGTERM, as libvirt waits before SIGKILL
KILL_S = 15.0


class Starting:
    """One start of a domain on its way; what it made is undone unless it succeeds."""

    def __init__(
        self,
        driver: "QemuDriver",
        dom: QemuDomain,
        undo: AsyncExitStack,
        definition: DomainDef | None = None,
        incoming: Incoming | None = None,
    ) -> None:
        self.driver = driver
        self.dom = dom
        self.undo = undo
        self.incoming = incoming
        self.paths = driver.host.paths.qemu
        self.live: DomainDef = (definition or dom.config).copy()
        self.number = driver.domains.next_id()
        self.live.id = self.number
        self.directory = self.paths.domain_dir(self.number, dom.name)

    async def run(self, flags: int) -> Guest:
        """Start QEMU, its vcpus stopped. Raises VirtError."""
        with ExitStack() as ours:
            return await self._run(flags, await borrow(self.dom, self.live, ours))

    async def _run(self, flags: int, lent: Groups) -> Guest:
        driver, live = self.driver, self.live
        caps = await driver.capabilities.get(live.devices.emulator or "")
        check_start(live)
        cgroups.check_groups(live, driver.cgroups, privileged=driver.host.privileged)
        confine(live, driver.credentials, driver.config)
        driver.host.audit.send(audit_records.machine_ids(live))
        self.identity = await domain_identity(live, driver.credentials)
        self.undo.push_async_callback(driver.ending_hooks, self.dom, live)
        await self._hook(DomainOp.PREPARE)
        await self._directories()
        assign_aliases(live)
        cpu_live.settle(live, caps)
        await placement.place(live)
        reader = self.identity if driver.host.privileged else Identity(os.geteuid(), os.getegid())
        await check_presence(driver, self.dom, live, reader)
        await in_thread(detect_chains, live, reader, lent)
        note = self.note = StartNote(self.paths, short_name(self.number, live.name))
        self.undo.push_async_callback(note.end)
        await note.begin(live)
        await transient.lay_over(live, self._owner, self.undo)
        fill_in(live, driver.config, self.paths, self.number)
        driver.ports.assign(live)
        self.undo.callback(driver.ports.release, live)
        context = Context.for_start(caps, driver.host.paths, driver.config, driver.host.privileged, self.number, live)
        context.host = await in_thread(HostFacts.look_up, live, driver.config)
        context.incoming, context.lent = self.incoming is not None, lent
        context.sysinfo = await driver.shown_sysinfo(live)
        context.reset_nvram = bool(flags & DomainCreateFlags.RESET_NVRAM)
        with self._monitor_listener() as listener, ExitStack() as ours:
            context.monitor_fd = listener.fileno()
            self.undo.push_async_callback(driver.pci.take_back, live)
            await driver.pci.give(live)
            self.undo.push_async_callback(driver.functions.take_back, live)
            await driver.functions.give(live)
            self.undo.push_async_callback(shares.remove, live)
            await shares.make(live)
            if wants_host_devices(live):
                await in_thread(find_host_devices, live, ours, context)
            await open_interfaces(self.undo, ours, driver, live, context)
            await open_chardevs(live, ours, context, self._owner)
            number_nodes(live)  # helpers that serve images are named by them
            helpers = self.helpers = Helpers(driver.helper_run(live, self.number, self.identity))
            helpers.open(context, ours)
            command = build(live, context)
            await self._files(command)
            if not self.dom.persistent:
                self.undo.push_async_callback(remove_tpm, driver, live)
            self.undo.push_async_callback(helpers.stop)
            await helpers.start()
            labels = driver.labels(live)
            await apply_labels(labels, note.given)
            self.undo.push_async_callback(restore_labels, labels)
            self.undo.push_async_callback(note.forget_files)
            await self._hook(DomainOp.START)
            process = await self._spawn(command, caps, [listener.fileno(), *context.fds])
        group: Group | None = None

        async def end() -> None:
            await _kill(process)
            await helpers.stop()
            await _remove_group(driver, live, group)

        self.undo.push_async_callback(end)
        group = await cgroups.place(driver, live, self.number, process.pid)
        await cgroups.gather(group, helpers.pids)
        guest = Guest(process, Monitor(self.dom.name), caps, self._monitor_path, self.directory, helpers=helpers)
        guest.group = group
        guest.labels = labels
        guest.fdsets = command.fdsets
        return guest

    # --- files and descriptors -------------------------------------------------------------------------------

    async def _directories(self) -> None:
        for path in (self.directory, self.paths.channel_dir(self.number, self.dom.name)):
            await in_thread(make_directory, path, 0o750, owner=self._owner)
            self.undo.push_async_callback(in_thread, shutil.rmtree, path, ignore_errors=True)
        key = self.paths.master_key(self.number, self.dom.name)
        await in_thread(write_key, key, self._owner)

    async def _files(self, command: Command) -> None:
        """What the command line refers to and nobody else makes. New firmware variables outlive a failed start."""
        self.undo.push_async_callback(
            in_thread, remove_memory_directories, self.driver.config, self.paths, self.number, self.dom.name
        )
        await in_thread(make_memory_directories, command.memory_dirs, self._owner)
        for file in command.files:
            await firmware_files.make(file, self._owner)

    @property
    def _owner(self) -> Owner | None:
        """Whose the guest's own files are; a session daemon's are its user's as they are made."""
        return Owner(self.identity.uid, self.identity.gid) if self.driver.host.privileged else None

    @property
    def _monitor_path(self) -> Path:
        return self.paths.monitor_socket(self.number, self.dom.name)

    def _monitor_listener(self) -> socket.socket:
        """The monitor's socket, made before QEMU so that connecting needs no waiting for it."""
        return listen_socket(self._monitor_path, self._owner)

    async def _spawn(self, command: Command, caps: QemuCapabilities, fds: list[int]) -> Process:
        driver = self.driver
        path = self.paths.log_file(self.dom.name)
        try:
            fd = await in_thread(open_log, path)
        except OSError as exc:
            raise from_os_error(exc, f"cannot open '{path}'") from exc
        try:
            os.write(fd, log_header(command, caps).encode())
            self.log_start = os.fstat(fd).st_size
            launch = Launch(
                env=command.environment,
                pass_fds=fds,
                identity=self.identity if driver.host.privileged else None,
                drop_capabilities=driver.host.privileged,
                limits=driver.limits(self.live),
                umask=0o002,
                cwd="/",
                stdout=fd,
                stderr=fd,
            )
            return spawn(command.argv, launch)
        except OSError as exc:
            raise from_os_error(exc, f"Cannot execute {command.argv[0]}") from exc
        finally:
            os.close(fd)

    async def connect(self, guest: Guest) -> None:
        """Connect to the monitor, or report why QEMU ended instead."""
        patience_s = START_S + START_S_BY_GIB * (self.live.memory.kib or 0) / (1 << 20)
        connecting = asyncio.ensure_future(guest.monitor.connect(self._monitor_path, patience_s))
        ended = asyncio.ensure_future(guest.process.wait())
        try:
            await asyncio.wait({connecting, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                await connecting
                return
        except VirtError:
            # QEMU closes its monitor a moment before it is gone.
            await asyncio.wait({ended}, timeout=ENDING_S)
            if not ended.done():
                raise
        finally:
            for task in (connecting, ended):
                task.cancel()
            await asyncio.gather(connecting, ended, return_exceptions=True)
        raise await self.died()

    async def died(self, how: str = "process exited while connecting to monitor") -> VirtError:
        """The error of a QEMU that ended before it was up: its own last words, or those of a helper it needs."""
        if (error := await self.helpers.obituary()) is not None:
            return error
        return InternalError(f"{how}: {await self._last_words()}", domain=From.QEMU)

    async def _last_words(self) -> str:
        """What QEMU wrote to its log in this run."""
        return await in_thread(tail, self.paths.log_file(self.dom.name), self.log_start)

    # --- who is told -----------------------------------------------------------------------------------------

    def audit(self, pid: int, *, success: bool) -> None:
        """Leave the records of this start."""
        how = self.incoming.started if self.incoming is not None else DomainEventStartedDetailType.BOOTED
        socket_path = str(self.paths.swtpm_socket(self.number, self.dom.name))
        records = audit_records.started(
            self.live, audit_records.word(how), pid, success=success, tpm_socket=socket_path
        )
        self.driver.host.audit.send(records)

    async def _hook(self, operation: DomainOp) -> None:
        await self.driver.hook(self.dom, operation, self.live)


async def start(
    driver: "QemuDriver",
    dom: QemuDomain,
    flags: int,
    caller: Caller | None,
    definition: DomainDef | None = None,
    incoming: Incoming | None = None,
) -> None:
    """Start a domain, from its own definition or this one; `flags` are DomainCreateFlags. On an error nothing is left.

    The caller holds the start job.
    """
    async with AsyncExitStack() as undo:
        starting = Starting(driver, dom, undo, definition, incoming)
        undo.callback(starting.audit, 0, success=False)
        guest = await starting.run(flags)
        dom.live, dom.guest = starting.live, guest
        driver.domains.set_id(dom, starting.number)
        dom.set_state(DomainState.PAUSED, DomainPausedReason.STARTING_UP)
        undo.push_async_callback(_abandon, driver, dom, guest)
        # From here on a daemon that dies leaves a note of the half-started guest for the next one.
        await driver.save_status(dom)
        await starting.note.end()
        await in_thread(write_pid, driver.host.paths.qemu.pid_file(dom.name), guest.process.pid)
        await starting.connect(guest)
        guest.monitor.start(lambda message: events.handle(driver, dom, message))
        try:
            await _bring_up(driver, dom, flags, incoming)
        except OperationInvalid as exc:
            if guest.monitor.closed.is_set():
                await asyncio.wait({asyncio.ensure_future(guest.process.wait())}, timeout=ENDING_S)
            if guest.process.running:
                raise
            raise await starting.died("qemu unexpectedly closed the monitor") from exc
        undo.pop_all()
        starting.audit(guest.process.pid, success=True)
    if incoming is None:
        driver.emit_lifecycle(dom, DomainEventType.STARTED, DomainEventStartedDetailType.BOOTED)
        if flags & DomainCreateFlags.PAUSED:
            driver.emit_lifecycle(dom, DomainEventType.SUSPENDED, DomainEventSuspendedDetailType.PAUSED)
    if flags & DomainCreateFlags.AUTODESTROY and caller is not None:
        guest.autodestroy = caller.on_close(lambda: driver.end(dom, DESTROYED))
    guest.helpers.watch(driver.host.tasks, partial(cgroups.gather_helpers, guest))
    watch(driver, dom, guest)


async def _bring_up(driver: "QemuDriver", dom: QemuDomain, flags: int, incoming: Incoming | None) -> None:
    """Learn from QEMU what it chose, tell it what is left to tell, and let the guest run."""
    guest, live = dom.running, dom.live_def
    await asyncio.gather(refresh(driver, dom), cpu_live.note(dom))
    events.agent_expected(driver, dom)
    await set_up(driver, dom)
    if incoming is not None:
        await _take_in(driver, dom, flags, incoming)
        return
    await driver.hook(dom, DomainOp.STARTED, live)
    if flags & DomainCreateFlags.PAUSED:
        dom.set_state(DomainState.PAUSED, DomainPausedReason.USER)
    else:
        await let_run(driver, dom, (DomainRunningReason.BOOTED, DomainEventResumedDetailType.UNPAUSED))
    guest.phase = Phase.UP
    await driver.save_status(dom)


async def _take_in(driver: "QemuDriver", dom: QemuDomain, flags: int, incoming: Incoming) -> None:
    """Go on where the guest stopped."""
    guest = dom.running
    guest.own_cpu = incoming.own_cpu or guest.own_cpu
    await incoming.load(dom)
    await refresh(driver, dom)
    await driver.hook(dom, DomainOp.STARTED, dom.live_def)
    # From the next step on the guest may write to its disks: what it came from is used up, and it may not be ended
    # for a start that was cut short.
    runs = not flags & DomainCreateFlags.PAUSED
    if incoming.image is not None:
        guest.restored = StatusRestored(image=incoming.image, resume=runs)
    reason, detail = incoming.paused
    dom.set_state(DomainState.PAUSED, reason)
    await driver.save_status(dom)
    driver.emit_lifecycle(dom, DomainEventType.STARTED, incoming.started)
    if not runs:
        driver.emit_lifecycle(dom, DomainEventType.SUSPENDED, detail)
    else:
        try:
            await let_run(driver, dom, incoming.running)
        except VirtError:
            driver.emit_lifecycle(dom, DomainEventType.STOPPED, DomainEventStoppedDetailType.FAILED)
            raise
    guest.phase = Phase.UP
    if not incoming.used_up:
        guest.restored = None
    await driver.save_status(dom)


async def _abandon(driver: "QemuDriver", dom: QemuDomain, guest: Guest) -> None:
    """A start failed after the domain was given its guest."""
    guest.phase = Phase.FINISHED
    try:
        await remove_status(driver, dom)
        await guest.monitor.close()
    finally:
        _off(driver, dom, guest, DomainShutoffReason.FAILED)


def _off(driver: "QemuDriver", dom: QemuDomain, guest: Guest, reason: DomainShutoffReason) -> None:
    """The domain runs no more; who waits for that is told."""
    driver.domains.set_id(dom, -1)
    dom.live = dom.guest = None
    dom.set_state(DomainState.SHUTOFF, reason)
    dom.jobs.fail_waiters(OperationInvalid("domain is not running", domain=From.QEMU))
    guest.over.set()


def watch(driver: "QemuDriver", dom: QemuDomain, guest: Guest) -> None:
    """Follow a run to its end; the daemon does not end for idleness meanwhile."""
    driver.host.inhibit.add(guest)
    driver.host.tasks.start(_watch(driver, dom, guest), f"guest {dom.name}")


async def _watch(driver: "QemuDriver", dom: QemuDomain, guest: Guest) -> None:
    await guest.process.wait()
    await asyncio.shield(asyncio.ensure_future(finish(driver, dom, guest)))


async def end(dom: QemuDomain, guest: Guest, ending: Ending, *, graceful: bool = False) -> None:
    """Make QEMU end: SIGTERM, which lets it flush, then SIGKILL. Returns when the process is gone.

    The first reason stays, but for whoever destroys a guest that does not come to its end.
    """
    if guest.ending is None or ending is DESTROYED:
        guest.ending = ending
    for number, seconds in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
        if number is signal.SIGKILL and graceful:
            break
        guest.process.send_signal(number)
        try:
            async with asyncio.timeout(seconds):
                await guest.process.wait()
                return
        except TimeoutError:
            log.warning("%s: QEMU does not end by %s", dom.name, number.name)
    guest.ending = None
    word = "SIGTERM" if graceful else "SIGKILL"
    raise OperationFailed(f"Failed to terminate process {guest.process.pid} with {word}: Device or resource busy")


async def finish(driver: "QemuDriver", dom: QemuDomain, guest: Guest) -> None:
    """QEMU is gone: tidy up and tell. Runs once for each run of a domain; one that is not up yet is its start's."""
    if guest.phase is not Phase.UP:
        await guest.over.wait()
        return
    guest.phase = Phase.FINISHING
    if guest.autodestroy is not None:
        guest.autodestroy()
    await guest.monitor.drain()
    guest.phase = Phase.FINISHED
    ending = guest.ending or Ending(DomainShutoffReason.CRASHED, DomainEventStoppedDetailType.FAILED)
    try:
        await _step(dom.name, guest.monitor.close)
        await clean_up(driver, dom, dom.live_def, guest.labels, guest.helpers, guest.group, guest.restored)
        log_path = driver.host.paths.qemu.log_file(dom.name)
        await _step(dom.name, in_thread, log_end, log_path, ending.reason.name.lower())
    finally:
        driver.host.audit.send([audit_records.stopped(dom.live_def, _audit_word(ending))])
        _off(driver, dom, guest, ending.reason)
    driver.emit_lifecycle(dom, DomainEventType.STOPPED, ending.detail)
    driver.forget_if_transient(dom)
    driver.host.inhibit.discard(guest)


def _audit_word(ending: Ending) -> str:
    """Why a run ended, to the audit trail: a QEMU that nobody ended failed; it is a guest that crashes."""
    failed = ending.detail is DomainEventStoppedDetailType.FAILED
    return audit_records.word(DomainShutoffReason.FAILED if failed else ending.reason)


async def clean_up(
    driver: "QemuDriver",
    dom: QemuDomain,
    live: DomainDef,
    labels: list[Label],
    helpers: Helpers,
    group: Group | None,
    restored: StatusRestored | None,
) -> None:
    """Take back from the host all that a run was given, and tell the hooks: at the end of each that was up.

    What fails is logged and keeps nothing else from being done.
    """
    paths = driver.host.paths.qemu
    number = live.id if live.id is not None else dom.id
    async with AsyncExitStack() as steps:  # the one that is named last is done first

        def later(step: Callable[..., Awaitable[object]], *arguments: object, **options: object) -> None:
            steps.push_async_callback(_step, dom.name, step, *arguments, **options)

        later(remove_status, driver, dom)
        later(transient.remove_overlays, live)
        later(driver.ending_hooks, dom, live, restore_labels(labels))
        later(close_interfaces, live)
        steps.callback(driver.ports.release, live)
        later(in_thread, remove_memory_directories, driver.config, paths, number, dom.name)
        for path in (paths.channel_dir(number, dom.name), paths.domain_dir(number, dom.name)):
            later(in_thread, shutil.rmtree, path, ignore_errors=True)
        later(_remove_tpm, driver, dom, live)
        later(shares.remove, live)
        later(driver.pci.take_back, live)
        later(driver.functions.take_back, live)
        later(_remove_group, driver, live, group)
        later(helpers.stop)
        later(managed.remove_used, driver, dom, restored)


async def _step(name: str, step: Callable[..., Awaitable[object]], *arguments: object, **options: object) -> None:
    """One of the steps that follow a guest's end; where it fails that is logged."""
    try:
        await step(*arguments, **options)
    except (VirtError, OSError) as exc:
        log.error("%s ended, and not all that it was given could be taken back: %s", name, exc)


async def _remove_tpm(driver: "QemuDriver", dom: QemuDomain, live: DomainDef) -> None:
    if not dom.persistent:
        await remove_tpm(driver, live)


async def _remove_group(driver: "QemuDriver", live: DomainDef, group: Group | None) -> None:
    """The control group of a run, also of one whose nobody has noted."""
    await (cgroups.remove(group) if group is not None else cgroups.remove_left(driver, live))


async def _kill(process: Process) -> None:
    """End a QEMU whose start failed."""
    process.send_signal(signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), KILL_S)
