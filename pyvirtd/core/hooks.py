"""Hook scripts: the administrator's programs, run when the daemon, a guest or a network begins, ends or moves.

For a driver word they are DIR/WORD, then every executable in DIR/WORD.d/ in the order of their bytes. Which call is
made when, and with which arguments: https://libvirt.org/hooks.html
"""

import errno
import logging
import os
import shlex
import stat
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pyvirtd.errors import HookFailed, VirtError
from pyvirtd.paths import Paths
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Launch, Result, run

log = logging.getLogger(__name__)

# libvirt waits for ever. Long enough for storage that is brought up by a script, short enough that a guest whose
# script hangs can be started again the same day.
DEADLINE_S = 600.0
OUTPUT_MAX = 4 << 20  # what a client may send as a domain's XML is no longer
STDERR_SHOWN = 16 << 10
# All that a script sees of the daemon's environment.
PASSED_VARIABLES = ("LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "HOME", "USER", "LOGNAME", "TMPDIR")
NOTHING = "-"


class HookDriver(StrEnum):
    """The first part of a script's name."""

    DAEMON = "daemon"
    QEMU = "qemu"
    LXC = "lxc"
    NETWORK = "network"


class DaemonOp(StrEnum):
    START = "start"
    SHUTDOWN = "shutdown"
    RELOAD = "reload"


class DomainOp(StrEnum):
    """MIGRATE and RESTORE are filters: what the scripts print is the document to go on with."""

    PREPARE = "prepare"
    START = "start"
    STARTED = "started"
    STOPPED = "stopped"
    RELEASE = "release"
    RECONNECT = "reconnect"
    MIGRATE = "migrate"
    RESTORE = "restore"


class NetworkOp(StrEnum):
    START = "start"
    STARTED = "started"
    STOPPED = "stopped"
    PORT_CREATED = "port-created"
    PORT_DELETED = "port-deleted"
    UPDATED = "updated"


class Rest(NamedTuple):
    """The arguments that follow the operation."""

    sub: str
    extra: str


BEGIN = Rest("begin", NOTHING)
END = Rest("end", NOTHING)
DAEMON_RESTS = {
    DaemonOp.START: Rest(NOTHING, "start"),
    DaemonOp.SHUTDOWN: Rest(NOTHING, "shutdown"),
    DaemonOp.RELOAD: Rest("begin", "SIGHUP"),
}
ENDINGS: frozenset[StrEnum] = frozenset((DomainOp.STOPPED, DomainOp.RELEASE, NetworkOp.STOPPED, NetworkOp.PORT_DELETED))

# XML for the script's standard input, or how to make it: formatted only when there is a script to read it.
Document = str | Callable[[], str]


class Hooks:
    """Runs the scripts of one daemon's configuration directory; none of its methods holds up the loop.

    Scripts may call the daemon: they run beside the loop, and nothing here is locked meanwhile.
    """

    def __init__(self, paths: Paths, deadline_s: float = DEADLINE_S) -> None:
        self._directory = paths.hooks
        self._deadline_s = deadline_s
        self._told: set[Path] = set()

    def present(self, driver: str) -> bool:
        """Whether there may be anything to run: a script, or a directory for some."""
        return (self._directory / driver).exists() or (self._directory / f"{driver}.d").exists()

    async def daemon(self, operation: DaemonOp) -> None:
        """The daemon's own hook. Raises HookFailed."""
        rest = DAEMON_RESTS[operation]
        await self.run(HookDriver.DAEMON, NOTHING, operation, rest.sub, rest.extra)

    async def domain(self, driver: HookDriver, name: str, operation: DomainOp, xml: Document) -> str | None:
        """A guest's hook; for MIGRATE and RESTORE the XML that replaces the given one, if any. Raises HookFailed."""
        rest = END if operation in ENDINGS else BEGIN
        return await self.run(driver, name, operation, rest.sub, rest.extra, xml)

    async def network(self, name: str, operation: NetworkOp, xml: Document) -> None:
        """A network's hook; the document is <hookData>. Raises HookFailed."""
        rest = END if operation in ENDINGS else BEGIN
        await self.run(HookDriver.NETWORK, name, operation, rest.sub, rest.extra, xml)

    async def run(
        self,
        driver: str,
        object: str,
        operation: str,
        sub: str = NOTHING,
        extra: str = NOTHING,
        stdin: Document = "",
    ) -> str | None:
        """Run all scripts of a driver word, also those after one that failed; what they print, if anything.

        Each reads what the one before it printed, or the same as that one where it printed nothing. Raises HookFailed
        for the last one that failed.
        """
        scripts = await self._scripts(driver)
        if not scripts:
            return None
        document = stdin if isinstance(stdin, str) else stdin()
        printed: str | None = None
        failure: HookFailed | None = None
        for script in scripts:
            try:
                output = await self._run_one(script, (object, operation, sub, extra), printed or document)
            except HookFailed as exc:
                log.error("%s", exc)
                failure = exc
            else:
                printed = output if output.strip() else printed
        if failure is not None:
            raise failure
        return printed

    async def _run_one(self, script: Path, arguments: tuple[str, ...], document: str) -> str:
        argv = [str(script), *arguments]
        environment = script_environment(os.environ)
        try:
            result = await run(
                argv,
                input=document.encode("utf-8", "surrogateescape"),
                timeout=self._deadline_s,
                limit=OUTPUT_MAX,
                launch=Launch(env=environment),
            )
        except OSError as exc:
            result = _as_shell_reports(script, exc)
        except VirtError as exc:  # too slow or too talkative
            raise HookFailed(f"{_command_text(argv, environment)} {exc.detail}") from exc
        if result.returncode:
            raise HookFailed(_failure_text(argv, environment, result))
        return result.stdout.decode("utf-8", "surrogateescape")

    async def _scripts(self, driver: str) -> list[Path]:
        found = await in_thread(find_scripts, self._directory, driver)
        for path in found.not_executable - self._told:
            log.warning("Non-executable hook script %s", path)
        self._told |= found.not_executable
        return found.executable


class Found(NamedTuple):
    """A driver's scripts in the order in which they run, and what looks like the main one but may not be executed."""

    executable: list[Path]
    not_executable: set[Path]


def find_scripts(directory: Path, driver: str) -> Found:
    """Look for a driver's scripts. What cannot be read is taken as not there."""
    main = directory / driver
    executable, not_executable = [], set()
    if _is_executable(main):
        executable.append(main)
    elif main.exists():
        not_executable.add(main)
    try:
        names = sorted(os.listdir(os.fsencode(directory / f"{driver}.d")))
    except OSError:
        names = []
    in_directory = (directory / f"{driver}.d" / os.fsdecode(name) for name in names)
    executable += [path for path in in_directory if _is_executable(path)]
    return Found(executable, not_executable)


def script_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a script sees of the environment, in libvirt's order: its messages come in the C locale."""
    return {"LC_ALL": "C"} | {name: environ[name] for name in PASSED_VARIABLES if name in environ}


def _is_executable(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and os.access(path, os.X_OK)


def _as_shell_reports(script: Path, exc: OSError) -> Result:
    """A script that could not be executed, as a shell's exit code and words."""
    code = 127 if exc.errno == errno.ENOENT else 126
    reason = os.strerror(exc.errno or 0)
    return Result(code, b"", f"cannot execute binary {script}: {reason}\n".encode("utf-8", "surrogateescape"))


def _command_text(argv: list[str], environment: Mapping[str, str]) -> str:
    words = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return f"internal error: Child process ({' '.join([*words, *map(shlex.quote, argv)])})"


def _failure_text(argv: list[str], environment: Mapping[str, str], result: Result) -> str:
    code = result.returncode
    how = f"unexpected exit status {code}" if code > 0 else f"unexpected fatal signal {-code}"
    words = result.stderr[:STDERR_SHOWN].decode("utf-8", "replace").replace("\0", "\ufffd")
    return f"{_command_text(argv, environment)} {how}{': ' + words if words else ''}"
