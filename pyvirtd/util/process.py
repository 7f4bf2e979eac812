"""Processes: starting them cheaply from a big daemon, waiting for their end by pidfd, running commands to their end.

A child is started by vfork, so that the daemon's size does not matter; what must happen between fork and exec (user,
limits, capabilities) is done by util-linux's prlimit and setpriv in front of the program, each a quick exec.
"""

import asyncio
import os
import select
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple, Self

from pyvirtd.errors import InternalError, OperationTimeout

DEVNULL = subprocess.DEVNULL
# After a command ended: how long its own children may keep its output open.
LINGER_S = 0.5
KILL_S = 5.0
CHUNK = 65536
# getrlimit(2) name without RLIMIT_ -> prlimit(1) option.
LIMITS = {
    name: f"--{name.lower()}" for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "NOFILE", "NPROC", "STACK")
}


class Identity(NamedTuple):
    """Whom a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a program is started; the defaults give it nothing of ours.

    `pass_fds` keep their numbers, all other descriptors are closed. `limits` maps a getrlimit(2) name without RLIMIT_
    to the value that becomes the soft and the hard limit, None for unlimited. `drop_capabilities` empties the
    bounding set as well, so that not even a set-uid program gets them back. With `dies_with_us` the program is killed
    when this process ends, however it ends; it is started from the main thread then.
    """

    env: Mapping[str, str] | None = None
    pass_fds: Collection[int] = ()
    identity: Identity | None = None
    drop_capabilities: bool = False
    limits: Mapping[str, int | None] = field(default_factory=dict)
    umask: int = -1
    cwd: str | None = None
    stdin: int = DEVNULL
    stdout: int = DEVNULL
    stderr: int = DEVNULL
    new_session: bool = True
    dies_with_us: bool = False


DEFAULT_LAUNCH = Launch()


class CommandTimeout(OperationTimeout):
    """A command that did not end in time, and was killed."""


class OutputTooLong(InternalError):
    """A command that printed more than it may, and was killed."""


class Result(NamedTuple):
    """How a command ended: exit code, or minus the signal that killed it."""

    returncode: int
    stdout: bytes
    stderr: bytes


class Process:
    """A process that is watched until its end, our child or not. Belongs to the running loop.

    Its pidfd makes signals safe: they reach this process or none, never another one with the same number.
    """

    def __init__(self, pid: int, pidfd: int, start_time: int, child: "subprocess.Popen[bytes] | None") -> None:
        self.pid = pid
        self.start_time = start_time
        self._pidfd = pidfd
        self._child = child
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int | None] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._ended)

    @classmethod
    def adopt(cls, pid: int, start_time: int | None = None) -> Self:
        """Watch a process that already runs. Raises ProcessLookupError where it is gone or began at another time."""
        pidfd = os.pidfd_open(pid)
        try:
            found = process_start_time(pid)
            if _has_ended(pidfd) or (start_time is not None and found != start_time):
                raise ProcessLookupError(f"process {pid} is not the one that began at {start_time}")
            return cls(pid, pidfd, found, None)
        except BaseException:
            os.close(pidfd)
            raise

    @property
    def running(self) -> bool:
        """Whether it has not ended; asks the kernel, and does not wait for the loop's turn."""
        return not self._end.done() and not _has_ended(self._pidfd)

    @property
    def returncode(self) -> int | None:
        """Exit code or minus the signal, once it ended; None before, and for one that is not our child."""
        return self._end.result() if self._end.done() else None

    async def wait(self) -> int | None:
        """Wait for the end: exit code or minus the signal, None for one that is not our child."""
        return await asyncio.shield(self._end)

    def send_signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when it has ended."""
        if self._end.done():
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def close(self) -> None:
        """Stop watching; who waits is told None. A process that still runs is left to itself."""
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
            if not self._end.done():
                self._end.set_result(None)
            if self._child is not None and self._child.returncode is None:
                self._child.returncode = 0  # keeps subprocess from looking after it

    def _ended(self) -> None:
        code = None if self._child is None else _reap(self._pidfd)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._child is not None:
            self._child.returncode = code
        if not self._end.done():
            self._end.set_result(code)


def spawn(argv: Sequence[str], launch: Launch = DEFAULT_LAUNCH) -> Process:
    """Start a program, and watch it. Raises OSError when it cannot be executed.

    That the daemon is spared when memory runs out (OOMScoreAdjust of its unit) is not passed on.
    With an identity, limits or dropped capabilities a program that cannot be executed ends with code 127 instead.
    """
    child = subprocess.Popen(
        [*_launcher(launch), *argv],
        env=launch.env,
        pass_fds=tuple(launch.pass_fds),
        umask=launch.umask,
        cwd=launch.cwd,
        stdin=launch.stdin,
        stdout=launch.stdout,
        stderr=launch.stderr,
        start_new_session=launch.new_session,
    )
    if _is_spared():
        with suppress(OSError):  # it has ended
            Path(f"/proc/{child.pid}/oom_score_adj").write_text("0")
    # A child that ended stays a zombie until _ended() reaps it, so that number and start time are still its own.
    try:
        pidfd = os.pidfd_open(child.pid)
    except OSError:
        child.kill()
        child.wait()
        raise
    return Process(child.pid, pidfd, process_start_time(child.pid), child)


async def run(
    argv: Sequence[str], *, input: bytes = b"", timeout: float, limit: int = 1 << 20, launch: Launch = DEFAULT_LAUNCH
) -> Result:
    """Run a command with `input` on its standard input, until it ends. Kills it and its group where it may not go on.

    Raises CommandTimeout, OutputTooLong (more than `limit` bytes on either output), and OSError.
    """
    with _Input(input) as stdin, _Output(limit) as out, _Output(limit) as err:
        wired = replace(launch, stdout=out.write_fd, stderr=err.write_fd, new_session=True)
        process = spawn(argv, wired if launch.stdin != DEVNULL else replace(wired, stdin=stdin.fd))
        out.begin(process)
        err.begin(process)
        try:
            async with asyncio.timeout(timeout):
                code = await process.wait()
            async with asyncio.timeout(LINGER_S):
                await asyncio.gather(out.done, err.done)
        except TimeoutError:
            if process.running:
                raise CommandTimeout(f"'{argv[0]}' did not end within {timeout:g} seconds") from None
        finally:
            await _finish(process)
        if out.overflow or err.overflow:
            raise OutputTooLong(f"'{argv[0]}' printed more than {limit} bytes")
        assert code is not None
        return Result(code, bytes(out.data), bytes(err.data))


def process_start_time(pid: int) -> int:
    """When a process began, in clock ticks since boot (proc(5) stat field 22). Raises ProcessLookupError."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    # The command's name stands in parentheses and may hold anything, parentheses too.
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


