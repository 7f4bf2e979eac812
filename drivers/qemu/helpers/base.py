"""What all helper processes have in common: starting one and waiting until it serves, finding it again, ending it."""

import asyncio
import logging
import os
import shlex
import shutil
import signal
import stat
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pyvirtd.config.qemu import QemuConfig
from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.drivers.qemu.command.context import Context
from pyvirtd.drivers.qemu.run_files import open_log, stamp, tail
from pyvirtd.errors import InternalError, SystemError_, VirtError, from_os_error
from pyvirtd.model.domain import DomainDef
from pyvirtd.paths import QemuPaths
from pyvirtd.util.files import Owner, in_thread
from pyvirtd.util.process import Identity, Launch, Process, Result, run, spawn

log = logging.getLogger(__name__)

READY_S = 15.0  # for a helper to serve its socket
POLL_S = 0.004
TERM_S = 2.0
KILL_S = 5.0
SETUP_S = 60.0  # for a command that prepares a helper's files
PID_MAX = 32
# sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)
OF_SERVICE = ("NOTIFY_SOCKET", "LISTEN_", "WATCHDOG_", "JOURNAL_STREAM", "INVOCATION_ID")
ACCEPTS = 0x10000  # linux/net.h __SO_ACCEPTCON
SOCKETS, SOCKET_WORDS = Path("/proc/net/unix"), 7  # words before the path


@dataclass(slots=True)
class Run:
    """One run of a guest, as far as its helpers must know it. `identity`: whom QEMU runs as; None: as the daemon."""

    live: DomainDef
    number: int
    paths: QemuPaths
    config: QemuConfig
    identity: Identity | None

    @property
    def name(self) -> str:
        return self.live.name

    @property
    def owner(self) -> Owner | None:
        """Whose the files are that QEMU shall reach."""
        return Owner(self.identity.uid, self.identity.gid) if self.identity is not None else None

    @property
    def log_path(self) -> Path:
        return self.paths.log_file(self.name)


class Helper(ABC):
    """One helper of one run.

    `title` is what the log calls it; `program` the name of its executable, by which it is known again; `pid_file` and
    `leftovers` are removed when it has ended. One that `restarts` is started again whenever it dies before its guest.
    """

    title: str
    program: str
    restarts = False
    pid_file: Path
    process: Process | None = None
    _words: tuple[Path, int]  # the log of what it says, and where that begins

    def __init__(self, run: Run) -> None:
        self.run = run

    @abstractmethod
    async def start(self) -> None:
        """Start it and wait until it serves. Raises VirtError."""

    def open(self, context: Context, ours: ExitStack) -> None:  # noqa: B027 - most need nothing
        """Make what the command line needs of it, before there is one; `ours` closes it when QEMU has its own."""

    def leftovers(self) -> Iterable[Path]:
        """Files of a run that the helper itself does not remove."""
        return ()

    # --- for the helpers --------------------------------------------------------------------------------------

    async def launch(self, argv: Sequence[str], launch: Launch, *, socket: Path | None = None, log_path: Path) -> None:
        """Run `argv`, its output into a log, until `socket` is there. Raises VirtError with its last words."""
        try:
            fd = await in_thread(open_log, log_path)
        except OSError as exc:
            raise from_os_error(exc, f"cannot open '{log_path}'") from exc
        try:
            await in_thread(self._note_start, argv)
            self._words = log_path, os.fstat(fd).st_size
            self.process = spawn(argv, replace(launch, env=_environment(launch.env), stdout=fd, stderr=fd, cwd="/"))
        except OSError as exc:
            raise from_os_error(exc, f"Cannot execute {argv[0]}") from exc
        finally:
            os.close(fd)
        try:
            await in_thread(self.pid_file.write_text, f"{self.process.pid}\n")
        except OSError as exc:
            raise from_os_error(exc, f"cannot write '{self.pid_file}'") from exc
        try:
            if socket is not None:
                await self._wait_for(socket)
        except (TimeoutError, ProcessLookupError):
            raise await self.obituary() from None

    async def obituary(self) -> VirtError:
        """The error of a helper that ended, with its last words."""
        return self.failure(await in_thread(tail, *self._words))

    def failure(self, words: str) -> VirtError:
        """The error of a helper that did not come up."""
        code = self.process.returncode if self.process is not None else None
        return InternalError(f"Could not start '{self.program}'. exitstatus: {code}, error: {words}", domain=From.QEMU)

    def _note_start(self, argv: Sequence[str]) -> None:
        """A line in the guest's log, from which the command can be tried by hand."""
        fd = open_log(self.run.log_path)
        try:
            os.write(fd, f"{stamp()}: Starting external device: {self.title}\n{shlex.join(argv)}\n".encode())
        finally:
            os.close(fd)

    async def _wait_for(self, socket: Path) -> None:
        assert self.process is not None
        async with asyncio.timeout(READY_S):
            while not await in_thread(_listens, socket):
                if not self.process.running:
                    await self.process.wait()
                    raise ProcessLookupError
                await asyncio.sleep(POLL_S)

    # --- for those who look after them ------------------------------------------------------------------------

    async def find(self) -> bool:
        """Whether it is found running, as an earlier daemon left it."""
        try:
            pid = await in_thread(_noted, self.pid_file)
            found = Process.adopt(pid)
        except (OSError, ValueError):
            return False
        if await in_thread(_program_of, pid) != self.program:
            found.close()
            return False
        self.process = found
        return True

    async def end(self) -> None:
        """End its process. Of one that has ended nothing is left to do."""
        process = self.process
        if process is None:
            return
        for number, seconds in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
            process.send_signal(number)
            try:
                async with asyncio.timeout(seconds):
                    await process.wait()
                    break
            except TimeoutError:
                log.warning("%s: %s does not end by %s", self.run.name, self.program, number.name)
        process.close()
        if self.process is process:
            self.process = None

    async def stop(self) -> None:
        """End it, and remove what it leaves."""
        await self.end()
        await in_thread(_unlink_all, [self.pid_file, *self.leftovers()])


