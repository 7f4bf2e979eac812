"""Threads of their own for system calls that may never return, so that these hold up nothing but themselves.

A file system that a user serves (FUSE) or a server that is gone (NFS) decides how long closing a file takes; a kernel
that waits for a device keeps whoever asked. Such threads are left to the kernel, also when the daemon ends.
"""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger(__name__)

CLOSERS_MAX = 64  # threads that close descriptors; each of them may be held by one


async def in_own_thread(timeout_s: float, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
    """The function's result. Raises TimeoutError where it does not come in time; the thread is left to itself."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[R] = loop.create_future()

    def settle(result: R | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type] # None only where R has it

    def work() -> None:
        result, error = None, None
        try:
            result = function(*args, **kwargs)
        except Exception as exc:
            error = exc
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="own", daemon=True).start()
    async with asyncio.timeout(timeout_s):
        return await answer


class Closers:
    """Threads that close descriptors which came from elsewhere; they end when nothing is left to close."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[int] = deque()
        self._running = 0
        self._full = False  # and the log has been told

    @property
    def idle(self) -> bool:
        """Whether all that was handed over is closed."""
        with self._lock:
            return not self._running

    def close(self, fds: Iterable[int]) -> None:
        """Close them soon."""
        fds = tuple(fds)
        if not fds:
            return
        with self._lock:
            self._waiting += fds
            begin = self._running < CLOSERS_MAX
            self._running += begin
            complain = not begin and not self._full
            self._full = not begin
        if begin:
            self._begin()
        elif complain:
            log.warning("%d threads are held by the descriptors that they close; more wait", CLOSERS_MAX)

    def _begin(self) -> None:
        try:
            threading.Thread(target=self._run, name="closer", daemon=True).start()
        except RuntimeError as exc:  # as many threads as the host allows
            log.warning("descriptors wait to be closed: %s", exc)
            with self._lock:
                self._running -= 1

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._running -= 1
                    return
                fd = self._waiting.popleft()
            with suppress(OSError):  # one that is closed already must not keep the others open
                os.close(fd)


closers = Closers()


def close_fds(fds: Iterable[int]) -> None:
    """Close descriptors that came from elsewhere, and that nobody uses any more, without waiting for it."""
    closers.close(fds)
