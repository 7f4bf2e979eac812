"""Programs between QEMU and a file: compression, and writing or reading past the page cache.

QEMU itself cannot align what it writes as O_DIRECT wants it; dd of coreutils can. Without either, QEMU is given the
file itself.
"""

import asyncio
import errno
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from io import FileIO
from typing import Self

from pyvirtd.constants.error import ErrorDomain as From
from pyvirtd.core.jobs import HeldLong
from pyvirtd.drivers.qemu.saving.image import ALIGNMENT, Format
from pyvirtd.drivers.qemu.saving.transfer import check_aborted
from pyvirtd.errors import OperationFailed, from_os_error
from pyvirtd.util.files import in_thread
from pyvirtd.util.process import Launch, Process, spawn

log = logging.getLogger(__name__)

BLOCK = 1 << 20
WORDS = 1024  # characters of a program's complaint that an error carries
KILL_S = 5.0
ENDING_S = 0.5  # between the end of a pipe and that of the program behind it
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
COMPRESS = {
    Format.GZIP: ("gzip", "-c"),
    Format.BZIP2: ("bzip2", "-c"),
    Format.XZ: ("xz", "-c"),
    Format.LZOP: ("lzop", "-c"),
    Format.ZSTD: ("zstd", "-c", "-q", "-T0"),
}
EXPAND = {
    Format.GZIP: ("gzip", "-dc"),
    Format.BZIP2: ("bzip2", "-dc"),
    Format.XZ: ("xz", "-dc"),
    Format.LZOP: ("lzop", "-dc", "--ignore-warn"),
    Format.ZSTD: ("zstd", "-dc", "-q"),
}
DIRECT_OUT = ("dd", f"bs={BLOCK}", "iflag=fullblock", "oflag=direct", "status=none")
RELAY = ("dd", f"bs={BLOCK}", "status=none")
DIRECT_IN = ("dd", f"bs={BLOCK}", "iflag=direct", "status=none")


