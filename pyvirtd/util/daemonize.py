"""Going into the background: the command returns when the daemon serves, or tells why it does not."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

READY = b"\0"
MESSAGE_MAX = 4096
UNEXPLAINED = "the daemon ended before it was ready"


@contextmanager
def daemonized(wanted: bool) -> Iterator[Callable[[], None]]:
    """Run the body in a daemon of its own session, and give it the function that says that it serves.

    The calling process does not come back: it exits with 0 when the body calls the function, and with 1 after printing
    the error when the body raises before that, or ends. Until then the daemon keeps its caller's stderr. Locks of
    files and threads do not pass to the daemon: take and start them in the body.
    """
    if not wanted:
        yield lambda: None
        return
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(write_fd)
        _exit_as_told(read_fd)
    os.close(read_fd)
    os.setsid()
    # The first child only leads the session; its child can never get a terminal of its own.
    if os.fork():
        os._exit(0)
    os.chdir("/")
    _to_null(0, 1)
    report = _Report(write_fd)
    try:
        yield report.ready
    except BaseException as exc:
        report.failed(str(exc) or type(exc).__name__)
        raise
    finally:
        report.failed(UNEXPLAINED)


class _Report:
    """What the daemon tells the process that started it, once."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        self._send(READY)

    def failed(self, text: str) -> None:
        self._send(text.encode("utf-8", "backslashreplace")[:MESSAGE_MAX])

    def _send(self, data: bytes) -> None:
        if self._fd < 0:
            return
        _to_null(2)
        with suppress(BrokenPipeError):  # who started us may be gone
            os.write(self._fd, data)
        os.close(self._fd)
        self._fd = -1


def _exit_as_told(fd: int) -> NoReturn:
    told = b""
    while part := os.read(fd, MESSAGE_MAX):
        told += part
    if told == READY:
        os._exit(0)
    sys.stderr.write(f"pyvirtd: error: {told.decode('utf-8', 'replace') or UNEXPLAINED}\n")
    sys.stderr.flush()
    os._exit(1)


def _to_null(*fds: int) -> None:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in fds:
        os.dup2(null, fd)
    os.close(null)