@cache
def _is_spared() -> bool:
    """Whether this process, and what it starts, is among the last that the kernel ends when memory runs out."""
    try:
        return int(Path("/proc/self/oom_score_adj").read_text()) < 0
    except OSError:
        return False


def _launcher(launch: Launch) -> list[str]:
    """The programs in front of the program that do what must be done before it is executed."""
    argv: list[str] = []
    if launch.limits:
        argv.append("prlimit")
        for name, value in launch.limits.items():
            bound = "unlimited" if value is None else str(value)
            argv.append(f"{LIMITS[name]}={bound}:{bound}")
    identity = launch.identity
    switch = identity is not None and (identity.uid, identity.gid) != (os.geteuid(), os.getegid())
    by_setpriv = switch or launch.drop_capabilities or launch.dies_with_us
    if by_setpriv:
        argv.append("setpriv")
    if switch:
        assert identity is not None
        groups = ",".join(map(str, identity.groups))
        argv += [f"--reuid={identity.uid}", f"--regid={identity.gid}"]
        argv.append(f"--groups={groups}" if groups else "--clear-groups")
    if launch.drop_capabilities:
        argv += ["--inh-caps=-all", "--bounding-set=-all"]
    if launch.dies_with_us:
        argv.append("--pdeathsig=KILL")
    if by_setpriv:
        argv.append("--")
    return argv


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _reap(pidfd: int) -> int:
    """The exit code of a child that ended, minus the signal where one killed it."""
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        return 0  # somebody else has waited for it
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


# Running a command


class _Input:
    """Bytes to be read by a child: a file in memory, so that nobody has to feed a pipe."""

    def __init__(self, data: bytes) -> None:
        self.fd = DEVNULL
        if data:
            self.fd = os.memfd_create("input", os.MFD_CLOEXEC)
            view = memoryview(data)
            while view:
                view = view[os.write(self.fd, view) :]
            os.lseek(self.fd, 0, os.SEEK_SET)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class _Output:
    """A pipe whose reading end the loop empties. A command that fills it beyond the limit is killed."""

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self.overflow = False
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_fd, False)

    def begin(self, process: Process) -> None:
        """The process has the writing end now: read what it writes."""
        self._close_write()
        self._loop.add_reader(self._read_fd, self._readable, process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._close_write()
        self._close_read()

    def _close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def _close_read(self) -> None:
        if self._read_fd >= 0:
            self._loop.remove_reader(self._read_fd)
            os.close(self._read_fd)
            self._read_fd = -1
        if not self.done.done():
            self.done.set_result(None)

    def _readable(self, process: Process) -> None:
        try:
            part = os.read(self._read_fd, CHUNK)
        except BlockingIOError:
            return
        self.data += part
        if len(self.data) > self._limit:
            self.overflow = True
            _kill_group(process)
        if not part or self.overflow:
            self._close_read()


def _kill_group(process: Process) -> None:
    """Kill a command that still runs, and whatever it started in its session's first group."""
    if process.running:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _finish(process: Process) -> None:
    """Leave no command behind that has not ended by itself."""
    _kill_group(process)
    with suppress(TimeoutError):
        async with asyncio.timeout(KILL_S):
            await process.wait()
    process.close()
