"""Programs beside QEMU that devices need: each started before it, ended with it, found again by a later daemon.

    helpers = Helpers(run)
    helpers.open(context, ours)      # what the command line needs of them
    await helpers.start()            # raises with the last words of the one that failed
    helpers.watch(tasks, again)      # one that ends before its guest is reported
    await helpers.stop()

A helper is one class in a module of its own. Which ones a guest needs follows from its live definition alone, so
that a later daemon knows what to look for: their pid files are where libvirtd has them.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

from pyvirtd.core.driver import Tasks
from pyvirtd.drivers.qemu.command.context import Context
from pyvirtd.drivers.qemu.helpers.base import Helper, Run, kill_by_file
from pyvirtd.drivers.qemu.helpers.dbus import DbusDaemon
from pyvirtd.drivers.qemu.helpers.gpu import VhostUserGpu, drawn_apart
from pyvirtd.drivers.qemu.helpers.nbdkit import Nbdkit, served
from pyvirtd.drivers.qemu.helpers.passt import Passt, uses_passt
from pyvirtd.drivers.qemu.helpers.reservations import ReservationHelper, wants_reservations
from pyvirtd.drivers.qemu.helpers.tpm import Swtpm
from pyvirtd.drivers.qemu.helpers.virtiofs import Virtiofsd
from pyvirtd.errors import VirtError
from pyvirtd.model.chardev import TpmEmulator
from pyvirtd.model.devices import FilesystemDriverType
from pyvirtd.model.graphics import DbusGraphics
from pyvirtd.paths import QemuPaths

log = logging.getLogger(__name__)

LIVED_S = 5.0  # one that dies sooner is not started again at once
PAUSE_S, PAUSE_MAX_S = 1.0, 60.0  # between starts that fail

# The names by which helpers are known in a list of processes.
PROGRAMS = frozenset(
    kind.program for kind in (Swtpm, Virtiofsd, Passt, ReservationHelper, DbusDaemon, VhostUserGpu, Nbdkit)
)


def helpers_of(run: Run) -> Iterator[Helper]:
    """The helpers of a guest, in the order in which they are started."""
    devices = run.live.devices
    for tpm in devices.tpm:
        if isinstance(tpm.backend, TpmEmulator):
            yield Swtpm(run, tpm.backend)
    for filesystem in devices.filesystem:
        driver, source = filesystem.driver, filesystem.source
        if driver is not None and driver.type is FilesystemDriverType.VIRTIOFS and not (source and source.socket):
            yield Virtiofsd(run, filesystem)
    for net in devices.interface:
        if uses_passt(net):
            yield Passt(run, net)
    for video in drawn_apart(run.live):
        yield VhostUserGpu(run, video)
    for image in served(run.live):
        yield Nbdkit(run, image)
    if wants_reservations(run.live):
        yield ReservationHelper(run)
    own = str(run.paths.dbus_file(run.number, run.name, "sock"))
    if any(isinstance(one, DbusGraphics) and own in (one.address or "") for one in devices.graphics):
        yield DbusDaemon(run)


class Helpers:
    """All helpers of one run of a guest."""

    def __init__(self, run: Run | None = None) -> None:
        self._name = run.name if run is not None else ""
        self._helpers = list(helpers_of(run)) if run is not None else []
        self._watches: list[asyncio.Task[None]] = []

    def open(self, context: Context, ours: ExitStack) -> None:
        """Make what the command line needs of them; `ours` closes it."""
        for helper in self._helpers:
            helper.open(context, ours)

    async def start(self) -> None:
        """Start all. Raises VirtError; who called ends those that did start."""
        for helper in self._helpers:
            await helper.start()

    def has(self, kind: type[Helper]) -> bool:
        """There is a helper of that kind."""
        return any(isinstance(helper, kind) for helper in self._helpers)

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [one.process.pid for one in self._helpers if one.process is not None and one.process.running]

    async def find(self) -> None:
        """Take up those that an earlier daemon left running."""
        for helper in self._helpers:
            if not await helper.find():
                log.warning("domain %s: its %s is not running any more", self._name, helper.title)

    async def obituary(self) -> VirtError | None:
        """The error of the first that failed; None where all are well, or ended as they should."""
        for helper in self._helpers:
            if helper.process is not None and not helper.process.running and await helper.process.wait():
                return await helper.obituary()
        return None

    def watch(self, tasks: Tasks, again: Callable[[], Awaitable[None]]) -> None:
        """Report a helper that ends although its guest has not; `again`: told when one of them was started again."""
        for helper in self._helpers:
            if helper.process is not None or helper.restarts:
                self._watches.append(tasks.start(self._watch(helper, again), f"{helper.title} of {self._name}"))

    async def _watch(self, helper: Helper, again: Callable[[], Awaitable[None]]) -> None:
        """Follow a helper until `stop`; one that restarts is started again, after a longer pause each time it fails."""
        loop = asyncio.get_running_loop()
        pause_s = 0.0
        while True:
            if helper.process is not None:
                since = loop.time()
                code = await helper.process.wait()
                # QEMU itself ends some by closing their socket, a moment before it is seen to be gone.
                log.info("domain %s: %s ended with %s", self._name, helper.title, code)
                if loop.time() - since >= LIVED_S:
                    pause_s = 0.0
            if not helper.restarts:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(max(2 * pause_s, PAUSE_S), PAUSE_MAX_S)
            await helper.end()
            try:
                await helper.start()
            except VirtError as exc:
                log.error("domain %s: %s is not started again: %s", self._name, helper.title, exc)
                await helper.end()
                continue
            try:
                await again()
            except VirtError as exc:
                log.error("domain %s: %s is not with its guest: %s", self._name, helper.title, exc)

    async def stop(self) -> None:
        """End all, the last first, and remove their files."""
        for watch in self._watches:
            watch.cancel()
        if self._watches:  # what one of them is starting is ended below
            await asyncio.wait(self._watches)
        for helper in reversed(self._helpers):
            await helper.stop()


def end_orphans(paths: QemuPaths, short: str) -> None:
    """End the helpers of a start that was cut off before anybody noted its guest. `short`: as their files begin."""
    for directory in (paths.run, paths.swtpm_run, paths.dbus, paths.passt, paths.slirp):
        for pid_file in directory.glob(f"{short}-*.pid"):
            kill_by_file(pid_file, PROGRAMS)


__all__ = ["DbusDaemon", "Helper", "Helpers", "ReservationHelper", "Run", "end_orphans", "helpers_of"]