def _environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The daemon's own, without what the service manager said to the daemon alone, and more."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(OF_SERVICE)}
    return own | dict(more or {})


def kill_by_file(pid_file: Path, programs: Collection[str]) -> None:
    """Kill the helper whose number stands in a file, and remove that; nothing but one of these programs. Blocks."""
    with suppress(OSError, ValueError):
        pid = _noted(pid_file)
        pidfd = os.pidfd_open(pid)
        try:
            if _program_of(pid) in programs:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    pid_file.unlink(missing_ok=True)


def _noted(pid_file: Path) -> int:
    """The number in a file. Raises OSError and ValueError."""
    return int(pid_file.read_text()[:PID_MAX].strip())


def _program_of(pid: int) -> str:
    """The name of a process's executable, as it was called; "" when it is gone."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return os.path.basename(words[0]).decode("utf-8", "replace")


def _listens(path: Path) -> bool:
    """Somebody accepts connections at a socket; finding out by connecting would be the end of those that serve one."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except OSError:
        return False
    # proc(5): number, references, protocol, flags, type, state, inode, path. A busy host has thousands of lines.
    sockets, wanted = SOCKETS.read_bytes(), b" " + os.fsencode(path) + b"\n"
    at = sockets.find(wanted)
    while at >= 0:
        words = sockets[sockets.rfind(b"\n", 0, at) + 1 : at].split()
        if len(words) == SOCKET_WORDS and int(words[3], 16) & ACCEPTS:
            return True
        at = sockets.find(wanted, at + 1)
    return False


def find_program(name: str) -> str:
    """The executable of that name. Raises SystemError_ where the host has none."""
    found = shutil.which(name)
    if found is None:
        exc = FileNotFoundError(2, os.strerror(2))
        raise from_os_error(exc, f"Unable to find '{name}' binary in $PATH", domain=From.NONE) from None
    return found


def require_executable(path: str, error: str) -> str:
    """The path, if it can be run. Raises SystemError_ with `error`."""
    if not os.access(path, os.X_OK):
        raise SystemError_(f"{error}: {os.strerror(2)}", int1=2, domain=From.QEMU)
    return path


async def prepare(argv: Sequence[str], identity: Identity | None, log_path: Path) -> Result:
    """Run a command that makes a helper's files, to its end. Raises InternalError where it fails."""
    launch = Launch(env=_environment(), identity=identity, umask=0o077)
    result = await run(argv, timeout=SETUP_S, launch=launch)
    if result.returncode:
        raise InternalError(
            f"Could not run '{argv[0]}'. exitstatus: {result.returncode}; Check error log '{log_path}' for details.",
            domain=From.NONE,
        )
    return result


def _unlink_all(paths: Iterable[Path]) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("cannot remove '%s': %s", path, exc)