class Pipeline:
    """Running programs, from the first to the last. `fd` is for QEMU; `close` it once QEMU has its own."""

    def __init__(self) -> None:
        self.fd = -1
        self._ours = ExitStack()  # descriptors that the programs have by then
        self._killed = False
        self._programs: list[tuple[str, Process]] = []
        self._words = os.memfd_create("words", os.MFD_CLOEXEC)

    @classmethod
    @asynccontextmanager
    async def writing(
        cls, file: int, offset: int, format: Format, *, bypass: bool, relay: bool = False
    ) -> AsyncIterator[Self]:
        """What QEMU writes comes to stand in a file from `offset`; `file` stays the caller's. Raises VirtError.

        `relay`: there is a program between in any case, so that `kill` makes QEMU's writes fail.
        """
        async with cls._made() as made:
            ours = made._ours
            programs = [COMPRESS[format]] if format is not Format.RAW else []
            target = file
            if bypass:
                programs.append(DIRECT_OUT)
                target = ours.enter_context(_reopened(file, os.O_WRONLY))
            elif relay and not programs:
                programs.append(RELAY)
            if offset:  # a pipe has none
                os.lseek(target, offset, os.SEEK_SET)
            for argv in reversed(programs):
                reading, writing = _pipe(ours)
                made._start(argv, reading.fileno(), target)
                target = writing.fileno()
            made.fd = os.dup(target)
            ours.close()
            yield made

    @classmethod
    @asynccontextmanager
    async def reading(cls, file: int, offset: int, format: Format, *, bypass: bool) -> AsyncIterator[Self]:
        """QEMU reads what stands in a file from `offset`, expanded; `file` stays the caller's. Raises VirtError."""
        async with cls._made() as made:
            ours = made._ours
            source = file
            if bypass:
                pipe, writing = _pipe(ours)
                skip = offset % ALIGNMENT
                direct = ours.enter_context(_reopened(file, os.O_RDONLY | os.O_DIRECT))
                os.lseek(direct, offset - skip, os.SEEK_SET)
                made._start(DIRECT_IN, direct, writing.fileno())
                writing.close()
                source = pipe.fileno()
                await in_thread(_discard, source, skip)
            else:
                os.lseek(source, offset, os.SEEK_SET)
            if format is not Format.RAW:
                expanded, writing = _pipe(ours)
                made._start(EXPAND[format], source, writing.fileno())
                source = expanded.fileno()
            made.fd = os.dup(source)
            ours.close()
            yield made

    @classmethod
    @asynccontextmanager
    async def _made(cls) -> AsyncIterator[Self]:
        made = cls()
        try:
            with made._ours:
                yield made
        finally:
            made.kill()
            await asyncio.shield(made._bury())

    async def _bury(self) -> None:
        for name, process in self._programs:
            try:
                async with asyncio.timeout(KILL_S):
                    await process.wait()
            except TimeoutError:
                log.error("process %d (%s) does not end", process.pid, name)
            process.close()
        os.close(self._words)

    def _start(self, argv: tuple[str, ...], stdin: int, stdout: int) -> None:
        launch = Launch(
            env=ENVIRONMENT,
            stdin=stdin,
            stdout=stdout,
            stderr=self._words,
            drop_capabilities=os.geteuid() == 0,
            dies_with_us=True,  # left alone it would go on writing what nobody wants, into what may be a new image
        )
        try:
            self._programs.append((argv[0], spawn(argv, launch)))
        except OSError as exc:
            raise from_os_error(exc, f"Cannot execute {argv[0]}") from exc

    def close(self) -> None:
        """Close our end of the pipe: the programs end when QEMU has closed its own."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def kill(self) -> None:
        """End the programs; a write of QEMU's that hangs fails."""
        self.close()
        self._killed = True
        for _, process in self._programs:
            process.send_signal(signal.SIGKILL)

    async def finish(self, job: HeldLong) -> None:
        """Wait until the programs are done with all they were given. Raises OperationFailed, OperationAborted."""
        self.close()
        aborted = asyncio.ensure_future(job.aborted.wait())
        try:
            for _, process in self._programs:
                ended = asyncio.ensure_future(process.wait())
                await asyncio.wait({ended, aborted}, return_when=asyncio.FIRST_COMPLETED)
                check_aborted(job)
        finally:
            aborted.cancel()
        if (error := await self.failure()) is not None:
            raise error

    async def failure(self) -> OperationFailed | None:
        """Why the first program that failed did, if one has; they get a moment to end after QEMU has."""
        self.close()
        if self._killed:
            return None
        for name, process in self._programs:
            with suppress(TimeoutError):
                async with asyncio.timeout(ENDING_S):
                    await process.wait()
            code = process.returncode
            # Who reads what it writes ended first: that is not its own fault.
            if code and code != -signal.SIGPIPE and "Broken pipe" not in self._complaint():
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                words = self._complaint()
                return OperationFailed(f"'{name}' {how}{': ' if words else ''}{words}", domain=From.QEMU)
        return None

    def _complaint(self) -> str:
        return os.pread(self._words, 4 * WORDS, 0).decode("utf-8", "replace").strip()[:WORDS]


def available(format: Format) -> bool:
    """Whether the program of a format is installed."""
    if format is Format.RAW:
        return True
    name = COMPRESS[format][0]
    return any(os.access(f"{folder}/{name}", os.X_OK) for folder in ENVIRONMENT["PATH"].split(":"))


def _pipe(ours: ExitStack) -> tuple[FileIO, FileIO]:
    """A wide pipe, (reading end, writing end), closed with `ours`."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):  # beyond the user's limit: a narrow one works too
        fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, BLOCK)
    return ours.enter_context(FileIO(reading, "rb")), ours.enter_context(FileIO(writing, "wb"))


@contextmanager
def _reopened(file: int, flags: int) -> Iterator[int]:
    """Another open file description of the same file. Raises VirtError where it cannot be had past the page cache."""
    try:
        fd = os.open(f"/proc/self/fd/{file}", flags | os.O_CLOEXEC)
        if not flags & os.O_DIRECT:
            # dd would only fail after the guest was stopped.
            fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError as exc:
        number = errno.EINVAL if exc.errno is None else exc.errno
        raise from_os_error(OSError(number, ""), "bypassing the cache is not possible for this file") from exc
    try:
        yield fd
    finally:
        os.close(fd)


def _discard(fd: int, size: int) -> None:
    while size > 0 and (part := os.read(fd, size)):
        size -= len(part)
